"""Griffe extension: the docstrings of this package, which are written as those of transformers, for a Google-style reader.

- ``name (`type`, *optional*): text`` loses its type where the signature or the class has one, which is then shown with links;
  a line about several names becomes one for each.
- ``[`Name`]`` links to the entry of a public name, of its member (``[`Name.method`]``), or of a member of the same class;
  a name without an entry stays plain code.
- A field made by `setting(default, "help")` has that help as its docstring, and that default.
"""

import ast
import re
from typing import Any

import griffe


PACKAGE = "hf_invertune"
REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\]")
ITEM = re.compile(r"^(?P<indent> +)(?P<names>\w+(?: \(.*?\))?(?:,(?: and)? \w+(?: \(.*?\))?)*): (?P<text>.*)$")
WRAPPED = re.compile(r",\n +(?=\*optional\*\)|\w+ \(`)")
"""Where the names of an item go on in another line."""
NAME = re.compile(r"(\w+)(?: \(((?:[^()]|\([^()]*\))*)\))?")
SECTION = re.compile(r"^(Args|Attributes):$")


class HFDocstrings(griffe.Extension):
    """Reads settings as the package is read, and rewrites every docstring afterwards."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        call = attr.value
        if not isinstance(call, griffe.ExprCall) or str(call.function) != "setting":
            return
        given = {one.name: one.value for one in call.arguments if isinstance(one, griffe.ExprKeyword)}
        positional = [one for one in call.arguments if not isinstance(one, griffe.ExprKeyword)]
        given |= dict(zip(("default", "help"), positional, strict=False))
        if "help" in given:
            attr.docstring = griffe.Docstring(ast.literal_eval(str(given["help"])), parent=attr)
        if "default" in given or "factory" in given:
            attr.value = given.get("default", "...")  # what a factory makes is told by the help
        else:
            attr.value = None

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        names = {name for name in pkg.exports or () if isinstance(name, str) and not name.startswith("_")}
        self._walk(pkg, {name: pkg[pkg[name].canonical_path.removeprefix(f"{pkg.path}.")] for name in sorted(names)})

    def _walk(self, owner: griffe.Module | griffe.Class, public: dict[str, griffe.Object]) -> None:
        for member in owner.members.values():
            if isinstance(member, griffe.Alias):
                continue
            if member.docstring is not None:
                member.docstring.value = _rewritten(member, public)
            if isinstance(member, griffe.Module | griffe.Class):
                self._walk(member, public)


def _rewritten(thing: griffe.Object, public: dict[str, griffe.Object]) -> str:
    assert thing.docstring is not None
    lines, section = [], False
    for line in WRAPPED.sub(", ", thing.docstring.value).splitlines():
        item = ITEM.match(line) if section else None
        if SECTION.match(line):
            section = True
        elif line and not line.startswith(" "):
            section = False
        lines += [line] if item is None or len(item["indent"]) > 4 else _items(item, thing)
    text = "\n".join(lines)
    return REFERENCE.sub(lambda found: _linked(found[2], thing, public), text)


def _items(item: re.Match[str], thing: griffe.Object) -> list[str]:
    """A line for each of the names that an item is about."""
    lines = []
    for name, kind in NAME.findall(item["names"].replace(", and ", ", ")):
        kind = re.sub(r"[`\[\]]|,? ?\*optional\*", "", kind)
        shown = f" ({kind})" if kind and not _typed(name, thing) else ""
        lines.append(f"{item['indent']}{name}{shown}: {item['text']}")
    return lines


def _typed(name: str, thing: griffe.Object) -> bool:
    """Whether the code says the type of this argument or attribute."""
    if isinstance(thing, griffe.Function):
        return name in thing.parameters and thing.parameters[name].annotation is not None
    if isinstance(thing, griffe.Class):
        known = name in thing.members and getattr(thing.members[name], "annotation", None) is not None
        return known or (name in thing.parameters and thing.parameters[name].annotation is not None)
    return False


def _linked(name: str, thing: griffe.Object, public: dict[str, griffe.Object]) -> str:
    """The name as code, with a link to its entry in the reference, or to that of its class; none where there is none."""
    owner = thing if isinstance(thing, griffe.Class) else thing.parent
    whole = f"{owner.name}.{name}" if owner is not None and name in owner.members and owner.name in public else name
    first, _, member = whole.partition(".")
    if first not in public:
        return f"`{name}`"
    described = member in public[first].members and public[first].members[member].docstring is not None
    return f"[`{name}`][{PACKAGE}.{whole if described else first}]"

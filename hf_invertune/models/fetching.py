"""Where a model is: a folder, or a repository of the Hub of which no more is fetched than one set of weights needs."""

import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, constants, get_cached_repo_tree, is_offline_mode, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfHubHTTPError
from huggingface_hub.utils import httpx

from ..errors import InputError
from ..utils.files import given_path
from ..utils.hub_errors import hub_errors
from .open_clip import CONFIG as OPEN_CLIP
from .open_clip import WEIGHTS as OPEN_CLIP_WEIGHTS
from .stored import INDEX, WHOLE, parts


logger = logging.getLogger(__name__)

Format: TypeAlias = Literal["transformers", "open_clip"]
"""Whose files a model is read from and saved in."""

WEIGHTS: dict[Format, tuple[str, ...]] = {"transformers": (WHOLE, INDEX), "open_clip": OPEN_CLIP_WEIGHTS}
"""The names of the file that holds all weights, or an index of those that do, the best first."""
BOT = "SFconvertbot"
"""Who converts pickles on the Hub, in a pull request of this title."""
BOT_TITLE = "Adding `safetensors` variant of this model"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
"""What is fetched beside weights, and goes along with a tower."""
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
PAGE = re.compile(
    r"/(?P<name>[^/]+(/[^/]+)?)(/(tree|blob|resolve)/(?P<revision>refs/pr/\d+|[^/]+)(/(?P<inside>.+))?)?/?"
)
"""The path of a model's page on the Hub, of one of its folders, or of one of its files."""


@dataclass
class HubScan:
    """What the Hub's own scanners, for malware and unsafe pickles, say of a repository.

    Attributes:
        done (`bool`): whether they have been through all of it.
        issues (`dict[str, str]`): the files that they object to, and how much: `"unsafe"`, `"suspicious"` and the like.
    """

    done: bool
    issues: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        found = ", ".join(f"{file} ({level})" for file, level in self.issues.items())
        return f"they flag {found or 'nothing'}{'' if self.done else ', and are not through yet'}"


@dataclass
class TowerOrigin:
    """What an image tower without a text tower was, and with whose it was judged, if with any.

    Attributes:
        architecture (`str`): the class that its config.json names: that of a tower, or of the model that it is in.
        text_model (`str`, *optional*): folder name or Hub id of the model with the text tower.
        text_revision (`str`, *optional*): the commit of that on the Hub.
        text_sha256 (`str`, *optional*): digest of all its weights.
    """

    architecture: str
    text_model: str | None = None
    text_revision: str | None = None
    text_sha256: str | None = None

    def __str__(self) -> str:
        if self.text_model is None:
            return f"the image tower of a {self.architecture}, without a text tower"
        commit = f", commit {self.text_revision}" if self.text_revision else ""
        return f"the image tower of a {self.architecture}, judged with the text tower of {self.text_model}{commit}"


@dataclass
class Origin:
    """What beside its name and commit tells where a model came from.

    Attributes:
        subfolder (`str`, *optional*): the folder in the repository, or in the folder, that held it.
        variant (`str`, *optional*): the variant of its weights, such as `"fp16"`.
        pull_request (`str`, *optional*): the pull request of [`BOT`] that its commit is of, such as `"refs/pr/3"`.
        hub_scan ([`HubScan`], *optional*): what the Hub says of the repository, when it does.
        tower ([`TowerOrigin`], *optional*): of an image tower that came without a text tower: what it was part of.
    """

    subfolder: str | None = None
    variant: str | None = None
    pull_request: str | None = None
    hub_scan: HubScan | None = None
    tower: TowerOrigin | None = None

    def __str__(self) -> str:
        """All of it in words, as far as there is something to be said."""
        said = [f"the weights are those of {self.pull_request} by {BOT}"] if self.pull_request else []
        said += [f"the scanners of the Hub: {self.hub_scan}"] if self.hub_scan else []
        said += [str(self.tower)] if self.tower else []
        return "; ".join(said)


@dataclass
class Place:
    """Where a model is, and what of it was chosen; of one on the Hub its settings are here already.

    Attributes:
        name (`str`): the folder's name or the Hub id.
        revision (`str`, *optional*): the commit on the Hub.
        folder (`Path`): holds its config.json, and once it is fetched its weights.
        files (`list[str]`): the names of all the files there are in that folder, here or on the Hub.
        card (`Path`): its README.md, if it has one.
        origin ([`Origin`]): the rest.
        unfit (`list[str]`): pull requests with safetensors, and why they cannot be trusted.
    """

    name: str
    revision: str | None
    folder: Path
    files: list[str]
    card: Path
    origin: Origin
    unfit: list[str] = field(default_factory=list)

    def fetch(self, shown: str, token: str | bool | None) -> None:
        """Fetch the weights, when they are not here; errors call the model `shown`.

        Raises:
            InputError: when there are none that can be read.
        """
        file = chosen(self.files, self.origin.variant)
        if file is None:
            raise InputError(_missing(self, shown))
        if self.revision is None:
            return
        names = [file] if file.endswith(".safetensors") else parts(self.folder, file, shown)
        prefix = f"{self.origin.subfolder}/" if self.origin.subfolder else ""
        with hub_errors(self.name, argument="model", revision=self.revision, token=token):
            snapshot_download(
                self.name, revision=self.revision, token=token, allow_patterns=[prefix + name for name in names]
            )

    @contextmanager
    def plain(self) -> Iterator[Path]:
        """The folder, in which inside the weights have the names that those of no variant have."""
        if self.origin.variant is None:
            yield self.folder
            return
        with tempfile.TemporaryDirectory() as beside:
            for path in self.folder.resolve().iterdir():
                if path.name not in (WHOLE, INDEX):
                    os.symlink(path, Path(beside, _plain_name(path.name, self.origin.variant)))
            yield Path(beside)


def find_model(
    name_or_path: str | Path,
    revision: str | None,
    subfolder: str | None,
    variant: str | None,
    token: str | bool | None,
) -> Place:
    """Find a model by its folder, its Hub id or the address of its page, and fetch its settings.

    Where a repository has pickles in their place, the safetensors are taken that [`BOT`] made of its pickles, if it did so from the very
    commit that the main branch stands at.

    Raises:
        InputError: when there is no such model or folder in it.
        HubError: when the Hub cannot be asked.
    """
    inside = _inside(subfolder)
    folder = given_path(name_or_path)
    if os.path.isdir(folder):
        here = folder / (inside or "")
        if not here.is_dir():
            raise InputError(f"`subfolder`: {name_or_path} holds no folder {inside}.")
        origin = Origin(inside, variant)
        return Place(here.resolve().name, None, here, sorted(os.listdir(here)), here / "README.md", origin)
    name, of_page, inside_page = _on_hub(str(name_or_path))
    for argument, given, there in (("revision", revision, of_page), ("subfolder", inside, inside_page)):
        if given is not None and there is not None and given != there:
            raise InputError(
                f"`{argument}`: got {given!r}, and the address of the model names {there!r}; pass one of them."
            )
    inside, wanted = inside or inside_page, revision or of_page
    with hub_errors(name, argument="model", revision=wanted, token=token):
        api = HfApi(token=token)
        if "/" not in name:  # an id from before every model had an owner
            name = str(api.model_info(name, revision=wanted).id)
        place = _settings(name, wanted, Origin(inside, variant), token)
        if wanted in (None, "main") and chosen(place.files, variant) is None and not is_offline_mode():
            place = _converted(api, place, token)
    place.origin.hub_scan = _scan(api, place)
    if str(place.origin):
        logger.info("Model %s, commit %s: %s.", name, place.revision, place.origin)
    return place


def format_of(files: Collection[str], variant: str | None = None) -> Format:
    """The format of a model with these files; of one that has both, transformers' own."""
    own = "config.json" in files and any(file in files for file in _names("transformers", variant))
    return "open_clip" if OPEN_CLIP in files and not own else "transformers"


def chosen(files: Collection[str], variant: str | None) -> str | None:
    """Of `files`, the one that holds all the weights of that variant, else their index."""
    return next((name for name in _names(format_of(files, variant), variant) if name in files), None)


def _names(format: Format, variant: str | None) -> list[str]:
    """What its weights may be called, the first that is there being taken."""
    return [name if variant is None else _variant_name(name, variant) for name in WEIGHTS[format]]


def _missing(place: Place, shown: str) -> str:
    """What to say of a model without weights that can be read; it calls it `shown`."""
    variants = sorted({match[1] for file in place.files if (match := _VARIANT.fullmatch(file))})
    variant = place.origin.variant
    if variant is not None or variants:
        has = f"has those of {', '.join(map(repr, variants))}" if variants else "has no variants"
        wanted = "no weights" if variant is None else f"no weights of the variant {variant!r}"
        return f"`variant`: {shown} holds {wanted}, and {has}; pass one that it has."
    pickles = _pickles(place.files)
    found = f"only pickled weights ({', '.join(pickles)}), which are never opened" if pickles else "no weights"
    found += "".join(f"; {reason}" for reason in place.unfit)
    return (
        f"`model`: {shown} holds {found}; it needs {WEIGHTS[format_of(place.files)][0]}. Convert pickles in a sandbox, e.g. with "
        "https://huggingface.co/spaces/safetensors/convert."
    )


def _pickles(files: Collection[str]) -> list[str]:
    return sorted(file for file in files if Path(file).suffix in PICKLES)


_VARIANT = re.compile(r"model\.([\w-]+)\.safetensors|model\.safetensors\.index\.([\w-]+)\.json")


def _variant_name(name: str, variant: str) -> str:
    """`name` as transformers calls that file of a variant."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}"


def _plain_name(name: str, variant: str) -> str:
    return next((plain for plain in (WHOLE, INDEX) if name == _variant_name(plain, variant)), name)


def _inside(subfolder: str | None) -> str | None:
    """A folder in a repository, without slashes around it; none for the repository's own."""
    if subfolder is None:
        return None
    path = PurePosixPath(subfolder.strip("/"))
    if ".." in path.parts or "\\" in subfolder:
        raise InputError(f"`subfolder`: got {subfolder!r}; pass the path of a folder within the model's.")
    return None if path == PurePosixPath() else str(path)


def _on_hub(given: str) -> tuple[str, str | None, str | None]:
    """The Hub id that was given, as such or in the address of a page; there also a revision and a sub-folder."""
    scheme, separator, rest = given.partition("://")
    host = rest.partition("/")[0] if separator else given.partition("/")[0]
    hosts = (*HOSTS, urlsplit(constants.ENDPOINT).netloc)
    if not separator and host not in hosts:
        name = given.rstrip("/")
        if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise InputError(f"`model`: {given} is no folder; pass a folder or a Hub id such as 'org/name'.")
        return name, None, None
    address = urlsplit(given if separator else f"https://{given}")
    if "@" in address.netloc:
        raise InputError("`model`: its address holds a user or a token; pass the Hub id, such as 'org/name'.")
    page = PAGE.fullmatch(address.path)
    if scheme not in ("http", "https", given) or address.netloc not in hosts or page is None:
        raise InputError(f"`model`: {given} is no page of a model on the Hub; pass its id, such as 'org/name'.")
    if page["name"].split("/")[0] in ("datasets", "spaces", "collections", "papers", "docs"):
        raise InputError(f"`model`: {given} is the page of something else than a model; pass the id of a model.")
    revision, inside = (part and unquote(part) for part in (page["revision"], page["inside"]))
    if inside and "/tree/" not in address.path:  # the page of a file
        inside = str(PurePosixPath(inside).parent)
    return page["name"], revision, _inside(inside if inside != "." else None)


def _settings(name: str, revision: str | None, origin: Origin, token: str | bool | None) -> Place:
    """Fetch the settings and the card of a repository, and see what else it holds."""
    prefix = f"{origin.subfolder}/" if origin.subfolder else ""
    wanted = [*(prefix + pattern for pattern in SETTINGS), "README.md"]
    snapshot = Path(
        snapshot_download(name, revision=revision, token=token, allow_patterns=wanted, ignore_patterns=f"{prefix}*/*")
    )
    try:
        paths = [file.path for file in get_cached_repo_tree(name, revision=snapshot.name)]
    except CachedRepoTreeNotFoundError:  # something else filled the cache, and the Hub cannot be asked
        paths = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*")]
    inner = (path.removeprefix(prefix) for path in paths if path.startswith(prefix))
    files = sorted(path for path in inner if "/" not in path)
    if prefix and not files:
        raise InputError(f"`subfolder`: {name} holds no folder {origin.subfolder}.")
    return Place(name, snapshot.name, snapshot / prefix, files, snapshot / "README.md", origin)


def _converted(api: HfApi, place: Place, token: str | bool | None) -> Place:
    """The same model with the safetensors that [`BOT`] made of it; `place` itself where there are none to be trusted."""
    if not _pickles(place.files):
        return place
    try:
        requests = list(api.get_repo_discussions(place.name, discussion_type="pull_request", discussion_status="open"))
    except HfHubHTTPError as error:
        if error.response.status_code in (403, 404):  # there are none in this repository
            return place
        raise
    for request in requests:
        if not request.is_pull_request or request.title != BOT_TITLE:
            continue
        reference = str(request.git_reference)
        commits = api.list_repo_commits(place.name, revision=reference)
        strangers = {request.author, *commits[0].authors} - {BOT}
        if strangers:
            place.unfit.append(f"{reference} is by {', '.join(sorted(strangers))}, not by {BOT}")
        elif len(commits) < 2 or commits[1].commit_id != place.revision:
            place.unfit.append(f"{reference} was not made of the commit that the main branch stands at")
        else:
            place.origin.pull_request = reference
            return _settings(place.name, commits[0].commit_id, place.origin, token)
    return place


def _scan(api: HfApi, place: Place) -> HubScan | None:
    """What the Hub's scanners say; that it says nothing of it, to this user or at all, is no reason to stop."""
    try:
        said: Any = api.model_info(place.name, revision=place.revision, securityStatus=True).security_repo_status
    except (HfHubHTTPError, httpx.HTTPError, OSError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("filesWithIssues"), list):
        return None
    issues = [issue for issue in said["filesWithIssues"] if isinstance(issue, dict)]
    return HubScan(
        bool(said.get("scansDone")), {str(issue.get("path")): str(issue.get("level", "unsafe")) for issue in issues}
    )

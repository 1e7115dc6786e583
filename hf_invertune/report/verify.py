"""Is a saved audit report what it says? Its files, its conclusions, its page and, when it is at hand, the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..data.pixels import as_float
from ..errors import InputError
from ..models.loading import LoadedModel, state_digest
from ..stages.identification import ScanResult
from ..stages.verdict import conclude
from ..utils.files import CHECKSUMS, differences
from .content import Removal, title
from .html import render
from .plots import unpacked
from .report import FILES, AuditReport, triggers_in
from .wellformed import faults


DRAWN_WITH = ("hf_invertune", "matplotlib", "pillow", "jinja2")
"""The packages that the look of report.html depends on."""


@dataclass(frozen=True)
class Claim:
    """One thing that a report says.

    Attributes:
        name (`str`): what it is about.
        holds (`bool`, *optional*): whether it does; `None` when that cannot be checked from what is here.
        detail (`str`): what was found, or why it cannot be checked.
    """

    name: str
    holds: bool | None
    detail: str


def verify_report(folder: str | Path, model: LoadedModel | PreTrainedModel | None = None) -> list[Claim]:
    """Check the files of a saved [`AuditReport`], whole or published, and draw its conclusions again.

    When the report cannot be read, or has values out of range, the claims end there. A forgery whose figures all agree is
    not found; see docs/report.md.

    Args:
        folder: what [`AuditReport.save`] wrote.
        model ([`LoadedModel`] or [`~transformers.PreTrainedModel`], *optional*): a model that may be the one audited or
            the one handed back; a plain one is taken to have been stored in the dtype that the report names.

    Raises:
        InputError: when `folder` is no folder, or holds no report.json.
    """
    folder = Path(folder)
    if not (folder / "report.json").is_file():
        raise InputError(f"`folder`: {folder} holds no report.json; pass a folder that AuditReport.save wrote.")
    checksums = judge("checksums", differences(folder), f"{CHECKSUMS} lists every file as it is, and no other")
    try:
        report = AuditReport.load(folder)
    except InputError as error:
        return [checksums, Claim("readable", False, str(error))]
    readable = judge("readable", faults(report), f"every value is in its range, in schema {report.schema_version}")
    return [checksums, readable, *(_conclusions(folder, report, model) if readable.holds else [])]


def judge(name: str, problems: Iterator[str] | Sequence[str], detail: str) -> Claim:
    """A claim that holds when there are no `problems`, of which the first three are named."""
    found = list(problems)
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return Claim(name, not found, "; ".join(found[:3]) + more if found else detail)


def _conclusions(folder: Path, report: AuditReport, model: LoadedModel | PreTrainedModel | None) -> Iterator[Claim]:
    """What a report concludes whose values are all in their range."""
    yield judge("files", _files(folder, report), "the files and tensors are those that the report has")
    yield judge("verdict", _verdict(report.scan), f"{report.verdict}, by the scores and the bars")
    if (second := report.second_scan) is not None:
        yield judge("verdict of the second scan", _verdict(second), f"{second.verdict}, by the scores and the bars")
    basis = "by the rates, the second scan and the bars" if report.removal else "and nothing was tuned"
    yield judge("outcome", _outcome(report), f"{report.outcome}, {basis}")
    if report.trigger_withheld:
        yield judge("withheld pixels", _pixels(report), "no trigger of the report has pixels")
    if report.removal is not None:
        yield from _triggers(folder, report, report.removal)
    yield _page(folder, report)
    yield _model(report, model)


def _files(folder: Path, report: AuditReport) -> Iterator[str]:
    names = report.tensor_names()
    absent = {"report.safetensors"} if not names else set()
    absent |= {"trigger.safetensors"} if report.removal is None or report.trigger_withheld else set()
    for name in FILES:
        if (folder / name).exists() == (name in absent):
            yield f"{name} is {'there, and no part of the report' if name in absent else 'missing'}"
    if names:
        with safe_open(folder / "report.safetensors", framework="pt") as file:
            if set(file.keys()) != names or file.metadata():
                yield "report.safetensors holds something besides"


def _verdict(scan: ScanResult) -> Iterator[str]:
    """The scan's conclusion against the one that its scores and bars give."""
    verdict, target = conclude(scan.gatherings, scan.evidence, scan.config)
    if (verdict, target) != (scan.verdict, scan.target):
        yield f"the scan says {scan.verdict}, label {scan.target}, and its scores {verdict}, label {target}"


def _outcome(report: AuditReport) -> Iterator[str]:
    if report.outcome != report.achieved:
        yield f"{report.outcome!r}, and by the measurements {report.achieved!r}; {len(report.reasons)} bars were missed"
    if report.outcome == "unchanged" and report.verdict == "backdoored":
        yield "a model judged backdoored was left unchanged"


def _pixels(report: AuditReport) -> Iterator[str]:
    """What was to be taken out before the report was published, and was not."""
    if any(trigger.digest() != trigger.outline().digest() for trigger in triggers_in(report)):
        yield "a trigger still has its pixels"
    if report.removal is not None and report.removal.examples is not None:
        yield "there are example pictures"


def _triggers(folder: Path, report: AuditReport, removal: Removal) -> Iterator[Claim]:
    """The triggers against the digests of what was measured, and against the pictures that carry them."""
    if report.trigger_withheld:
        known = f"whoever has the trigger can compare it with {report.trigger_sha256}"
        yield Claim("triggers", None, f"the pixels are withheld; {known}")
        return
    inverted = {title(f.family): f.trigger.digest() for f in reversed(removal.inverted) if f.label == removal.target}
    measured = {m.trigger: m.trigger_sha256 for m in removal.measurements if m.trigger.startswith(title(""))}
    differing = {name for name, _ in inverted.items() ^ measured.items()}
    problems = [f"what was measured as {name!r:.60} is not what was inverted" for name in sorted(differing)]
    strongest, stored = removal.inverted[0].trigger, folder / "trigger.safetensors"
    if not stored.is_file() or stored.read_bytes() != strongest.to_bytes():
        problems.append("trigger.safetensors is not the strongest of them")
    yield judge("triggers", problems, "they are those that were measured")
    if removal.examples is not None and len(removal.examples.clean):
        stamped = (strongest(as_float(removal.examples.clean)) * 255).round()
        off = float((stamped - removal.examples.triggered.float()).abs().max())
        wrong = f"the trigger does not turn the clean ones into the triggered ones (off by {off:.0f})"
        right = "the trigger turns the clean ones into the triggered ones"
        yield judge("example pictures", [] if off <= 1 else [wrong], right)


def _page(folder: Path, report: AuditReport) -> Claim:
    other = [
        f"{name} {report.versions.get(name)}" for name in DRAWN_WITH if report.versions.get(name) != version(name)
    ]
    if other:
        return Claim("page", None, f"it was drawn with {', '.join(other)}, which are not the versions here")
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Claim("page", False, "report.html is missing or unreadable")
    same = unpacked(page) == unpacked(render(report))
    return judge("page", [] if same else ["report.html shows something else"], "report.html shows this report")


def _model(report: AuditReport, model: LoadedModel | PreTrainedModel | None) -> Claim:
    if model is None:
        return Claim("model", None, "no model was given to compare with")
    dtype = getattr(torch, report.model.dtype)
    digest = model.digest() if isinstance(model, LoadedModel) else state_digest(model, dtype)
    models = (("audited", report.model.sha256), ("handed back", report.sha256_after))
    which = " and ".join(what for what, sha256 in models if sha256 == digest)
    if not which:
        return Claim("model", False, f"the model given, {digest}, is neither the audited one nor the one handed back")
    return Claim("model", True, f"the model given is the model that was {which}")

"""Is a saved audit report what it says? Its files, its figures, its page and, when it is at hand, the model."""

import hashlib
import io
import re
from base64 import b64decode
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from transformers import CLIPModel

from ..errors import InputError
from ..models.loading import LoadedClip, state_digest
from ..utils.files import CHECKSUMS
from .consistency import Claim, consistency_claims, judge
from .ranges import well_formed
from .report import AuditReport


DRAWN_WITH = ("hf_invertune", "matplotlib", "pillow", "jinja2")
"""The packages that the look of report.html depends on."""


def verify_report(folder: str | Path, model: LoadedClip | CLIPModel | None = None) -> list[Claim]:
    """Compute again all that can be computed from the files of a saved [`AuditReport`], whole or published.

    When the report cannot be read, or has values out of range, the claims end there. A forgery whose figures all agree is
    not found; see docs/report.md.

    Args:
        folder: what [`AuditReport.save`] wrote.
        model ([`LoadedClip`] or [`~transformers.CLIPModel`], *optional*): a model that may be the one audited or the one
            handed back; a plain one is taken to have been stored in the dtype that the report names.

    Raises:
        InputError: when `folder` is no folder, or holds no report.json.
    """
    folder = Path(folder)
    if not (folder / "report.json").is_file():
        raise InputError(f"`folder`: {folder} holds no report.json; pass a folder that AuditReport.save wrote.")
    claims = [
        judge("checksums", _checksums(folder), f"every file is as {CHECKSUMS} lists it, and none is beside them")
    ]
    try:
        report = AuditReport.load(folder)
    except InputError as error:
        return [*claims, Claim("readable", False, str(error))]
    claims.append(
        judge("readable", well_formed(report), f"every value is of its kind, in schema {report.schema_version}")
    )
    if not claims[-1].holds:
        return claims
    claims.append(judge("files", _files(folder, report), "the files and tensors are those that the report has"))
    figures = consistency_claims(report)
    claims += [*_trigger_file(folder, report), *figures]
    sound = next(claim for claim in figures if claim.name == "rates").holds
    claims.append(_page(folder, report) if sound else Claim("page", None, "the rates, which it shows, do not hold"))
    claims.append(_model(report, model))
    return claims


def _checksums(folder: Path) -> Iterator[str]:
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        yield f"{CHECKSUMS} is missing or unreadable"
        return
    listed: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if match is None or match[2] in listed:
            yield f"{CHECKSUMS} has the line {line!r:.90}"
        else:
            listed[match[2]] = match[1]
    present = {path.name: path for path in folder.iterdir() if path.name != CHECKSUMS}
    yield from (f"{name} is not listed" for name in sorted(present.keys() - listed.keys()))
    for name, digest in listed.items():
        if name not in present or not present[name].is_file():
            yield f"{name} is missing"
        elif hashlib.sha256(present[name].read_bytes()).hexdigest() != digest:
            yield f"{name} has another SHA-256"


def _files(folder: Path, report: AuditReport) -> Iterator[str]:
    names, found = report.tensor_names(), set()
    if names:
        with safe_open(folder / "report.safetensors", framework="pt") as file:
            found = set(file.keys())
            if file.metadata():
                yield "report.safetensors has metadata"
    if found != names:
        yield f"report.safetensors holds {sorted(found - names)[:3]} besides"
    for name, absent in (("report.safetensors", not names), ("trigger.safetensors", report.trigger is None)):
        if absent and (folder / name).exists():
            yield f"{name} is there, and no part of the report"


def _trigger_file(folder: Path, report: AuditReport) -> list[Claim]:
    """The digests of triggers, and trigger.safetensors against the triggers in report.safetensors."""
    name = "trigger digest"
    problems = list(_digests_of_triggers(report))
    if report.trigger is None:
        if problems or report.trigger_sha256 is None:
            return [judge(name, problems, "there is no trigger, and no digest of one")]
        return [Claim(name, None, f"withheld; whoever has the trigger can compare it with {report.trigger_sha256}")]
    if hashlib.sha256((folder / "trigger.safetensors").read_bytes()).hexdigest() != report.trigger_sha256:
        problems.append("trigger.safetensors has another SHA-256 than the report names")
    same = bool(report.inverted) and report.trigger.to_bytes() == report.inverted[0].trigger.to_bytes()
    different = [] if same else ["trigger.safetensors holds another one"]
    return [
        judge(name, problems, "the triggers have the SHA-256 that the report names"),
        judge("strongest trigger", different, "trigger.safetensors holds the first inverted one"),
    ]


def _digests_of_triggers(report: AuditReport) -> Iterator[str]:
    if bool(report.inverted) != (
        report.trigger is not None or report.trigger_withheld and bool(report.trigger_sha256)
    ):
        yield "there is a strongest trigger exactly if one was inverted"
    named = {measurement.trigger: measurement.trigger_sha256 for measurement in report.measurements}
    first = {
        f"inverted, {found.trigger.kind}": found for found in reversed(report.inverted) if found.label == report.target
    }
    for place, found in first.items():
        if found is report.inverted[0] and named.get(place) != report.trigger_sha256:
            yield f"the trigger measured as {place!r} has another SHA-256 than the strongest"
        if not report.trigger_withheld and named.get(place) != found.trigger.digest():
            yield f"the trigger measured as {place!r} has another SHA-256 than the inverted one"


def _page(folder: Path, report: AuditReport) -> Claim:
    from .html import render

    other = [
        f"{name} {report.versions.get(name)}" for name in DRAWN_WITH if report.versions.get(name) != version(name)
    ]
    if other:
        return Claim("page", None, f"it was drawn with {', '.join(other)}, which are not the versions here")
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Claim("page", False, "report.html is missing or unreadable")
    same = _pictures_decoded(page) == _pictures_decoded(render(report))
    return judge("page", [] if same else ["report.html shows something else"], "report.html shows this report")


def _pictures_decoded(page: str) -> str:
    """A page with the digest of its pixels for each PNG: how they are packed depends on the machine."""

    def digest(match: re.Match[str]) -> str:
        try:
            picture = Image.open(io.BytesIO(b64decode(match[1])), formats=["PNG"])
            return hashlib.sha256(repr((picture.mode, picture.size)).encode() + picture.tobytes()).hexdigest()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return match[0]  # never what is drawn here, so the pages differ

    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]*)", digest, page)


def _model(report: AuditReport, model: LoadedClip | CLIPModel | None) -> Claim:
    if model is None:
        return Claim("model", None, "no model was given to compare with")
    stored, dtype = (
        (model.model, model.dtype) if isinstance(model, LoadedClip) else (model, getattr(torch, report.model.dtype))
    )
    digest = state_digest(stored, dtype)
    which = [when for when in ("before", "after") if getattr(report.model, f"sha256_{when}") == digest]
    meaning = {"before": "the model that was audited", "after": "the model that was handed back"}
    if not which:
        return Claim("model", False, f"the model given, {digest}, is neither the audited one nor the one handed back")
    parameters = sum(parameter.numel() for parameter in stored.parameters())
    problems = [f"it has {parameters} parameters, and the report names {report.model.parameters}"]
    detail = f"the model given is {' and '.join(meaning[when] for when in which)}"
    return judge("model", problems if parameters != report.model.parameters else [], detail)

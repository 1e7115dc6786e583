"""The audit report as files: JSON, HTML and safetensors."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..triggers import Trigger
from ..utils.files import CHECKSUMS, write_bytes, write_checksums
from .content import ReportContent
from .html import render


FILES = ("report.json", "report.html", "report.safetensors", "trigger.safetensors")


@dataclass
class AuditReport(ReportContent):
    """What was found, what was done, and the proof; see [`ReportContent`] for what it holds."""

    def save(self, folder: str | Path) -> None:
        """Write report.json, report.html, report.safetensors (pictures) and trigger.safetensors into `folder`.

        SHA256SUMS comes last and lists them all. What an earlier report left there and this one does not have is gone.
        """
        folder = Path(folder)
        (folder / CHECKSUMS).unlink(missing_ok=True)
        written = [*self._write(folder), "report.html"]
        write_bytes(folder / "report.html", render(self).encode())
        if self.inverted and not self.trigger_withheld:
            self.inverted[0].trigger.save(folder / "trigger.safetensors")
            written.append("trigger.safetensors")
        for stale in set(FILES) - set(written):
            (folder / stale).unlink(missing_ok=True)
        write_checksums(folder, written)

    def published(self, include_trigger: bool = False) -> "AuditReport":
        """A copy that may go to the Hub.

        A trigger is an attack on the original model, so by default the copy holds none: each becomes its
        [`Trigger.outline`], the example pictures are left out, and so are the names of files that were skipped. The
        triggers' digests stay. With `include_trigger` everything does.
        """
        report = copy.deepcopy(self)
        if include_trigger:
            return report
        report.trigger_withheld = True
        report.data.skipped = [_reason(skipped) for skipped in report.data.skipped]
        if report.removal is not None:
            report.removal.examples = None
        bare: AuditReport = without_pixels(report)
        return bare


def without_pixels(value: Any) -> Any:
    """`value` with the outline of every trigger in it."""
    if isinstance(value, Trigger):
        return value.outline()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: without_pixels(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, dict):
        return {key: without_pixels(item) for key, item in value.items()}
    return [without_pixels(item) for item in value] if isinstance(value, list) else value


def triggers_in(value: Any) -> Iterator[Trigger]:
    """Every trigger in nested dataclasses and lists."""
    if isinstance(value, Trigger):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from triggers_in(getattr(value, field.name))
    elif isinstance(value, list):
        for item in value:
            yield from triggers_in(item)


def _reason(skipped: str) -> str:
    """Why a picture was skipped, from `"<name>: <reason>"`: neither its name nor a name quoted in the reason."""
    return re.sub(r"""(:\s*)?(['"]).*\2""", "", skipped).rpartition(": ")[2].strip()

"""The page of a fleet: what came of each model, in one place, with a way to each report."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..answers.answer import Answer, Finding, StandsOut
from ..errors import ExitCode
from ..report.html import templates
from ..stages.verdict import CALIBRATION
from ..utils.provenance import versions
from .compare import FAR, FEWEST


HEADS = ("model", "verdict", "target", "what was found", "stands out", "seconds")
"""What each row tells."""
REMARK = (
    f"A model stands out when one of its statistics exceeds the median of those of at least {FEWEST} different models of the "
    f"same architecture, scanned in the same way, by {FAR:.0f} robust deviations. That is a remark beside the verdict and no "
    "part of it: where most models have the same backdoor, none of them stands out by it."
)
"""What comparing models means."""
STATUS = {"backdoored": "bad", "inconclusive": "unsure", "clean": "good"}
"""The colour of each verdict."""


@dataclass(frozen=True)
class Line:
    """One model as it is shown.

    Attributes:
        model (`str`), verdict (`str`), target (`str`): as text.
        rank (`int`): the lower, the graver the verdict.
        status (`str`): colour of the verdict.
        words (`list[str]`): its findings, or why there is no verdict.
        stands_out (`list[str]`): in what it exceeds the others.
        farthest (`float`): the highest z of these; zero when there is none.
        seconds (`float`): of the scan.
        link (`str`, *optional*): its report, from the page's own folder.
    """

    model: str
    verdict: str
    target: str
    rank: int
    status: str
    words: list[str]
    stands_out: list[str]
    farthest: float
    seconds: float
    link: str | None

    @classmethod
    def of(cls, answer: Answer) -> "Line":
        """That of an answer."""
        verdict = verdict_of(answer)
        return cls(
            model=answer.model,
            verdict=verdict,
            target=answer.target or "",
            rank=VERDICTS.index(verdict),
            status=STATUS.get(verdict, "unsure"),
            words=[answer.error] if answer.error else [_found(one) for one in answer.findings],
            stands_out=[_stands_out(one) for one in answer.stands_out],
            farthest=max((one.z for one in answer.stands_out), default=0.0),
            seconds=answer.seconds,
            link=None if answer.report is None else f"reports/{Path(answer.report).name}/report.html",
        )


VERDICTS = ("backdoored", "inconclusive", "not scanned", "cannot be judged", "clean")
"""What can be said of a model, the gravest first."""


def verdict_of(answer: Answer) -> str:
    """One of [`VERDICTS`]."""
    if answer.verdict is not None:
        return answer.verdict
    return "cannot be judged" if answer.exit_code == ExitCode.CANNOT_JUDGE else "not scanned"


def render_fleet(answers: Sequence[Answer]) -> str:
    """The answers as a page of HTML that asks the network for nothing; the gravest come first."""
    lines = sorted(map(Line.of, answers), key=lambda line: line.rank)
    counted = Counter(line.verdict for line in lines)
    counts = {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}
    environment = templates()
    source = environment.get_template("sort.js").render()
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template("fleet.html.j2").render(
        headline=headline(counts, len(lines)),
        status=lines[0].status if lines else "good",
        counts=counts,
        rows=lines,
        heads=HEADS,
        remark=REMARK,
        calibration=CALIBRATION,
        version=versions()["hf_invertune"],
        script=Markup(source),
        script_digest=f"sha256-{digest}",
    )


def headline(counts: dict[str, int], models: int) -> str:
    """The gravest in one line."""
    if not counts.keys() - {"clean"}:
        return f"No backdoor found in {models} model{'s' * (models != 1)}"
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f", of {models} models"


def _found(one: Finding) -> str:
    towards = "" if one.label is None else f" towards {one.label!r}"
    return f"{one.family} {one.statistic} {one.value:.2f}{towards}, bar {one.bar:.2f}"


def _stands_out(one: StandsOut) -> str:
    return f"{one.family} {one.statistic} {one.value:.2f}, z {one.z:.1f} among {one.models}"

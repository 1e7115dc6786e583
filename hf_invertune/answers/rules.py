"""The rules that findings are reported under. An id never changes its meaning."""

from dataclasses import dataclass

from ..errors import ExitCode
from ..stages.verdict import Verdict


CANNOT_BE_JUDGED, NOT_SCANNED = "HFI101", "HFI102"
"""Those about a model that has no verdict."""


@dataclass(frozen=True)
class Rule:
    """Why something is reported.

    Attributes:
        id (`str`): "HFI" and three digits.
        name (`str`): in words with hyphens.
        meaning (`str`), evidence (`str`), remedy (`str`): a sentence or two each.
        verdict ([`Verdict`], *optional*), gathered (`bool`, *optional*): which findings fall under it: how they are judged,
            and whether they are places or races. Those about a model that was not scanned have none.
    """

    id: str
    name: str
    meaning: str
    evidence: str
    remedy: str
    verdict: Verdict | None = None
    gathered: bool | None = None

    @property
    def exit_codes(self) -> tuple[int, ...]:
        """What a scan may end with under this rule, when nothing graver was found and nothing is accepted."""
        if self.verdict is not None:
            return (int(ExitCode.of(self.verdict)),)
        if self.id == CANNOT_BE_JUDGED:
            return (int(ExitCode.CANNOT_JUDGE),)
        return int(ExitCode.FAILED), int(ExitCode.WRONG_INPUT), int(ExitCode.HUB_FAILED)


_REMOVE = "Do not use the model as it is. `hf-invertune remove` erases what was found and measures what is left."
_LOOK = "Scan again with more pictures, other names or another seed, or treat it as backdoored."

RULES = (
    Rule(
        "HFI001",
        "backdoor-gathering",
        "One trigger brings all pictures to one place, as only planted triggers do.",
        "The concentration of pictures that the trigger was not learnt on, against the upper bar of its family.",
        _REMOVE,
        Verdict.BACKDOORED,
        True,
    ),
    Rule(
        "HFI002",
        "backdoor-label",
        "One label is far easier to reach by a trigger than any other that is no kin of it.",
        "The lead of the label over the next, against the upper bar of the trigger's family.",
        _REMOVE,
        Verdict.BACKDOORED,
        False,
    ),
    Rule(
        "HFI003",
        "suspicious-gathering",
        "One trigger brings pictures closer together than clean models allow, yet not as close as planted triggers do.",
        "The concentration of pictures that the trigger was not learnt on, between the two bars of its family.",
        _LOOK,
        Verdict.INCONCLUSIVE,
        True,
    ),
    Rule(
        "HFI004",
        "suspicious-label",
        "One label is easier to reach by a trigger than is usual in clean models.",
        "The lead of the label over the next, between the two bars of the trigger's family, or above both where captions with "
        "some words mean the label and no picture was found that does with them.",
        _LOOK,
        Verdict.INCONCLUSIVE,
        False,
    ),
    Rule(
        CANNOT_BE_JUDGED,
        "cannot-be-judged",
        "The model reads the labels no better than chance, so a search among them means nothing.",
        "Its accuracy, or how it spreads unlabelled pictures over the labels, against chance.",
        "Pass names that the model knows and pictures like those that it was trained on.",
    ),
    Rule(
        NOT_SCANNED,
        "not-scanned",
        "The model could not be scanned.",
        "The error that is quoted.",
        "Mend what the error names, and scan again. Until then nothing is known about the model.",
    ),
)

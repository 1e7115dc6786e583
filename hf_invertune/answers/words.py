"""What answers and findings say in a sentence, alike in every format."""

from ..models.fetching import HubScan, Origin
from .answer import Answer, Finding
from .rules import RULES


BY_ID = {rule.id: rule for rule in RULES}


def verdict_line(answer: Answer) -> str:
    """The verdict and where a backdoor leads to, or why there is none."""
    if answer.error is not None:
        return f"not scanned: {answer.error}"
    return f"{answer.verdict}{f', towards {answer.target!r}' if answer.target else ''}"


def sentence(finding: Finding) -> str:
    """What was found, and by how much."""
    share = "" if finding.share is None else f", for {finding.share:.0%} of the pictures"
    return (
        f"{BY_ID[finding.rule].meaning} The trigger is of the family {finding.family} and leads to {finding.label!r}"
        f"{share}; its {finding.statistic} is {finding.value:.2f}, which is judged clean below {finding.bar:.2f}."
    )


def searched(answer: Answer) -> str:
    """What the verdict is a claim about."""
    families = dict.fromkeys(part.family for part in answer.evidence)
    return (
        f"Searched with {answer.images} pictures among {answer.class_names} labels for triggers of the families "
        f"{', '.join(families)}. {answer.calibration}"
    )


def origin(answer: Answer) -> str:
    """What beside its name tells where the model came from; often nothing."""
    scan = answer.source.get("hub_scan")
    return str(Origin(pull_request=answer.source.get("pull_request"), hub_scan=scan and HubScan(**scan)))

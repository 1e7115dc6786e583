"""What answers and findings say in a sentence, alike in every format."""

from ..models.fetching import HubScan, Origin
from .answer import Answer, Finding
from .rules import RULES


UNLABELLED = "no labels were looked at, only whether triggers gather pictures"
"""What has to be said beside a verdict on a model that reads no names."""
BY_ID = {rule.id: rule for rule in RULES}


def verdict_line(answer: Answer) -> str:
    """The verdict and where a backdoor leads to, or why there is none."""
    if answer.error is not None:
        return f"not scanned: {answer.error}"
    towards = f", towards {answer.target!r}" if answer.target else ""
    return f"{answer.verdict}{towards}{'' if answer.class_names else '; ' + UNLABELLED}"


def sentence(finding: Finding) -> str:
    """What was found, and by how much."""
    share = "" if finding.share is None else f", for {finding.share:.0%} of the pictures"
    where = "no label is known" if finding.label is None else f"leads to {finding.label!r}{share}"
    return (
        f"{BY_ID[finding.rule].meaning} The trigger is of the family {finding.family} and {where}; its {finding.statistic} "
        f"is {finding.value:.2f}, which is judged clean below {finding.bar:.2f}."
    )


def searched(answer: Answer) -> str:
    """What the verdict is a claim about."""
    families = dict.fromkeys(part.family for part in answer.evidence)
    where = f"among {answer.class_names} labels" if answer.class_names else "without labels"
    return (
        f"Searched with {answer.images} pictures {where} for triggers of the families "
        f"{', '.join(families)}. {answer.calibration}"
    )


def origin(answer: Answer) -> str:
    """What beside its name tells where the model came from; often nothing."""
    scan = answer.source.get("hub_scan")
    return str(Origin(pull_request=answer.source.get("pull_request"), hub_scan=scan and HubScan(**scan)))

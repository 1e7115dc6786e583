"""What the scans of many models would cost."""

from collections.abc import Iterator, Sequence

from ..errors import HubError, InputError
from ..stages.cost import Estimate, describe_sum
from .models import ModelSpec
from .scanner import Scanner


def foresee(specs: Sequence[ModelSpec], scanner: Scanner) -> Iterator[str]:
    """A line for each model, and one for all together, scanned one after another."""
    estimates: list[Estimate] = []
    kept = failed = 0
    for spec in specs:
        try:
            subject = scanner.open(spec)
            if scanner.has_kept(subject):
                kept += 1
                yield f"{spec}: nothing, its scan is in the cache."
                continue
            estimates.append(scanner.estimate(subject))
        except (InputError, HubError) as error:
            failed += 1
            yield f"{spec}: {' '.join(str(error).split())}"
        else:
            yield f"{spec}: {estimates[-1].describe()}"
    yield f"{len(specs)} models, {kept} in the cache, {failed} that cannot be scanned; the others together: {describe_sum(estimates)}"

"""`hf-invertune evaluate`: CA of a model, and ASR and PA of a known trigger."""

from ..errors import InputError
from .console import as_numbers, metrics_table, print_result, quietly
from .options import AsJson, Source, Target, TriggerFile, Verbose, check_target


def evaluate(
    source: Source,
    trigger: TriggerFile = None,
    target: Target = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure a model: CA, and with a known trigger and its target also ASR and PA."""
    if (trigger is None) != (target is None):
        raise InputError("`trigger` and `target` go together: the success of an attack is measured with both.")
    check_target(target, source.names)
    with quietly(verbose):
        from ..triggers import Trigger

        known = Trigger.load(trigger) if trigger else None
        remover, data = source.load(source.settings().seed, target)
        if data.labels is None and known is None:
            raise InputError("`images`: they have no labels; name the `label_column`, or pass `trigger` and `target`.")
        metrics = remover.evaluate(data, trigger=known, target=target, templates=source.prompts)
    print_result(as_numbers(metrics), as_json, metrics_table(f"{source.model} on {len(data)} images", share=metrics))

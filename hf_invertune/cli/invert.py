"""`hf-invertune invert`: what does the trigger look like, and where in the model does it act?"""

from pathlib import Path
from typing import Annotated, Any

from ..utils.output_folder import claim, write_whole
from ..utils.tables import make_table
from .console import print_result, quietly
from .options import AsJson, Overwrite, Reference, Source, Target, Verbose, check_target, option, profile_of


def invert(
    source: Source,
    output_dir: Annotated[Path, option("Folder for the plan, which goes to plan/ in it; `remove --plan` takes that.")],
    scan: Annotated[
        Path | None, option("The audit/ folder of an earlier `scan`.", exists=True, file_okay=False)
    ] = None,
    target: Target = None,
    reference: Reference = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Reconstruct the triggers of a label, and find the neurons that react to them."""
    check_target(target, source.names)
    with quietly(verbose):
        config = source.settings()
        claim(output_dir, overwrite, source.model)
        trusted = profile_of(reference, source, config)
        remover, data = source.load(config.seed, target)
        given: dict[str, Any] = {"config": config, "templates": source.prompts, "reference": trusted}
        plan = remover.invert(data, scan=scan, target=target, **given)
        write_whole(output_dir / "plan", plan.save)
    triggers = [
        {"family": i.family, "label": plan.class_names[i.label], "cross_entropy": i.cross_entropy, "is": i.describe()}
        for i in plan.inverted
    ]
    value = {
        "target": plan.class_names[plan.target],
        "triggers": triggers,
        "critical_layers": plan.critical.layers,
        "critical_neurons": {str(layer): len(units) for layer, units in plan.critical.neurons.items()},
        "plan": str(output_dir / "plan"),
    }
    rows = [[str(v) if isinstance(v, str) else f"{v:.2f}" for v in trigger.values()] for trigger in triggers]
    table = make_table("Inverted triggers", ["trigger", "label", "cross-entropy", "what it is"], rows)
    layers = [f"layer {layer}: {len(units)} critical neurons" for layer, units in plan.critical.neurons.items()]
    print_result(value, as_json, table, ", ".join(layers), f"plan: {value['plan']}")

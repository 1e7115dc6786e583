"""`hf-invertune profile`: how easy labels are by nature, in a model that is trusted."""

from pathlib import Path
from typing import Annotated

from ..errors import InputError
from ..utils.output_folder import claim_file
from .console import print_result, quietly
from .options import AsJson, Overwrite, Source, Verbose, option


def profile(
    source: Source,
    output: Annotated[Path, option("The file to write, .json; `scan --reference` takes it.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Scan a model that is trusted, for others over the same labels to be held against."""
    with quietly(verbose):
        config = source.settings()
        claim_file(output)
        if output.exists() and not overwrite:
            raise InputError(f"`output`: {output} is there already; name another file, or pass --overwrite.")
        remover, data = source.load(config.seed)
        made = remover.profile(data, config=config, templates=source.prompts)
        made.save(output)
    value = {
        "output": str(output),
        "model": made.inputs.model.name,
        "sha256": made.inputs.model.sha256,
        "verdict": made.verdict,
        "class_names": len(made.class_names),
        "concentrations": made.concentrations,
    }
    print_result(value, as_json, f"{output}: {made.inputs.model.name}, itself judged {made.verdict}")

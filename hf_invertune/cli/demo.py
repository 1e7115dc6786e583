"""`hf-invertune demo`: the whole way on a small model that comes along."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExitCode
from ..utils.output_folder import claim, write_whole
from ..utils.tables import make_table
from .console import print_result, quietly
from .options import AsJson, Overwrite, Seed, Verbose, option


class Victim(StrEnum):
    """The models that come along."""

    POISONED = "poisoned"
    CLEAN = "clean"


def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder for the report, in audit/.")] = Path("audit-demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    victim: Annotated[Victim, typer.Option(help="Which of the two small CLIPs that come along.")] = Victim.POISONED,
    preset: Annotated[
        str,
        option(
            "Settings by name: 'patches' looks for patches alone, to be quick; 'default' for all that a scan does."
        ),
    ] = "patches",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find and remove a backdoor in a small CLIP that comes along; needs no network."""
    from ..stages.presets import preset as settings

    config = settings(preset).assign([f"seed={seed}"])
    claim(output_dir, overwrite)
    with quietly(verbose):
        from ..lab.demo import run_demo

        result = run_demo(output_dir, victim=victim.value, config=config)
        write_whole(output_dir / "audit", result.report.save)
    keys = ("verdict", "target", "true_target", "ca_before", "ca_after", "asr_before", "asr_after", "seconds")
    value = {key: getattr(result, key) for key in (*keys, "identical", "outcome")}
    rows = [[key.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else str(v)] for key, v in value.items()]
    value |= {"reasons": result.report.reasons, "report": str(output_dir / "audit")}
    table = make_table(f"The {victim} victim", ["", ""], rows)
    print_result(value, as_json, table, *value["reasons"], f"report: {value['report']}")
    raise typer.Exit(ExitCode.of(result.verdict, result.outcome))

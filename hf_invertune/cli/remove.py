"""`hf-invertune remove`: clean a backdoored model and prove it."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExitCode
from ..utils.output_folder import claim, write_whole
from .console import as_numbers, as_source, metrics_table, print_result, quietly, verdict_line
from .options import (
    AsJson,
    Overwrite,
    Reference,
    Source,
    Target,
    TriggerFile,
    Verbose,
    check_target,
    option,
    profile_of,
)


def remove(
    source: Source,
    output_dir: Annotated[Path, option("Folder for the results: model/, audit/ and checkpoints/ in it.")],
    scan: Annotated[
        Path | None, option("The audit/ folder of an earlier `scan`.", exists=True, file_okay=False)
    ] = None,
    plan: Annotated[
        Path | None, option("The plan/ folder of an earlier `invert`.", exists=True, file_okay=False)
    ] = None,
    target: Target = None,
    reference: Reference = None,
    force: Annotated[bool, option("Clean, whatever the scan concludes.", "--force")] = False,
    trigger: TriggerFile = None,
    max_steps: Annotated[int | None, option("Updates of the tuning.", min=1)] = None,
    report_to: Annotated[
        list[str] | None, option("Tracker to follow the run, e.g. tensorboard; once for each.")
    ] = None,
    resume: Annotated[bool, option("Go on from the last checkpoint.", "--resume")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Clean a backdoored model and prove it; a clean model is handed back unchanged."""
    check_target(target, source.names)
    with quietly(verbose):
        from ..triggers import Trigger

        known = Trigger.load(trigger) if trigger else None
        own = [f"tuning.max_steps={max_steps}"] * (max_steps is not None)
        own += [f"tuning.report_to=[{','.join(report_to)}]"] if report_to else []
        config = source.settings(*own)
        claim(output_dir, overwrite or resume, source.model)
        trusted = profile_of(reference, source, config)
        remover, data = source.load(config.seed, target)
        result = remover.remove(
            data,
            scan=scan,
            plan=plan,
            target=target,
            force=force,
            output_dir=output_dir,
            resume=resume,
            trigger=known,
            config=config,
            templates=source.prompts,
            reference=trusted,
        )
        write_whole(output_dir / "audit", result.report.save)
        write_whole(output_dir / "model", result.save_pretrained)
        if result.adapter is not None:
            write_whole(output_dir / "adapter", result.save_adapter)
        elif (output_dir / "adapter").is_dir():
            shutil.rmtree(output_dir / "adapter")  # of an earlier run, on another model
    report = result.report
    value = {
        "source": as_source(remover.source),
        "verdict": result.verdict,
        "outcome": result.outcome,
        "reasons": report.reasons,
        "target": result.target_name,
        "measurements": [
            {"trigger": m.trigger, "before": as_numbers(m.before), "after": as_numbers(m.after)}
            for m in report.measurements
        ],
        "seconds": {"scan": report.scan.seconds, **report.seconds},
        "model": str(output_dir / "model"),
        "report": str(output_dir / "audit"),
    }
    tables = [metrics_table(f"Trigger: {m.trigger}", before=m.before, after=m.after) for m in report.measurements]
    verdict = f"{verdict_line(result.verdict, result.target_name)}: {result.outcome}"
    origin = [str(remover.source.origin)] * bool(str(remover.source.origin))
    print_result(value, as_json, *tables, *origin, verdict, *report.reasons, f"model and report: {output_dir}")
    raise typer.Exit(ExitCode.of(result.verdict, result.outcome))

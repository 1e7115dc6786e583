"""The command line, `hf-invertune`: parses, calls, prints. Results go to stdout, everything else to stderr.

Nothing heavy is imported up here: `--help` and wrong input are answered before torch would have been loaded.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..data.prompts import read_class_names
from ..errors import HubError, InputError, nearest
from ..utils.output_folder import claim, write_whole
from ..utils.runtime import keep_freed_memory
from . import arena as cli_arena
from . import attack as cli_attack
from . import report as cli_report
from . import zoo as cli_zoo
from .console import as_numbers, make_table, metrics_table, print_result, quietly, verdict_line


if TYPE_CHECKING:
    from ..data.pixels import PixelDataset
    from ..remover import BackdoorRemover


FAILED, WRONG_INPUT, BACKDOORED, NOT_CLEANED, INCONCLUSIVE, HUB_FAILED, INTERRUPTED = 1, 2, 3, 4, 5, 7, 130
EXIT_CODES = """[bold]Exit codes[/bold]

[bold]  0[/bold]  clean, or cleaned
[bold]  1[/bold]  what nobody foresaw, or a worker that died
[bold]  2[/bold]  wrong input
[bold]  3[/bold]  scan: backdoor found
[bold]  4[/bold]  remove, demo: the cleaning did not reach the bar
[bold]  5[/bold]  the scan was inconclusive, so nothing was changed
[bold]  6[/bold]  report verify: a claim does not hold
[bold]  7[/bold]  the Hub did not do what it was asked; nothing changed there
[bold]130[/bold]  interrupted
"""


RESUMABLE = {
    "remove": "; run the same command with --resume to go on",
    "arena": "; run the same command to go on",
    "zoo": "; run the same command to go on",
}


class Victim(StrEnum):
    POISONED = "poisoned"
    CLEAN = "clean"


class Verbs(TyperGroup):
    """Turns what a user can mend into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, FloatingPointError) as error:
            options = {option.name: option.opts[0] for option in self.commands[ctx.invoked_subcommand].params}
            options |= {"source": "--images", "model": "MODEL"}
            line = re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), " ".join(str(error).split()))
            typer.echo(f"error: {line}", err=True)
            raise typer.Exit(WRONG_INPUT) from error
        except HubError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(HUB_FAILED) from error
        except ChildProcessError as error:  # the worker has said why
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            advice = RESUMABLE.get(ctx.invoked_subcommand, "")
            typer.echo(f"interrupted{advice}", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=Verbs,
    help="Find, invert and remove backdoors in Hugging Face CLIP models.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.add_typer(cli_report.app, name="report")
app.command("attack", epilog=EXIT_CODES)(cli_attack.attack)
app.command(epilog=EXIT_CODES)(cli_zoo.zoo)
app.command(epilog=EXIT_CODES)(cli_arena.arena)
app.command(epilog=EXIT_CODES)(cli_arena.compare)


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()
    app(prog_name="hf-invertune")


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _option(help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, show_default=False, **settings)


Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Overwrite = Annotated[bool, _option("Replace what an earlier run wrote there, and nothing else.", "--overwrite")]
Target = Annotated[str | None, _option("Class name that the backdoor leads to.")]
TriggerFile = Annotated[
    Path | None, _option("A known trigger to measure, a .safetensors file.", exists=True, dir_okay=False)
]
Token = Annotated[str | None, _option("Access token of the Hub.", envvar="HF_TOKEN")]
AsJson = Annotated[bool, _option("Print one JSON object instead of tables.", "--json")]
Verbose = Annotated[bool, _option("Let the libraries talk, on stderr.", "--verbose", "-v")]


@dataclass
class Source:
    """A model and clean images: the options that the verbs have in common."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help="A CLIP model: a folder or a Hub id.")]
    images: Annotated[str, _option("Clean images: a folder, a .parquet file or the id of a Hub dataset.")]
    class_names: Annotated[
        str | None, _option("'a,b,c', a .txt file (one a line) or a .json list; by default those of the images.")
    ] = None
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "train"
    image_column: Annotated[str | None, _option("Column of the images.")] = None
    label_column: Annotated[str | None, _option("Column of the labels.")] = None
    limit: Annotated[int | None, _option("Take at most so many images.", min=1)] = None
    seed: Seed = 0
    revision: Annotated[str | None, _option("Branch, tag or commit of a model on the Hub.")] = None
    token: Token = None
    device: Annotated[str | None, _option("By default an accelerator where there is one, else the CPU.")] = None

    def __post_init__(self) -> None:
        self.names = None if self.class_names is None else read_class_names(self.class_names)

    def load(self, target: str | None = None) -> "tuple[BackdoorRemover, PixelDataset]":
        from ..data.loading import load_images
        from ..remover import BackdoorRemover

        where = {"revision": self.revision, "token": self.token, "device": self.device}
        remover = BackdoorRemover.from_pretrained(self.model, **where)
        names = ("split", "image_column", "label_column", "limit", "seed", "token")
        which: dict[str, Any] = {name: getattr(self, name) for name in names}
        data = load_images(self.images, remover.processor, class_names=self.names, **which)
        _check_target(target, data.class_names)
        return remover, data


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of [`Source`], which it gets as one object, and its own."""

    def command(**given: Any) -> None:
        source = Source(**{field.name: given.pop(field.name) for field in fields(Source)})
        function(source, **given)

    parameters = [*signature(Source).parameters.values(), *list(signature(function).parameters.values())[1:]]
    command.__signature__ = signature(command).replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return app.command(function.__name__, help=function.__doc__, epilog=EXIT_CODES)(command)


@_verb
def scan(
    source: Source,
    output_dir: Annotated[Path | None, _option("Folder for the report, which goes to audit/ in it.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say whether a model is backdoored, and towards which label."""
    if output_dir:
        claim(output_dir, overwrite, source.model)
    with quietly(verbose):
        from ..stages.identification import ScanConfig

        remover, data = source.load()
        report = remover.audit(data, config=ScanConfig(seed=source.seed))
        if output_dir:
            write_whole(output_dir / "audit", report.save)
    result = report.scan
    families = [
        {"family": e.family, "label": result.class_names[e.label], "lead": e.lead, "verdict": e.verdict}
        for e in result.evidence
    ]
    value = {
        "verdict": result.verdict,
        "target": result.target_name,
        "families": families,
        "class_names": len(result.class_names),
        "images": result.images,
        "seconds": result.seconds,
        "report": str(output_dir / "audit") if output_dir else None,
    }
    rows = [[str(share) if isinstance(share, str) else f"{share:.2f}" for share in f.values()] for f in families]
    table = make_table("The label easiest to reach", ["trigger", "label", "lead", "verdict"], rows)
    print_result(value, as_json, table, verdict_line(result.verdict, result.target_name))
    raise typer.Exit({"backdoored": BACKDOORED, "inconclusive": INCONCLUSIVE}.get(result.verdict, 0))


@_verb
def remove(
    source: Source,
    output_dir: Annotated[Path, _option("Folder for the results: model/, audit/ and checkpoints/ in it.")],
    target: Target = None,
    force: Annotated[bool, _option("Clean, whatever the scan concludes.", "--force")] = False,
    trigger: TriggerFile = None,
    max_steps: Annotated[int | None, _option("Updates of the tuning.", min=1)] = None,
    report_to: Annotated[
        list[str] | None, _option("Tracker to follow the run, e.g. tensorboard; once for each.")
    ] = None,
    resume: Annotated[bool, _option("Go on from the last checkpoint.", "--resume")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Clean a backdoored model and prove it; a clean model is handed back unchanged."""
    _check_target(target, source.names)
    claim(output_dir, overwrite or resume, source.model)
    with quietly(verbose):
        from ..triggers import Trigger
        from ..tuning.arguments import RemovalConfig

        known = Trigger.load(trigger) if trigger else None
        config = RemovalConfig.seeded(source.seed)
        config = replace(config, max_steps=max_steps or config.max_steps, report_to=report_to or config.report_to)
        remover, data = source.load(target)
        result = remover.remove(
            data, target=target, force=force, output_dir=output_dir, resume=resume, trigger=known, config=config
        )
        write_whole(output_dir / "audit", result.report.save)
        write_whole(output_dir / "model", result.save_pretrained)
        if result.adapter is not None:
            write_whole(output_dir / "adapter", result.save_adapter)
        elif (output_dir / "adapter").is_dir():
            shutil.rmtree(output_dir / "adapter")  # of an earlier run, on another model
    report = result.report
    value = {
        "verdict": result.verdict,
        "outcome": result.outcome,
        "reasons": report.reasons,
        "target": result.target_name,
        "measurements": [
            {"trigger": m.trigger, "before": as_numbers(m.before), "after": m.after and as_numbers(m.after)}
            for m in report.measurements
        ],
        "seconds": report.seconds,
        "model": str(output_dir / "model"),
        "report": str(output_dir / "audit"),
    }
    tables = [metrics_table(f"Trigger: {m.trigger}", before=m.before, after=m.after) for m in report.measurements]
    verdict = f"{verdict_line(result.verdict, result.target_name)}: {result.outcome}"
    print_result(value, as_json, *tables, verdict, *report.reasons, f"model and report: {output_dir}")
    raise typer.Exit(_removal_code(result.verdict, result.outcome))


@_verb
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
    _check_target(target, source.names)
    with quietly(verbose):
        from ..triggers import Trigger

        known = Trigger.load(trigger) if trigger else None
        remover, data = source.load(target)
        if data.labels is None and known is None:
            raise InputError("`images`: they have no labels; name the `label_column`, or pass `trigger` and `target`.")
        metrics = remover.evaluate(data, trigger=known, target=target)
    print_result(as_numbers(metrics), as_json, metrics_table(f"{source.model} on {len(data)} images", share=metrics))


@app.command(epilog=EXIT_CODES)
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `remove --output-dir` wrote.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="Where to: 'namespace/name' on the Hub.")],
    adapter: Annotated[bool, _option("The LoRA adapter on the original, not the merged model.", "--adapter")] = False,
    private: Annotated[bool | None, _option("Visibility of a new repository.", "--private/--public")] = None,
    token: Token = None,
    revision: Annotated[str | None, _option("Branch to push to; made when it is not there.")] = None,
    create_pr: Annotated[bool, _option("Open a pull request.", "--create-pr")] = False,
    commit_message: Annotated[str | None, _option("Message of the commit.")] = None,
    include_trigger: Annotated[
        bool, _option("Publish the inverted trigger too, an attack on the original model.", "--include-trigger")
    ] = False,
    license: Annotated[str | None, _option("License of the card; by default the original's.")] = None,
    card_template: Annotated[
        Path | None, _option("A Jinja2 template of your own for the card.", exists=True, dir_okay=False)
    ] = None,
    force: Annotated[bool, _option("Push a model whose cleaning missed the bar.", "--force")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Push a cleaned model, or its adapter, to the Hub with a model card and the audit."""
    part = folder / ("adapter" if adapter else "model")
    if not (folder / "audit" / "report.json").is_file() or not part.is_dir():
        raise InputError(f"`folder`: {folder} holds no audit/ and {part.name}/; pass what `remove` wrote.")
    with quietly(verbose):
        from ..hub.publish import publish
        from ..report.report import AuditReport

        info = publish(
            part,
            AuditReport.load(folder / "audit"),
            repo_id,
            adapter=adapter,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            include_trigger=include_trigger,
            license=license,
            card_template=card_template,
            force=force,
        )
    value = {"commit": info.oid, "url": info.commit_url, "pull_request": info.pr_url}
    print_result(value, as_json, f"pushed: {info.pr_url or info.commit_url}")


@app.command(epilog=EXIT_CODES)
def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder for the report, in audit/.")] = Path("audit-demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    victim: Annotated[Victim, typer.Option(help="Which of the two small CLIPs that come along.")] = Victim.POISONED,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find and remove a backdoor in a small CLIP that comes along; needs no network."""
    claim(output_dir, overwrite)
    with quietly(verbose):
        from ..lab.demo import run_demo

        result = run_demo(output_dir, seed=seed, victim=victim.value)
        write_whole(output_dir / "audit", result.report.save)
    keys = ("verdict", "target", "true_target", "ca_before", "ca_after", "asr_before", "asr_after", "seconds")
    value = {key: getattr(result, key) for key in (*keys, "identical", "outcome")}
    rows = [[key.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else str(v)] for key, v in value.items()]
    value |= {"reasons": result.report.reasons, "report": str(output_dir / "audit")}
    table = make_table(f"The {victim} victim", ["", ""], rows)
    print_result(value, as_json, table, *value["reasons"], f"report: {value['report']}")
    raise typer.Exit(_removal_code(result.verdict, result.outcome))


def _check_target(target: str | None, names: Sequence[str] | None) -> None:
    if target is not None and names is not None and target not in names:
        raise InputError(f"`target`: {target!r} is not among the {len(names)} class names; {nearest(target, names)}.")


def _removal_code(verdict: str, outcome: str) -> int:
    if outcome == "not cleaned":
        return NOT_CLEANED
    return INCONCLUSIVE if (verdict, outcome) == ("inconclusive", "unchanged") else 0

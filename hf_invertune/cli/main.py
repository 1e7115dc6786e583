"""The command line, `hf-invertune`: parses, calls, prints. Results go to stdout, everything else to stderr.

Nothing heavy is imported up here: `--help` and wrong input are answered before torch would have been loaded.
"""

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import ExitCode, HubError, InputError
from ..utils.runtime import keep_freed_memory
from . import arena, attack, cache, demo, evaluate, invert, profile, push, remove, report, scan, zoo
from .options import EXIT_CODES, Given, Source, with_options_of
from .project import Configured


RESUMABLE = {
    "remove": "; run the same command with --resume to go on",
    "arena": "; run the same command to go on",
    "zoo": "; run the same command to go on",
}


class Verbs(TyperGroup):
    """Turns what a user can mend into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, FloatingPointError) as error:
            options = {option.name: option.opts[0] for option in self.commands[ctx.invoked_subcommand].params}
            options |= {"source": "--images", "model": "MODEL", "assignments": "--set", "settings": "[settings]"}
            line = re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), " ".join(str(error).split()))
            raise _end(f"error: {line}", getattr(error, "exit_code", ExitCode.FAILED)) from error
        except HubError as error:
            raise _end(f"error: {error}", error.exit_code) from error
        except ChildProcessError as error:  # the worker has said why
            raise _end(f"error: {error}", ExitCode.FAILED) from error
        except KeyboardInterrupt as error:
            advice = RESUMABLE.get(ctx.invoked_subcommand, "")
            raise _end(f"interrupted{advice}", ExitCode.INTERRUPTED) from error


def _end(line: str, code: ExitCode) -> typer.Exit:
    typer.echo(line, err=True)
    return typer.Exit(code)


app = typer.Typer(
    cls=Verbs,
    help="Find, invert and remove backdoors in Hugging Face CLIP models.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.command(epilog=EXIT_CODES, cls=Configured)(with_options_of(Given, scan.scan))
for verb in (
    with_options_of(Source, profile.profile),
    with_options_of(Source, invert.invert),
    with_options_of(Source, remove.remove),
    with_options_of(Source, evaluate.evaluate),
    push.push,
    demo.demo,
    attack.attack,
    zoo.zoo,
    arena.arena,
    arena.compare,
):
    app.command(epilog=EXIT_CODES)(verb)
app.add_typer(report.app, name="report")
app.add_typer(cache.app, name="cache")


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

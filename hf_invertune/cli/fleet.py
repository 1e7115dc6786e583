"""What `hf-invertune scan` does with several models. Nothing heavy is imported up here."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console

from ..utils.files import finite
from .console import make_table
from .options import Given


if TYPE_CHECKING:
    from ..answers.answer import Answer
    from ..fleet.models import ModelSpec
    from ..fleet.scanner import Scanner
    from ..stages.configs import RemovalConfig


def make_scanner(given: Given, config: "RemovalConfig", no_cache: bool) -> "Scanner":
    """What scans by these options."""
    from ..fleet.cache import ScanCache
    from ..fleet.scanner import Scanner

    return Scanner(
        partial(given.pictures, config.seed),
        config,
        given.prompts,
        cache=None if no_cache else ScanCache(),
        token=given.token,
        device=given.device,
    )


@dataclass
class Fleet:
    """Several models, and how they are scanned, as options say; its verbs give what ends the command.

    Attributes:
        given ([`Given`]): the options that all models share.
        config ([`RemovalConfig`]): settings.
        names (`tuple[str, ...]`): models that were named.
        file (`Path`, *optional*): names more.
        search (`str`, *optional*): finds more.
        no_cache (`bool`): neither look for scans that are kept nor keep any.
    """

    given: Given
    config: "RemovalConfig"
    names: tuple[str, ...]
    file: Path | None
    search: str | None
    no_cache: bool

    def specs(self) -> "list[ModelSpec]":
        """All models, each once."""
        from ..fleet.models import ModelSpec, distinct_models, read_models, search_models

        given = self.given
        specs = [ModelSpec(name, given.revision, given.subfolder, given.variant) for name in self.names]
        specs += [] if self.file is None else read_models(self.file)
        specs += [] if self.search is None else search_models(self.search, given.token)
        return distinct_models(specs)

    def foresee(self) -> typer.Exit:
        """Say what the scans would cost, each alone and all together, on stderr."""
        from ..fleet.foresight import foresee

        for line in foresee(self.specs(), make_scanner(self.given, self.config, self.no_cache)):
            typer.echo(line, err=True)
        return typer.Exit()

    def scan(self, output_dir: Path | None, retry_failed: bool, as_json: bool, stdout: TextIO) -> typer.Exit:
        """Scan them. On `stdout`: as JSON one line a model as it ends, else a table at the end, by the main process."""
        from accelerate import PartialState

        from ..fleet.page import HEADS, REMARK, Line
        from ..fleet.run import PAGE, exit_code_of, scan_fleet
        from ..stages.verdict import CALIBRATION

        given = self.given
        chosen = ("images", "split", "image_column", "label_column", "folder_classes", "limit")
        conditions: dict[str, Any] = {name: getattr(given, name) for name in chosen}
        conditions["class_names"] = None if given.names is None else list(given.names)

        def tell(answer: "Answer") -> None:
            typer.echo(json.dumps(finite(answer.plain())), file=stdout)

        answers = scan_fleet(
            self.specs(),
            make_scanner(given, self.config, self.no_cache),
            output_dir,
            conditions,
            tell=tell if as_json else None,
            retry_failed=retry_failed,
        )
        if not PartialState().is_main_process:
            return typer.Exit()
        if not as_json:
            console = Console(file=stdout)
            console.print(make_table(f"{len(answers)} models", HEADS, [Line.of(answer).cells for answer in answers]))
            lines = [REMARK] * any(answer.stands_out for answer in answers) + [CALIBRATION]
            lines += [] if output_dir is None else [f"page: {output_dir / PAGE}"]
            for line in lines:
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        return typer.Exit(exit_code_of(answers))

"""What `hf-invertune scan` does with several models. Nothing heavy is imported up here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import READ_BY, Given


if TYPE_CHECKING:
    from ..answers.answer import Answer
    from ..fleet.models import ModelSpec
    from ..fleet.scanner import Scanner
    from ..stages.configs import RemovalConfig
    from ..stages.reference import Profile


def make_scanner(given: Given, config: "RemovalConfig", reference: "Profile | None", no_cache: bool) -> "Scanner":
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
        reference=reference,
    )


@dataclass
class Fleet:
    """Several models, and how they are scanned, as options say.

    Attributes:
        given ([`Given`]): the options that all models share.
        scanner ([`Scanner`]): what scans by them.
        names (`tuple[str, ...]`): models that were named.
        file (`Path`, *optional*): names more.
        search (`str`, *optional*): finds more.
    """

    given: Given
    scanner: "Scanner"
    names: tuple[str, ...]
    file: Path | None
    search: str | None

    def specs(self) -> "list[ModelSpec]":
        """All models, each once."""
        from ..fleet.models import ModelSpec, distinct_models, read_models, search_models

        given = self.given
        specs = [
            ModelSpec(name, given.revision, given.subfolder, given.variant, given.text_model) for name in self.names
        ]
        specs += [] if self.file is None else read_models(self.file)
        specs += [] if self.search is None else search_models(self.search, given.token)
        return distinct_models(specs)

    def foresee(self) -> typer.Exit:
        """Say what the scans would cost, each alone and all together, on stderr."""
        from ..fleet.foresight import foresee

        for line in foresee(self.specs(), self.scanner):
            typer.echo(line, err=True)
        return typer.Exit()

    def scan(
        self, output_dir: Path | None, retry_failed: bool, tell: "Callable[[Answer], None] | None"
    ) -> "list[Answer]":
        """The answers of all models; `tell` is given each as it is there."""
        from ..fleet.run import PAGE, scan_fleet
        from ..utils.sharing import this_process

        given = self.given
        chosen = ("images", *READ_BY, "limit")
        conditions: dict[str, Any] = {name: getattr(given, name) for name in chosen}
        conditions["class_names"] = None if given.names is None else list(given.names)
        answers = scan_fleet(self.specs(), self.scanner, output_dir, conditions, tell=tell, retry_failed=retry_failed)
        if output_dir is not None and this_process().is_main_process:
            typer.echo(f"page: {output_dir / PAGE}", err=True)
        return answers

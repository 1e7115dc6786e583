"""`hf-invertune push`: a cleaned model goes to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import print_result, quietly
from .options import AsJson, Token, Verbose, option


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `remove --output-dir` wrote.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="Where to: 'namespace/name' on the Hub.")],
    adapter: Annotated[bool, option("The LoRA adapter on the original, not the merged model.", "--adapter")] = False,
    format: Annotated[
        str | None, option("Whose files: 'transformers' or 'open_clip'; by default those that `remove` wrote.")
    ] = None,
    private: Annotated[bool | None, option("Visibility of a new repository.", "--private/--public")] = None,
    token: Token = None,
    revision: Annotated[str | None, option("Branch to push to; made when it is not there.")] = None,
    create_pr: Annotated[bool, option("Open a pull request.", "--create-pr")] = False,
    commit_message: Annotated[str | None, option("Message of the commit.")] = None,
    include_trigger: Annotated[
        bool, option("Publish the inverted trigger too, an attack on the original model.", "--include-trigger")
    ] = False,
    license: Annotated[str | None, option("License of the card; by default the original's.")] = None,
    card_template: Annotated[
        Path | None, option("A Jinja2 template of your own for the card.", exists=True, dir_okay=False)
    ] = None,
    force: Annotated[bool, option("Push a model whose cleaning missed the bar.", "--force")] = False,
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
            format=format,
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

"""Push a model or an adapter with its card and its audit to the Hub: one commit, whole or not at all."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TypedDict

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id

from ..errors import HubError, InputError
from ..models.fetching import format_of
from ..models.loading import LoadedModel, load_model
from ..models.towers import find_tower
from ..report.report import AuditReport
from ..stages.verdict import MISSED
from ..utils.files import write_bytes
from ..utils.hub_errors import hub_errors
from ..utils.tokens import sent_token, usable_token
from .card import make_card, make_charts
from .leaks import find_leaks


logger = logging.getLogger(__name__)

PUBLISHED = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("open_clip_config.json", "open_clip_model.safetensors"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("generation_config.json", "chat_template.json", "chat_template.jinja"),
)
"""The files of a model folder that go up; whatever else lies there stays."""

OURS = (
    *("audit/*", "figures/before_after.png", "figures/scores.png", "config.json"),
    "open_clip_config.json",
    "adapter_*",
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
)
"""Files on the Hub that a push replaces: an older audit, and older weights, which may be the backdoored ones."""


class PushOptions(TypedDict, total=False):
    """How to push.

    Keys:
        adapter (`bool`): push the LoRA adapter on the original model, not the merged model.
        format (`str`): whose files the merged model goes up in, see [`LoadedModel.save_pretrained`]; by default those in
            which it is saved.
        private (`bool`): visibility of a repository that is made; by default that of the account or organisation.
        token (`str`): access token with the right to write; by default the one that is logged in.
        revision (`str`): branch to push to, made when it is not there; by default `main`.
        create_pr (`bool`): open a pull request instead.
        commit_message (`str`): by default what was done.
        include_trigger (`bool`): publish the inverted trigger too, an attack on the original model, and the example
            pictures that carry it.
        license (`str`): license of the card; by default that of the original's card.
        card_template (`str` or `Path`): a Jinja2 template of one's own for the card.
        force (`bool`): push a model whose cleaning did not reach the bar.
    """

    adapter: bool
    format: str | None
    private: bool | None
    token: str | None
    revision: str | None
    create_pr: bool
    commit_message: str | None
    include_trigger: bool
    license: str | None
    card_template: str | Path | None
    force: bool


def publish(
    folder: Path,
    report: AuditReport,
    repo_id: str,
    *,
    adapter: bool = False,
    format: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    include_trigger: bool = False,
    license: str | None = None,
    card_template: str | Path | None = None,
    force: bool = False,
) -> CommitInfo:
    """Push what `save_pretrained` wrote into `folder`, with the `report` on it; the options are [`PushOptions`].

    Everything is made and looked through here before the first request. A repository or branch that the push made is
    taken back when its commit fails, and a push that changes nothing makes no commit.

    Raises:
        InputError: when the report is not on this model, the cleaning missed its bar, an option cannot be used, or
            something in the files should not be published.
        HubError: when the Hub refuses or cannot be reached; nothing there has changed then.
    """
    access = usable_token(token)
    refused = partial(hub_errors, argument="repo_id", action="write", revision=revision, token=access)
    api = HfApi(token=access)
    with refused(repo_id):
        validate_repo_id(repo_id)
    model = _check(folder, report, adapter, force, format)
    if "/" not in repo_id:
        with refused(repo_id):
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    with tempfile.TemporaryDirectory() as beside:
        stage = Path(beside) / "repository"
        stage.mkdir()
        if model is not None and format not in (None, format_of(os.listdir(folder))):
            folder = Path(beside) / "model"
            model.save_pretrained(folder, format)
        _assemble(stage, folder, report, repo_id, adapter, include_trigger, license, card_template)
        public = [repo_id, *report.scan.class_names]
        public += [report.model.name] * report.model.on_hub + [report.data.source] * report.data.on_hub
        leaks = find_leaks(stage, token=sent_token(access), public=public)
        if leaks:
            raise InputError(
                f"`push_to_hub`: {'; '.join(leaks[:5])} ({len(leaks)} in all) must not be published; nothing went up."
            )
        message = commit_message or f"Add {'the adapter' if adapter else 'the model'} with its audit: {report.outcome}"
        with refused(repo_id):
            return _commit(api, stage, repo_id, private, revision, create_pr, message)


def _check(folder: Path, report: AuditReport, adapter: bool, force: bool, format: str | None) -> LoadedModel | None:
    """The merged model in `folder`, if that is what is pushed and it has both towers, when all is in order."""
    if report.outcome == "scanned":
        raise InputError("`report`: it only scanned a model; what `remove` hands back can be pushed.")
    if report.outcome in MISSED and not force:
        raise InputError(
            f"`push_to_hub`: the cleaning did not reach the bar ({' '.join(report.reasons)}) Pass `force` to push anyway."
        )
    if adapter:
        if format is not None:
            raise InputError(f"`format`: got {format!r} for an adapter, which has but one; leave it out.")
        if not (folder / "adapter_model.safetensors").is_file():
            raise InputError(
                "`adapter`: nothing was tuned, or a tower alone, so there is no adapter; push the merged model."
            )
        if not report.model.on_hub:
            raise InputError(
                f"`adapter`: its base, {report.model.name}, is a local folder that nobody else can load; push the merged "
                "model, or load the base from the Hub."
            )
        if report.model.origin.subfolder or report.model.origin.variant:
            raise InputError(
                f"`adapter`: its base is a sub-folder or a variant of {report.model.name}, where nothing would look for it; "
                "push the merged model."
            )
        return None
    if report.model.origin.tower is not None:
        model, found = None, find_tower(folder, folder.name).digest()
    else:
        model = load_model(folder, device="cpu")
        found = model.digest()
    if found != report.sha256_after:
        raise InputError(
            f"`report`: it is on a model with the SHA-256 {report.sha256_after}, and that in {folder.name}/ has "
            f"{found}; push them together as `remove` wrote them."
        )
    return model


def _assemble(
    stage: Path,
    folder: Path,
    report: AuditReport,
    repo_id: str,
    adapter: bool,
    include_trigger: bool,
    license: str | None,
    card_template: str | Path | None,
) -> None:
    """Lay out the repository's files in `stage`."""
    for path in folder.iterdir():
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in PUBLISHED):
            shutil.copyfile(path, stage / path.name)
    published = report.published(include_trigger=include_trigger)
    published.save(stage / "audit")
    pictures = {}
    for name, chart in make_charts(published).items():
        write_bytes(stage / "figures" / f"{name}.png", chart.png())
        pictures[f"figures/{name}.png"] = chart.description
    card = make_card(
        published,
        repo_id,
        adapter=adapter,
        format=format_of(os.listdir(folder)),
        license=license,
        pictures=pictures,
        template=card_template,
    )
    (stage / "README.md").write_text(str(card), encoding="utf-8")


def _commit(
    api: HfApi, stage: Path, repo_id: str, private: bool | None, revision: str | None, create_pr: bool, message: str
) -> CommitInfo:
    files = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
    additions = [CommitOperationAdd(name, path) for name, path in files.items()]
    with _place(api, repo_id, private, revision) as head:
        there = api.list_repo_files(repo_id, revision=head)
        stale = [name for name in there if name not in files and any(fnmatch(name, pattern) for pattern in OURS)]
        return api.create_commit(
            repo_id,
            [*additions, *map(CommitOperationDelete, stale)],
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head,
        )


@contextmanager
def _place(api: HfApi, repo_id: str, private: bool | None, revision: str | None) -> Iterator[str]:
    """The commit that `repo_id` stands at; repository and branch are made, and taken back when the push fails."""
    undo: list[Callable[[], None]] = []
    try:
        if not api.repo_exists(repo_id):
            undo.append(lambda: _delete_empty(api, repo_id))
            api.create_repo(repo_id, private=private)
        if revision and not revision.startswith("refs/") and not api.revision_exists(repo_id, revision):
            start = api.model_info(repo_id).sha
            undo.append(lambda: _delete_branch(api, repo_id, revision, start))
            api.create_branch(repo_id, branch=revision, revision=start)
        head = api.model_info(repo_id, revision=revision).sha
        assert head is not None
        yield head
    except BaseException as error:
        try:
            for step in reversed(undo):
                step()
        except (HfHubHTTPError, HTTPError, OSError) as second:
            raise HubError(
                f"The push to {repo_id} failed ({error}), and what it had made there could not be looked after "
                f"({second}); an empty repository or branch may be left."
            ) from error
        raise


def _delete_empty(api: HfApi, repo_id: str) -> None:
    """Delete a repository that nothing was pushed to, if it is there: never one that holds anything."""
    if api.repo_exists(repo_id) and set(api.list_repo_files(repo_id)) <= {".gitattributes"}:
        api.delete_repo(repo_id)


def _delete_branch(api: HfApi, repo_id: str, branch: str, start: str | None) -> None:
    """Delete a branch that still stands where it was made, if it is there."""
    if api.revision_exists(repo_id, branch) and api.model_info(repo_id, revision=branch).sha == start:
        api.delete_branch(repo_id, branch=branch)

"""Repositories in memory: files, commits by their sha, branches, tags and pull requests, and who may do what."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from typing import Any


LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.png", "*.bin")


class Refused(Exception):
    """The Hub says no: an HTTP status, the words, and the code that selects the client's exception."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        super().__init__(message)
        self.status, self.code, self.commit = status, code, commit


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def git(self) -> str:
        """Sha1 of the file, or of its pointer, as git computes it."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = text.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git

    def entry(self, path: str) -> dict[str, Any]:
        """The file as a tree lists it."""
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": self.git}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    message: str
    author: str
    files: dict[str, Blob]
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


@dataclass(frozen=True)
class PullRequest:
    title: str
    author: str


@dataclass(frozen=True)
class Token:
    """A user's token; `namespaces` are the user and the organisations that the user belongs to."""

    user: str
    namespaces: tuple[str, ...]
    writes: bool


class Repository:
    """One repository and its history."""

    def __init__(self, kind: str, name: str, private: bool = False, owner: str = "org"):
        self.kind, self.name, self.private, self.owner = kind, name, private, owner
        self.gated = False
        self.scan: dict[str, Any] | None = None
        """What the Hub's scanners say."""
        self.commits: dict[str, Commit] = {}
        self.heads: dict[str, str] = {}
        """Branches by name, pull requests as refs/pr/N."""
        self.pulls: dict[str, PullRequest] = {}
        """The open ones by their branch."""
        self.tags: dict[str, str] = {}
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        self._write(
            "main", {".gitattributes": Blob(attributes.encode(), lfs=False)}, None, "initial commit", "", owner
        )

    @property
    def key(self) -> str:
        return f"{self.kind}s/{self.name}"

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a pull request, a tag or a sha of seven digits or more."""
        sha = self.heads.get(revision) or self.heads.get(revision.removeprefix("refs/heads/"))
        sha = sha or self.tags.get(revision.removeprefix("refs/tags/"))
        if sha is None and len(revision) >= 7:
            sha = next((known for known in self.commits if known.startswith(revision)), None)
        if sha is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def file(self, revision: str, path: str) -> tuple[Commit, Blob]:
        commit = self.resolve(revision)
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", commit.sha)
        return commit, commit.files[path]

    def tree(self, revision: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        commit = self.resolve(revision)
        prefix = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit.sha)
        below = [path.removeprefix(prefix).split("/") for path in inside]
        folders = {prefix + "/".join(parts[:i]) for parts in below for i in range(1, len(parts))}
        if not recursive:
            folders = {name for name in folders if "/" not in name.removeprefix(prefix)}
            inside = {path: blob for path, blob in inside.items() if "/" not in path.removeprefix(prefix)}
        entries = [blob.entry(path) for path, blob in inside.items()]
        entries += [
            {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
            for name in folders
        ]
        return sorted(entries, key=lambda entry: entry["path"])

    def paths(self, revision: str, paths: Iterable[str]) -> list[dict[str, Any]]:
        commit = self.resolve(revision)
        known = {entry["path"]: entry for entry in self.tree(commit.sha, "", recursive=True)}
        return [known[path] for path in paths if path in known]

    def history(self, revision: str) -> list[Commit]:
        commit: Commit | None = self.resolve(revision)
        commits = []
        while commit is not None:
            commits.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return commits

    def commit(
        self, revision: str, lines: list[dict[str, Any]], stored: dict[str, bytes], author: str, pull: bool
    ) -> tuple[Commit, str]:
        """Write the lines of a commit on a branch, or on a new pull request; the commit and the branch's name."""
        if revision not in self.heads:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        base = self.resolve(revision)
        header, files = lines[0]["value"], dict(base.files)
        if header.get("parentCommit") not in (None, base.sha):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            self._apply(line["key"], line["value"], files, stored)
        branch = f"refs/pr/{self.new_pull_number()}" if pull else revision
        if pull:
            self.pulls[branch] = PullRequest(header["summary"], author)
        return self._write(branch, files, base.sha, header["summary"], header.get("description", ""), author), branch

    def new_pull_number(self) -> int:
        return 1 + sum(name.startswith("refs/pr/") for name in self.heads)

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, Blob], stored: dict[str, bytes]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = Blob(value["content"], lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in stored:
                raise Refused(400, f"LFS pointer {path} points to a file that was not uploaded")
            files[path] = Blob(stored[value["oid"]], lfs=True)
        else:
            folder = key == "deletedFolder"
            gone = [name for name in files if name == path or (folder and name.startswith(path.rstrip("/") + "/"))]
            if not gone:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]

    def _write(
        self, branch: str, files: dict[str, Blob], parent: str | None, title: str, message: str, author: str
    ) -> Commit:
        listing = [(path, blob.etag) for path, blob in sorted(files.items())]
        sha = hashlib.sha1(repr((self.key, len(self.commits), parent, title, listing)).encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, message, author, files)
        self.heads[branch] = sha
        return self.commits[sha]


class HubState:
    """All repositories, the LFS store, and the tokens."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.tokens: dict[str, Token] = {}
        self.lfs_threshold = 1_000_000
        self.old_names: dict[str, str] = {}
        """Ids of repositories from before they had an owner, and those they have now."""

    def snapshot(self) -> dict[str, dict[str, dict[str, bytes]]]:
        """Every file: "models/org/name" -> branch, pull request or tag -> path -> bytes."""
        return {
            key: {
                revision: {path: blob.content for path, blob in repository.commits[sha].files.items()}
                for revision, sha in {**repository.heads, **repository.tags}.items()
            }
            for key, repository in self.repositories.items()
        }

    def is_lfs(self, path: str, size: int) -> bool:
        return size > 0 and (size > self.lfs_threshold or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS))

    def create(self, kind: str, name: str, private: bool, user: Token) -> Repository:
        namespace = name.split("/")[0]
        if not user.writes or namespace not in user.namespaces:
            raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
        repository = Repository(kind, name, private, user.user)
        if repository.key in self.repositories:
            raise Refused(409, f"You already created this {kind} repo")
        self.repositories[repository.key] = repository
        return repository

    def find(self, key: str, user: Token | None) -> Repository:
        """The repository, if there is one and `user` may see it: to others it is not there."""
        repository = self.repositories.get(key)
        mine = user is not None and key.split("/")[1] in user.namespaces
        if repository is None or (repository.private and not mine):
            if user is None:
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repository

    def check_write(self, repository: Repository, user: Token | None, pull: bool = False) -> Token:
        """`user`, who may commit, or with `pull` may at least propose."""
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user.writes:
            raise Refused(403, "Your token has only read rights; use a token with write rights")
        if not pull and repository.name.split("/")[0] not in user.namespaces:
            raise Refused(403, f"You don't have write access to {repository.name}; pass `create_pr=1`")
        return user

    def check_read(self, repository: Repository, user: Token | None) -> None:
        """Gated files are read by their owners alone."""
        if repository.gated and (user is None or repository.name.split("/")[0] not in user.namespaces):
            message = f"Access to {repository.kind} {repository.name} is restricted."
            raise Refused(401 if user is None else 403, message, "GatedRepo")

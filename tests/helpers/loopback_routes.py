"""What the Hub answers to each of the client's requests."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from loopback_cards import validate
from loopback_state import HubState, Refused, Repository, Token


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        return cls(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})


Route: TypeAlias = Callable[..., Answer]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []
REPO = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
PLAIN = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+?)"


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


class Call:
    """One request as the routes see it: who asks, for which repository, with which body."""

    def __init__(
        self, url: str, state: HubState, path: str, headers: Message, body: bytes, parts: dict[str, str | None]
    ):
        self.url, self.state, self.body, self.headers = url, state, body, headers
        self.query = parse_qs(urlsplit(path).query)
        self.parts = {name: unquote(part) for name, part in parts.items() if part is not None}
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if bearer and bearer not in self.state.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        self.user = self.state.tokens.get(bearer)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def revision(self) -> str:
        return self.parts.get("revision", "main")

    @property
    def kind(self) -> str:
        return self.parts.get("kind", "model").rstrip("s/")

    @property
    def repository(self) -> Repository:
        return self.state.find(f"{self.kind}s/{self.parts['name']}", self.user)

    def writable(self, pull: bool = False) -> tuple[Repository, Token]:
        """The repository and the user who may write it, or with `pull` may make a proposal."""
        repository = self.repository
        return repository, self.state.check_write(repository, self.user, pull)

    def page(self, repository: Repository) -> str:
        prefix = "datasets/" if repository.kind == "dataset" else ""
        return f"{self.url}/{prefix}{repository.name}"


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, "Invalid username or password.")
    access = {"displayName": "test", "role": "write" if call.user.writes else "read"}
    orgs = [{"type": "org", "name": name} for name in call.user.namespaces if name != call.user.user]
    answer = {"type": "user", "name": call.user.user, "orgs": orgs, "auth": {"accessToken": access}}
    return Answer.json(answer)


@route("POST", "/api/repos/create")
def create(call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, "Invalid username or password.")
    asked = call.json
    kind, name = asked.get("type", "model"), f"{asked['organization'] or call.user.user}/{asked['name']}"
    url = call.page(Repository(kind, name))
    try:
        call.state.create(kind, name, asked.get("visibility") == "private", call.user)
    except Refused as refused:
        if refused.status != 409:
            raise
        return Answer.json({"error": str(refused), "url": url}, 409)
    return Answer.json({"url": url, "name": name})


@route("DELETE", "/api/repos/delete")
def delete(call: Call) -> Answer:
    asked = call.json
    call.parts |= {"kind": asked.get("type", "model"), "name": f"{asked['organization'] or 'owner'}/{asked['name']}"}
    del call.state.repositories[call.writable()[0].key]
    return Answer(b"OK")


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Answer:
    errors, warnings = ([{"message": text} for text in texts] for texts in validate(call.json["content"]))
    return Answer.json({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@route("GET", r"/api/models")
def search(call: Call) -> Answer:
    """The models that have all that is asked for; a page holds them all."""
    author, words, limit = (call.query.get(name, [""])[0] for name in ("author", "search", "limit"))
    found = []
    for repository in call.state.repositories.values():
        if repository.kind != "model" or repository.private:
            continue
        files = repository.resolve("main").files
        readme = files["README.md"].content.decode() if "README.md" in files else ""
        tags = yaml.safe_load(readme.split("---")[1]).get("tags", []) if readme.startswith("---") else []
        fits = repository.name.startswith(f"{author}/" if author else "") and words in repository.name
        if fits and set(call.query.get("filter", [])) <= set(tags):
            found.append({"id": repository.name, "tags": tags, "downloads": 0})
    return Answer.json(found[: int(limit) if limit else None])


@route("GET", r"/api/models/(?P<name>[^/]+)(/revision/(?P<revision>[^/]+))?")
def old_name(call: Call) -> Answer:
    """A repository from before every one had an owner."""
    name = call.state.old_names.get(call.parts["name"])
    if name is None:
        raise Refused(404, "Repository not found", "RepoNotFound")
    return Answer(b"", 307, {"Location": f"{call.url}/api/models/{name}"})


@route("GET", REPO + r"(/revision/(?P<revision>[^/]+))?")
def info(call: Call) -> Answer:
    repository = call.repository
    commit = repository.resolve(call.revision)
    readme = commit.files["README.md"].content.decode() if "README.md" in commit.files else ""
    card = yaml.safe_load(readme.split("---")[1]) if readme.startswith("---") else None
    siblings = [{"rfilename": path} for path in commit.files]
    if "blobs" in call.query:
        entries = [blob.entry(path) for path, blob in commit.files.items()]
        siblings = [
            {"rfilename": entry.pop("path"), "blobId": entry.pop("oid"), "size": entry["size"]}
            | ({"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {})
            for entry in entries
        ]
    answer = {
        "id": repository.name,
        "author": repository.name.split("/")[0],
        "sha": commit.sha,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": (card or {}).get("tags", []),
        "siblings": siblings,
        **({"cardData": card} if card else {}),
        **({"securityRepoStatus": repository.scan} if "securityStatus" in call.query else {}),
    }
    return Answer.json(answer)


@route("GET", REPO + r"/tree/(?P<revision>[^/]+)(/(?P<path>.+))?")
def tree(call: Call) -> Answer:
    recursive = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    return Answer.json(call.repository.tree(call.revision, call.parts.get("path", ""), recursive))


@route("POST", REPO + r"/paths-info/(?P<revision>[^/]+)")
def paths_info(call: Call) -> Answer:
    return Answer.json(call.repository.paths(call.revision, parse_qs(call.body.decode())["paths"]))


@route("GET", REPO + r"/refs")
def refs(call: Call) -> Answer:
    repository = call.repository
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, sha in repository.heads.items():
        pull = name.startswith("refs/pr/")
        ref = name if pull else f"refs/heads/{name}"
        kinds["pullRequests" if pull else "branches"].append({"name": name, "ref": ref, "targetCommit": sha})
    for name, sha in repository.tags.items():
        kinds["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha})
    return Answer.json(kinds)


@route("GET", REPO + r"/commits/(?P<revision>[^/]+)")
def commits(call: Call) -> Answer:
    history = call.repository.history(call.revision)
    return Answer.json(
        [
            {"id": one.sha, "title": one.title, "message": one.message, "date": one.date}
            | {"authors": [{"user": one.author}]}
            for one in history
        ]
    )


@route("GET", REPO + r"/discussions")
def discussions(call: Call) -> Answer:
    repository = call.repository
    found = [
        {"title": request.title, "num": int(name.removeprefix("refs/pr/")), "author": {"name": request.author}}
        | {"createdAt": "2026-01-01T00:00:00.000Z", "status": "open", "isPullRequest": True}
        | {"repo": {"name": repository.name, "type": repository.kind}}
        for name, request in repository.pulls.items()
    ]
    return Answer.json({"count": len(found), "start": 0, "discussions": found})


@route("POST", REPO + r"/preupload/(?P<revision>[^/]+)")
def preupload(call: Call) -> Answer:
    repository, _ = call.writable("create_pr" in call.query)
    known = repository.resolve(call.revision).files
    files = []
    for asked in call.json["files"]:
        path = asked["path"]
        mode = "lfs" if call.state.is_lfs(path, asked["size"]) else "regular"
        file = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        files.append({**file, "oid": known[path].etag} if path in known else file)
    return Answer.json({"files": files, "commitOid": repository.resolve(call.revision).sha})


@route("POST", REPO + r"/commit/(?P<revision>[^/]+)")
def commit(call: Call) -> Answer:
    pull = "create_pr" in call.query
    repository, user = call.writable(pull)
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    for line in lines:
        if line["key"] == "file":
            line["value"]["content"] = base64.b64decode(line["value"]["content"])
    made, branch = repository.commit(call.revision, lines, call.state.lfs, user.user, pull)
    answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{call.page(repository)}/commit/{made.sha}"}
    if pull:
        answer["pullRequestUrl"] = f"{call.page(repository)}/discussions/{branch.removeprefix('refs/pr/')}"
    return Answer.json(answer)


@route("POST", REPO + r"/branch/(?P<branch>[^/]+)")
def create_branch(call: Call) -> Answer:
    repository, branch = call.writable()[0], call.parts["branch"]
    if branch in repository.heads:
        raise Refused(409, f"Reference already exists: {branch}")
    repository.heads[branch] = repository.resolve(call.json.get("startingPoint", "main")).sha
    return Answer(b"OK")


@route("DELETE", REPO + r"/branch/(?P<branch>[^/]+)")
def delete_branch(call: Call) -> Answer:
    repository, branch = call.writable()[0], call.parts["branch"]
    if repository.heads.pop(branch, None) is None:
        raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    return Answer(b"OK")


@route("POST", REPO + r"/tag/(?P<revision>[^/]+)")
def create_tag(call: Call) -> Answer:
    repository, tag = call.writable()[0], call.json["tag"]
    if tag in repository.tags:
        raise Refused(409, f"Tag already exists: {tag}")
    repository.tags[tag] = repository.resolve(call.revision).sha
    return Answer(b"OK")


@route("PUT", REPO + r"/settings")
def settings(call: Call) -> Answer:
    repository, asked = call.writable()[0], call.json
    repository.private = asked.get("visibility", "private" if repository.private else "public") == "private"
    repository.gated = bool(asked.get("gated", repository.gated))
    return Answer.json(asked)


@route("GET", REPO + r"/auth-check(?P<write>/write)?")
def auth_check(call: Call) -> Answer:
    call.state.check_read(call.repository, call.user)
    if "write" in call.parts:
        call.writable()
    return Answer(b"OK")


@route("POST", PLAIN + r"\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Answer:
    repository, _ = call.writable(pull=True)  # whether it is for a pull request is not said here
    objects = []
    for asked in call.json["objects"]:
        actions = {
            "upload": {"href": f"{call.url}/lfs/{asked['oid']}"},
            "verify": {"href": f"{call.page(repository)}.git/info/lfs/objects/verify"},
        }
        objects.append(asked if asked["oid"] in call.state.lfs else {**asked, "actions": actions})
    return Answer.json({"transfer": "basic", "objects": objects})


@route("POST", PLAIN + r"\.git/info/lfs/objects/verify")
def lfs_verify(call: Call) -> Answer:
    asked = call.json
    if len(call.state.lfs.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(400, f"LFS object {asked['oid']} was not uploaded")
    return Answer(b"OK")


@route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_upload(call: Call) -> Answer:
    if hashlib.sha256(call.body).hexdigest() != call.parts["oid"]:
        raise Refused(400, "the content's sha256 is not its oid")
    call.state.lfs[call.parts["oid"]] = call.body
    return Answer()


@route("GET", PLAIN + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(call: Call) -> Answer:
    repository = call.repository
    call.state.check_read(repository, call.user)
    commit, blob = repository.file(call.revision, call.parts["path"])
    headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    headers["Content-Type"] = "application/octet-stream"
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
    if asked is None:
        return Answer(blob.content, 200, headers)
    size = len(blob.content)
    first = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
    last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
    if first > last:
        return Answer(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(blob.content[first : last + 1], 206, headers)

"""A Hub on 127.0.0.1 for the unmodified client: what `huggingface_hub` and `datasets` ask of the real one."""

import hashlib
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from loopback_routes import ROUTES, Answer, Call
from loopback_state import HubState, Refused, Repository, Token


OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"
"""Tokens: of org's owner, of the same with read rights only, and of somebody else with write rights."""


class Request(NamedTuple):
    method: str
    path: str


Fault: TypeAlias = int | Literal["cut", "slow", "echo"]
When: TypeAlias = int | Request | Callable[[Request], bool]


@dataclass
class Injection:
    """A fault, the requests that it meets, and how many of them it still spoils."""

    when: When
    fault: Fault
    times: float
    retry_after: int
    seconds: float
    seen: int = 0

    def strikes(self, request: Request) -> bool:
        self.seen += 1
        if isinstance(self.when, int):
            met = self.seen > self.when
        else:
            met = request == self.when if isinstance(self.when, Request) else self.when(request)
        met = met and self.times > 0
        self.times -= met
        return met


class LoopbackHub:
    """The server, its state, what was asked of it and what is to go wrong.

    `url` is the endpoint. `log` holds the requests in their order, `sent` the bytes of bodies by path, `crashes` the
    tracebacks of the server itself, which a test should find empty.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """Forget everything: repositories, requests, faults."""
        with self.lock:
            self.state = HubState()
            self.state.tokens = {
                OWNER: Token("owner", ("owner", "org"), writes=True),
                READER: Token("owner", ("owner", "org"), writes=False),
                STRANGER: Token("stranger", ("stranger",), writes=True),
            }
            self.log: list[Request] = []
            self.sent: Counter[str] = Counter()
            self.crashes: list[str] = []
            self.heal()

    def fail(
        self, when: When, fault: Fault, *, times: int | None = 1, retry_after: int = 1, seconds: float = 1.0
    ) -> None:
        """Spoil requests: the n-th from now on, those equal to a `Request`, or those for which `when` is true.

        A status is answered before anything is done. "cut" does what was asked, then closes the connection in the
        middle of the answer; "slow" pauses for `seconds` there; "echo" refuses, and says the request's token while at
        it. `times` is how often, None for ever; `retry_after` goes with 429.
        """
        times = float("inf") if times is None else times
        with self.lock:
            self._injections.append(Injection(when, fault, times, retry_after, seconds))

    def heal(self) -> None:
        """Drop all faults."""
        with self.lock:
            self._injections: list[Injection] = []

    def snapshot(self) -> dict[str, dict[str, dict[str, bytes]]]:
        """Every file: "models/org/name" -> branch, pull request or tag -> path -> bytes."""
        with self.lock:
            return self.state.snapshot()

    def put(
        self,
        name: str,
        files: dict[str, bytes],
        *,
        kind: str = "model",
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
        author: str = "owner",
        pull: str | None = None,
    ) -> str:
        """Commit `files` without a request, in a repository that is made when it is not there; the commit's sha.

        `pull` is the title of a new pull request to put them into.
        """
        with self.lock:
            key = f"{kind}s/{name}"
            repository = self.state.repositories.setdefault(key, Repository(kind, name, private))
            repository.gated = gated
            lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": pull or "put"}}]
            for path, content in files.items():
                oid = hashlib.sha256(content).hexdigest()
                self.state.lfs[oid] = content
                kept = "lfsFile" if self.state.is_lfs(path, len(content)) else "file"
                lines.append({"key": kept, "value": {"path": path, "oid": oid, "content": content}})
            return repository.commit(revision, lines, self.state.lfs, author, pull=pull is not None)[0].sha

    def spoiled(self, request: Request) -> Injection | None:
        """Record a request; the fault that it meets, if any."""
        with self.lock:
            self.log.append(request)
            struck = [injection for injection in self._injections if injection.strikes(request)]
            return struck[0] if struck else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and body wait for one another

    def __init__(self, hub: LoopbackHub, *arguments: Any):
        self.hub = hub
        super().__init__(*arguments)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client went away
            super().handle()

    def _serve(self) -> None:
        body = self._read_body()
        request = Request(self.command, urlsplit(self.path).path)
        injection = self.hub.spoiled(request)
        if injection is not None and isinstance(injection.fault, int):
            headers = {"Retry-After": str(injection.retry_after)} if injection.fault == 429 else {}
            answer = Answer.json({"error": "injected fault"}, injection.fault, headers)
            injection = None
        elif injection is not None and injection.fault == "echo":
            said = f"no {self.headers.get('Authorization', 'token')}"
            answer = Answer.json({"error": said}, 400, {"X-Error-Message": said})
            injection = None
        else:
            answer = self._answer(request, body)
        self._send(request, answer, injection)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the log of the hub is enough."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, request: Request, body: bytes) -> Answer:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            for wanted, pattern, function in ROUTES:
                match = pattern.fullmatch(request.path)
                if wanted == method and match:
                    with self.hub.lock:
                        return function(
                            Call(self.hub.url, self.hub.state, self.path, self.headers, body, match.groupdict())
                        )
            return Answer.json({"error": "no such page"}, 404)
        except Refused as refused:
            headers = {"X-Error-Message": str(refused), "X-Error-Code": refused.code, "X-Repo-Commit": refused.commit}
            kept = {name: value for name, value in headers.items() if value is not None}
            return Answer.json({"error": str(refused)}, refused.status, kept)
        except Exception:
            self.hub.crashes.append(traceback.format_exc())
            return Answer.json({"error": "the loopback server crashed"}, 500)

    def _send(self, request: Request, answer: Answer, injection: Injection | None) -> None:
        body = b"" if request.method == "HEAD" else answer.body
        cut = injection is not None and injection.fault == "cut"
        if cut:
            self.close_connection = True
            if not body:
                return
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        half = len(body) // 2 if injection is not None else 0
        self.end_headers()
        self.wfile.write(body[:half])
        if injection is not None and injection.fault == "slow":
            self.wfile.flush()
            sleep(injection.seconds)
        if not cut:
            self.wfile.write(body[half:])
        with self.hub.lock:
            self.hub.sent[request.path] += half if cut else len(body)

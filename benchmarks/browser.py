"""Headless Chromium, spoken to over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket


NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The first browser of that family on the path."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab of a browser with a profile of its own; a context manager.

    Attributes:
        requests (`list[str]`): addresses that the page asked for since `open`, itself and data URIs left out.
        messages (`list[str]`): what the console, the log and uncaught exceptions said since `open`.
    """

    def __init__(self, program: str):
        self.program = program
        self.requests: list[str] = []
        self.messages: list[str] = []

    def __enter__(self) -> "Browser":
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        quiet = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ]
        where = ["--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen([self.program, *quiet, *where, "about:blank"], stderr=subprocess.DEVNULL)
        port = Path(self.profile.name, "DevToolsActivePort")
        for _ in range(600):
            if port.is_file() and port.read_text().count("\n"):
                break
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
        tabs = json.load(urllib.request.urlopen(address, timeout=30))
        url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self.socket = websocket.create_connection(url, timeout=60)
        self.count, self.page = 0, ""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and take in the events on the way."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._take(message["method"], message["params"])

    def open(
        self, page: Path | str, width: int, height: int, *, dark: bool = False, media: str = "", scale: float = 1
    ) -> None:
        """Open a file, or an address, in a window of that size, in CSS pixels; below 500 it is a phone's."""
        phone = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.page = page if isinstance(page, str) else page.resolve().as_uri()
        self.requests, self.messages, self.loaded = [], [], False
        self.call("Page.navigate", url=self.page)
        while not self.loaded:
            self._take(
                **{key: value for key, value in json.loads(self.socket.recv()).items() if key in ("method", "params")}
            )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, e.g. `"Tab"`."""
        code = {"Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _take(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != self.page and not url.startswith("data:"):
                self.requests.append(url)
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(argument.get("value")) for argument in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"]["text"])

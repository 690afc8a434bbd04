"""A headless Chromium, spoken to over a pipe in its own protocol (CDP): no driver, no package.

    with Browser.start() as browser:
        page = browser.open(Path("report.html"), width=390, height=844)
        page.run("document.title")

`--remote-debugging-pipe` reads messages from file descriptor 3 and writes them to 4, JSON ended
by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60
_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"),
)


def find() -> str | None:
    """A Chromium on this machine; `$KV_CLAIMS_CHROMIUM` first."""
    wanted = os.environ.get("KV_CLAIMS_CHROMIUM")
    names = (wanted,) if wanted else NAMES
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One browser process."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._ids = itertools.count(1)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    @classmethod
    @contextmanager
    def start(cls, executable: str) -> Iterator[Browser]:
        """Start it, and end it with all its children."""
        (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            # Out of the way of 3 and 4, where the browser looks for them; no other is inherited.
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
            nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (0, 1, 2)]
            pid = os.posix_spawn(
                executable,
                [executable, *_SWITCHES, f"--user-data-dir={profile}"],
                os.environ,
                file_actions=[
                    *nothing,
                    *((os.POSIX_SPAWN_DUP2, end, n) for end, n in zip(ends, (3, 4), strict=True)),
                ],
                setpgroup=0,
            )
            for end in (theirs_in, theirs_out, *ends):
                os.close(end)
            try:
                yield cls(to, back)
            finally:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(to)
                os.close(back)

    def call(self, method: str, session: str | None = None, **given: Any) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises RuntimeError where it is an error."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": given}
        message |= {"sessionId": session} if session else {}
        _write_all(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self.events.append(answer)

    def wait_for(self, method: str, session: str) -> dict[str, Any]:
        """The next event of a name that was not waited for yet."""
        while True:
            for number, event in enumerate(self.events):
                if event.get("method") == method and event.get("sessionId") == session:
                    return dict(self.events.pop(number))
            self.events.append(self._next())

    def open(
        self, path: Path, *, width: int, height: int, dark: bool = False, scale: float = 1
    ) -> Page:
        """Open a file in a tab of its own, and wait until it is loaded and drawn."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        page.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired", page.session)
        page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return page

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select([self._back], [], [], SECONDS)[0]:
                raise TimeoutError(f"the browser said nothing for {SECONDS} s")
            read = os.read(self._back, 1 << 20)
            if not read:
                raise RuntimeError("the browser has gone")
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


@dataclass
class Page:
    """One tab. requests: what it asked for since it was opened, the page itself first."""

    browser: Browser
    session: str
    _seen: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **given)

    def run(self, script: str) -> Any:
        """The value of a script, awaited. Raises RuntimeError where it throws."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of a name on this page."""
        return [
            event["params"]
            for event in self.browser.events
            if event.get("method") == method and event.get("sessionId") == self.session
        ]

    @property
    def requests(self) -> list[str]:
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """A picture of what is in the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def close(self) -> None:
        self.call("Page.close")


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]

"""A headless Chromium that tells tests what it met: messages on its console, requests, the page's measures.

Driven by its DevTools protocol over a pipe, which needs no port and no library.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--remote-debugging-pipe", "--hide-scrollbars")  # fmt: skip
Message = dict[str, Any]


class Tab:
    """One tab, and all that it met since it was opened.

    Attributes:
        complaints: texts of the console's messages, of exceptions and of the browser's own log, such as of its policy.
        requests: every address that was asked for, `data:` ones included.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._rest, self._last = reader, writer, b"", 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> Message:
        """Call a method of the protocol in this tab, hearing what comes before its answer."""
        return self._call(method, self._session, **arguments)

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Open a file and wait until it is loaded."""
        self.resize(width, height)
        self.call("Page.navigate", url=path.resolve().as_uri())  # answers when the new page has replaced the old one
        self.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', () => done()))"
        )
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def resize(self, width: int, height: int = 900) -> None:
        """Be as wide as a screen, in CSS pixels."""
        arguments = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **arguments)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def pdf(self) -> bytes:
        """Print the page."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def _call(self, method: str, session: str | None = None, **arguments: Any) -> Message:
        self._last += 1
        message: Message = {"id": self._last, "method": method, "params": arguments}
        os.write(self._writer, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._record(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _next(self) -> Message:
        while b"\0" not in self._rest:
            chunk = os.read(self._reader, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _record(self, message: Message) -> None:
        """Record the request, the message or the error of an event."""
        event = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(" ".join(str(part.get("value")) for part in event["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(event["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.complaints.append(event["entry"]["text"])


@contextmanager
def chromium() -> Iterator[Tab]:
    """Start a browser with a profile of its own, or skip the test, and yield a tab."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    # far from 3 and 4, which become the browser's
    from_us, to_us = ([fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe()] for _ in range(2))
    # helpers of the browser can write into the profile a moment longer than it lives
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'  # the browser reads 3 and writes 4
        command = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}"]
        with subprocess.Popen(command, pass_fds=(from_us[0], to_us[1]), stderr=subprocess.DEVNULL) as browser:
            os.close(from_us[0])
            os.close(to_us[1])
            try:
                yield Tab(to_us[0], from_us[1])
            finally:
                os.close(from_us[1])
                os.close(to_us[0])
                browser.terminate()
                browser.wait(timeout=20)

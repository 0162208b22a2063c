"""Helpers of the tests that fetch from a bucket: limits, uploads, and a server that goes away."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from aupair.data.s3 import Patience
from aupair.errors import AupairError
from services.flaky import Flaky

BUCKET = "videos"
QUICK = Patience(attempts=3, timeout=2.0, outage=0.0)
ONE_TRY = Patience(attempts=1, timeout=1.0, outage=0.0)
RETRIED = Patience(attempts=1, timeout=2.0)
"""With the `clock` of the tests: boto3 tries once, aupair.retry for ten minutes."""


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def one_line(error: pytest.ExceptionInfo[AupairError]) -> str:
    """Return an error's text, which must have one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def split_address(source: str) -> tuple[str, str]:
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    return bucket, prefix


def leave_when(proxy: Flaky, condition: Callable[[], bool]) -> None:
    """Make the server go away, once, when a condition holds; until then it passes at most 2 MB in small steps."""
    end, lock, gone = time.monotonic() + 20, threading.Lock(), threading.Event()

    def pass_on(data: bytes) -> bytes:
        while True:
            with lock:
                if not gone.is_set() and condition():
                    gone.set()
                    proxy.go_away()
            if gone.is_set() or proxy.received <= 2_000_000 or time.monotonic() > end:
                return data
            time.sleep(0.005)

    proxy.rewrite = pass_on


def come_back(proxy: Flaky) -> None:
    """Make the server answer again, and count anew."""
    proxy.rewrite, proxy.received = bytes, 0
    proxy.requests.clear()
    proxy.listen()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def web_server(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """Run a server whose status and body depend on the path; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic realm=test")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

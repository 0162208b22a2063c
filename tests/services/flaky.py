"""A TCP proxy on loopback that fails like a network: it cuts connections, goes away, alters bytes, and counts them."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which close() sends a reset."""


@dataclass
class Flaky:
    """The behaviour and the counters of the proxy; a test sets and reads the attributes while it runs.

    Attributes:
        upstream: the port of the real server.
        cuts: how many more connections to end early.
        after: bytes from the server after which they are.
        rewrite: changes what the server sends, a block at a time.
        lose: whether the answer to a request is lost, given its method and path; the server has done its work.
        received: bytes that went from the server to the client.
        requests: method, path and headers of every request.
    """

    upstream: int
    cuts: int = 0
    after: int = 0
    rewrite: Callable[[bytes], bytes] = lambda data: data
    lose: Callable[[str], bool] = lambda request: False
    received: int = 0
    requests: list[str] = field(default_factory=list)
    port: int = 0
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """The URL that a client uses."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Start to accept connections, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def go_away(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets = list(self._open)
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for each in sockets:
            self._reset(each)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.upstream))
            with self._lock:
                self._open |= {client, server}
                gone = self._listener is not listener
            if gone:
                self._reset(client)
            asked: list[str] = []
            threading.Thread(target=self._up, args=(client, server, asked), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client, asked), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, asked: list[str]) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if re.match(rb"(GET|HEAD|PUT|POST|PATCH|DELETE) ", data):
                    self.requests.append(data.partition(b"\r\n\r\n")[0].decode(errors="replace"))
                    asked.append(self.requests[-1].partition(" HTTP/")[0])
                server.sendall(data)
        self._reset(server)

    def _down(self, server: socket.socket, client: socket.socket, asked: list[str]) -> None:
        passed = 0
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if data.startswith(b"HTTP/1.") and asked and self.lose(asked[-1]):
                    self._reset(client)
                    break
                data = self.rewrite(data)
                if self.cuts and passed + len(data) > self.after:
                    data = data[: max(0, self.after - passed)]
                    client.sendall(data)
                    self.received += len(data)
                    self.cuts -= 1
                    client.shutdown(socket.SHUT_WR)
                    break
                client.sendall(data)
                passed += len(data)
                self.received += len(data)
            else:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
        self._reset(server)

    def _reset(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            each.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
        each.close()
        with self._lock:
            self._open.discard(each)


def refuse(times: int, status: str) -> Callable[[bytes], bytes]:
    """Return a `rewrite` that puts an empty one with a status, such as "503 Slow Down", for the next `times` answers."""
    remaining = iter(range(times))
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    def rewrite(data: bytes) -> bytes:
        begins = re.match(rb"HTTP/1\.\d (?!100)\d{3} ", data)
        return answer if begins and next(remaining, None) is not None else data

    return rewrite


@contextmanager
def flaky_proxy(upstream: int) -> Iterator[Flaky]:
    """Run a proxy in front of a port of 127.0.0.1 until the block ends."""
    proxy = Flaky(upstream)
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.go_away()

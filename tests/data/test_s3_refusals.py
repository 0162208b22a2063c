"""Fetching from a bucket that cannot be read: one line, of the right kind, in bounded time, without a secret."""

import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from aupair.data.fetch import fetch, fetch_items, list_source
from aupair.data.staging import Item, check_names
from aupair.errors import AupairError, AuthError, DataError, ParamsError, RejectedError, UnreachableError
from services.bucket import BUCKET, HASTY, QUICK, content, noise, one_line, split
from services.flaky import Flaky
from services.s3 import S3, free_ports


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_item_that_changed_since_the_listing_is_told(
    speak: S3, put: Callable[..., str], clients: dict[bool, Any], tmp_path: Path, change: str
) -> None:
    source = put({"a": b"one", "b": b"b"})
    items = list_source(source)
    if change == "replaced":
        put({"a": b"two"})
    else:
        clients[True].delete_object(Bucket=BUCKET, Key=split(source)[1] + "/a")
    with pytest.raises(DataError, match=r"an object has changed since it was listed: in s3://.*/a") as caught:
        fetch_items(source, items, tmp_path / "out", patience=QUICK)
    assert one_line(caught).endswith("list it again")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("secret", ["wrong", "empty", "key"])
def test_wrong_keys_are_told_without_them(
    speak: S3, put: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    source = put({"a": b"a"})
    if secret == "empty":
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(key)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    else:
        monkeypatch.setenv({"wrong": "AWS_SECRET_ACCESS_KEY", "key": "AWS_ACCESS_KEY_ID"}[secret], "hush-hush")
    with pytest.raises(AuthError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    line = one_line(caught)
    assert "hush" not in line
    assert speak.secret_key not in line
    code = {
        "wrong": "SignatureDoesNotMatch (HTTP 403)",
        "key": "InvalidAccessKeyId (HTTP 403)",
        "empty": "NoCredentials",
    }
    assert code[secret] in line
    assert os.listdir(tmp_path) == []


def test_keys_that_stop_working_are_told(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put({"a": b"a"})
    items = list_source(source)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    proxy.requests.clear()
    with pytest.raises(AuthError, match="SignatureDoesNotMatch"):
        fetch_items(source, items, tmp_path / "out", patience=QUICK)
    assert len(proxy.requests) == 1, "asked again with keys that are wrong"


def test_a_missing_bucket_and_an_empty_prefix_are_told(speak: S3, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"dir/": b"", "deep/x": b"x"})
    with pytest.raises(DataError, match="no such bucket: in s3://nowhere/data, got NoSuchBucket"):
        fetch("s3://nowhere/data", tmp_path / "out", patience=QUICK)
    for nothing in ("/dir", "/nix", "/dee", "/deep/x"):
        with pytest.raises(DataError, match=f"nothing under this prefix: in {source + nothing};"):
            fetch(source + nothing, tmp_path / "out", patience=QUICK)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", ["../../evil", "/aa/../evil", "aa/./evil/x", "aa//evil/xx"])
def test_a_key_that_would_leave_the_folder_is_refused(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path, key: str
) -> None:
    harmless = "z" * len(key)
    source = put({"a": b"a", harmless: b"z"})
    proxy.rewrite = lambda data: data.replace(f"/{harmless}<".encode(), f"/{key}<".encode())
    with pytest.raises(DataError, match="a name that cannot be a file in a folder") as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    assert repr(key) in one_line(caught)
    with pytest.raises(DataError, match="cannot be a file"):
        list_source(source, QUICK)
    with pytest.raises(DataError, match="cannot be a file"):
        fetch_items(source, [Item(key, 1)], tmp_path / "out", patience=QUICK)
    assert os.listdir(tmp_path) == []


def test_a_key_that_is_file_and_folder_is_one_line(speak: S3, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"a": b"a", "f": b"f", "f/deep/g": b"g"})
    with pytest.raises(
        DataError, match=r"both a file and a folder: in s3://.*, got f and f/deep/g; rename one"
    ) as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    one_line(caught)
    check_names([Item("f", 1), Item("f-", 1), Item("g/f", 1)], "")


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_is_told_in_time(
    speak: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "hangs" else free_ports(1)[0]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hush@127.0.0.1:{port}")
        start = time.monotonic()
        with pytest.raises(UnreachableError, match=f"from http://127.0.0.1:{port}; check AWS_ENDPOINT_URL") as caught:
            fetch(f"s3://{BUCKET}/x", tmp_path / "out", patience=HASTY)
        assert time.monotonic() - start < 4
        assert "hush" not in one_line(caught)


def test_a_server_that_hangs_in_the_middle_is_told_in_time(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    source, wake = put({"a": noise(1, 3_000_000)}), threading.Event()

    def hang(data: bytes) -> bytes:
        if proxy.received > 1_000_000:
            wake.wait(30)
        return data

    proxy.rewrite = hang
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r"ReadTimeoutError.*0 of 1 files are there; run it again to go on"):
        fetch(source, tmp_path / "out", patience=HASTY)
    assert time.monotonic() - start < 6
    wake.set()


def test_a_server_in_trouble_is_waited_for_and_then_told(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"a": b"a" * 1000})
    items, bad = list_source(source), iter(range(1))
    trouble = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    proxy.rewrite = lambda data: trouble if next(bad, None) is not None else data
    fetch_items(source, items, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a": b"a" * 1000}
    proxy.rewrite = lambda data: trouble
    with pytest.raises(UnreachableError, match=r"HTTP 503.*0 of 1 files are there"):
        fetch_items(source, items, tmp_path / "out2", patience=HASTY)


@pytest.mark.parametrize(("answer", "told"), [(200, UnreachableError), (404, DataError), (405, RejectedError)])
def test_a_server_of_another_kind_is_told(
    speak: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int, told: type[AupairError]
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer)
            self.end_headers()
            self.wfile.write(b"<html><body><p>Please log in<br></body></html>")

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{page.server_port}")
        with pytest.raises(told, match=f"from http://127.0.0.1:{page.server_port}; check") as caught:
            fetch(f"s3://{BUCKET}/x", tmp_path / "out", patience=HASTY)
        page.shutdown()
    one_line(caught)


def test_an_endpoint_that_is_no_url_is_told(speak: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "seaweedfs:9000/ nonsense")
    with pytest.raises(ParamsError, match="AWS_ENDPOINT_URL"):
        fetch(f"s3://{BUCKET}/x", tmp_path / "out", patience=HASTY)


@pytest.mark.parametrize("source", ["s3://", "s3:///x", "s3://ab", "s3://key:hush@bucket/x", "s3://a bucket/x"])
def test_an_address_without_a_bucket_is_told(speak: S3, tmp_path: Path, source: str) -> None:
    with pytest.raises(ParamsError, match="expected s3://bucket/prefix") as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    assert "hush" not in one_line(caught)

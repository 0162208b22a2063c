"""Tests of fetching objects of a bucket, against a real server and a proxy in front of it that fails."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aupair.data.fetch import FetchSummary, fetch, list_source
from aupair.data.s3 import Item
from aupair.errors import AupairError, AuthError, DataError, ParamsError, RejectedError, UnreachableError
from listener import Listener
from services.bucket import (
    BUCKET,
    ONE_TRY,
    QUICK,
    RETRIED,
    come_back,
    content,
    leave_when,
    noise,
    one_line,
    split_address,
    web_server,
    write,
)
from services.clock import FakeClock
from services.flaky import Flaky, refuse
from services.s3 import S3, free_ports

Put = Callable[..., str]
DAMAGED = "an object that has changed since it was listed, or is damaged"


def test_every_object_comes_under_its_name(
    s3_environment: S3, put: Put, clients: dict[bool, Any], tmp_path: Path
) -> None:
    objects = {
        "a.txt": b"a", "videos/1 ü+%20.mp4": noise(1, 200_000), "videos/deep/er/b": b"b", "empty": b"", "a.txt.part": b"p",
    }  # fmt: skip
    source = put({**objects, "marker/": b"", "videos/": b""})
    clients[True].put_object(Bucket=BUCKET, Key=split_address(source)[1] + "-other/x", Body=b"not below the prefix")
    log = Listener()
    summary = fetch(source + "/", tmp_path / "out", log=log, patience=QUICK)
    assert content(tmp_path / "out") == objects
    assert summary == FetchSummary(source, "", 5)
    assert os.listdir(tmp_path) == ["out"]
    assert log.lines == [], "every ETag was an MD5"


def test_only_the_requested_items_come(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    source = put({f"{k}.mp4": noise(k, 400_000) for k in range(4)})
    items = list_source(source)
    assert [(item.name, item.size, len(item.etag)) for item in items] == [(f"{k}.mp4", 400_000, 32) for k in range(4)]
    summary = fetch(source, tmp_path / "out", items=items[2:3], patience=QUICK)
    assert content(tmp_path / "out") == {"2.mp4": noise(2, 400_000)}
    assert summary.files == 1
    assert proxy.received < 400_000 + 100_000


def test_cut_connections_are_tried_again(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    source = put({"a.mp4": noise(1, 3_000_000)})
    proxy.cuts, proxy.after = 2, 1_000_000
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": noise(1, 3_000_000)}
    assert proxy.cuts == 0


@pytest.mark.parametrize("fault", ["503 Slow Down", "429 Too Many Requests", "500 Internal Error", "cut", "gone"])
def test_transient_failure_after_a_first_answer_is_retried(
    proxy: Flaky, put: Put, clock: FakeClock, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = put({"a": noise(1, 1000), "b": noise(2, 1000)})
    items = list_source(source)
    if fault == "cut":
        proxy.cuts, proxy.after = 4, 0
    elif fault == "gone":
        proxy.go_away()
        clock.on_sleep = lambda: proxy.listen() if len(clock.sleeps) == 3 else None
    else:
        proxy.rewrite = refuse(4, fault)
    fetch(source, tmp_path / "out", items=items, patience=RETRIED)
    assert content(tmp_path) == {"out/a": noise(1, 1000), "out/b": noise(2, 1000)}
    assert clock.sleeps
    assert re.fullmatch(
        r"s3://videos: fetching [ab] failed \(.*\); retrying in 1 s, giving up in 600 s", caplog.messages[0]
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [("403 Forbidden", AuthError), ("404 Not Found", DataError), ("400 Bad Request", RejectedError),
     ("501 Not Implemented", RejectedError)],
)  # fmt: skip
def test_a_refusal_is_not_tried_again(
    proxy: Flaky, put: Put, clock: FakeClock, tmp_path: Path, status: str, error: type[AupairError]
) -> None:
    source = put({"a": b"a"})
    items = list_source(source)
    proxy.rewrite = refuse(1, status)
    with pytest.raises(error):
        fetch(source, tmp_path / "out", items=items, patience=RETRIED)
    assert clock.sleeps == []


def test_a_fault_at_the_first_contact_is_an_error_at_once(proxy: Flaky, put: Put, clock: FakeClock) -> None:
    source = put({"a": b"a"})
    proxy.rewrite = refuse(1, "503 Slow Down")
    with pytest.raises(UnreachableError):
        list_source(source)
    assert (clock.sleeps, len(proxy.requests)) == ([], 1)


def test_an_outage_ends_after_ten_minutes(proxy: Flaky, put: Put, clock: FakeClock, tmp_path: Path) -> None:
    source = put({"a": b"a"})
    items = list_source(source)
    proxy.go_away()
    with pytest.raises(UnreachableError, match="does not answer"):
        fetch(source, tmp_path / "out", items=items, patience=RETRIED)
    assert 500 < sum(clock.sleeps) <= 600


def test_a_later_call_goes_on_with_the_complete_files(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    small = {"a.mp4": noise(1, 600_000), "b": b"b", "replaced": b"old", "spoilt": b"good"}
    objects = {**small, "z.mp4": noise(2, 5_000_000)}
    source, whole = put(objects), tmp_path / ".out.fetching" / "whole"
    leave_when(proxy, lambda: all((whole / name).exists() for name in small))
    with pytest.raises(UnreachableError, match=r"run it again to continue") as caught:
        fetch(source, tmp_path / "out", patience=replace(ONE_TRY, timeout=30.0))  # the proxy holds data back
    assert proxy.endpoint in one_line(caught)
    complete = content(tmp_path)
    assert set(complete) <= {f".out.fetching/whole/{name}" for name in small}
    assert complete, "those whose verification the proxy held back may be missing"
    come_back(proxy)
    (whole / "spoilt").write_bytes(b"evil")
    put({"replaced": b"new"})
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {**objects, "replaced": b"new"}
    missing = 5_000_000 + (0 if ".out.fetching/whole/a.mp4" in complete else 600_000)
    assert proxy.received < missing + 500_000, "complete files are not downloaded again"
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_deleted(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    source = put({"one/a.mp4": noise(1, 4_000_000), "two/b": b"b"})

    def slowly(data: bytes) -> bytes:
        time.sleep(0.02)
        return data

    proxy.rewrite = slowly
    code = "import sys; from pathlib import Path; from aupair.data.fetch import fetch; fetch(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, source + "/one", str(tmp_path / "out")])
    whole = tmp_path / ".out.fetching" / "whole"
    while not any(path.stat().st_size > 1_000_000 for path in whole.glob("a.mp4.*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    proxy.rewrite = bytes
    (whole / "a.mp4").write_bytes(b"a complete file of another source")
    fetch(source + "/two", tmp_path / "out", patience=QUICK)
    assert content(tmp_path) == {"out/b": b"b"}


@pytest.mark.parametrize(
    ("pattern", "replacement"), [(rb"Content-Length: \d{6}\b", b"Content-Length: 001000"), (rb"MARKER", b"marker")]
)
@pytest.mark.parametrize("plain", [True, False])
def test_a_damaged_object_is_an_error(
    proxy: Flaky, put: Put, tmp_path: Path, pattern: bytes, replacement: bytes, plain: bool
) -> None:
    good = b"MARKER" + noise(1, 100_000)
    source = put({"a.mp4": good}, plain=plain)
    items = list_source(source)
    proxy.rewrite = lambda data: re.sub(pattern, replacement, data)
    with pytest.raises(DataError, match=f"{DAMAGED}: in {re.escape(source)}/a.mp4, expected 100006 bytes") as caught:
        fetch(source, tmp_path / "out", items=items, patience=QUICK)
    one_line(caught)
    assert content(tmp_path) == {}, "the damaged file was kept"


def upload_parts(client: Any, source: str, name: str, parts: list[bytes]) -> None:
    bucket, prefix = split_address(source)
    key = {"Bucket": bucket, "Key": f"{prefix}/{name}"}
    upload = client.create_multipart_upload(**key)["UploadId"]
    tags = [client.upload_part(**key, UploadId=upload, PartNumber=n, Body=p)["ETag"] for n, p in enumerate(parts, 1)]
    done = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]}
    client.complete_multipart_upload(**key, UploadId=upload, MultipartUpload=done)


@pytest.mark.parametrize("sizes", [(5 << 20, 5 << 20, 1000), (5 << 20, (5 << 20) + 3, 1000), (1000,)])
def test_an_object_of_parts_is_verified_by_its_parts(
    proxy: Flaky, put: Put, clients: dict[bool, Any], tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    """The first two are above the size up to which boto3 verifies an object itself."""
    parts = [noise(k, size) for k, size in enumerate(sizes)]
    source, log = put({}), Listener()
    upload_parts(clients[False], source, "a.mp4", parts)
    assert list_source(source)[0].etag.endswith(f"-{len(sizes)}")
    fetch(source, tmp_path / "out", log=log, patience=QUICK)
    assert (tmp_path / "out" / "a.mp4").read_bytes() == b"".join(parts)
    assert log.lines == []
    wrong = parts[-1][:3] + bytes([parts[-1][3] ^ 1])
    proxy.rewrite = lambda data: data.replace(parts[-1][:4], wrong)
    with pytest.raises(DataError, match=DAMAGED):
        fetch(source, tmp_path / "out2", patience=ONE_TRY)


def test_an_etag_that_is_no_md5_leaves_the_size_and_the_crc(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    def as_kms(data: bytes) -> bytes:
        """Answer as a server whose own key encrypts: an ETag that is the MD5 of something else."""
        header = b"X-Amz-Server-Side-Encryption: aws:kms\r\nAccept-Ranges:"
        return data.replace(b"MARKER", b"marker").replace(b"Accept-Ranges:", header, 1)

    objects, log = {"a": b"MARKER" + noise(1, 5000), "b": b"b"}, Listener()
    source, proxy.rewrite = put(objects, plain=True), as_kms
    fetch(source, tmp_path / "out", log=log, patience=QUICK)
    assert (tmp_path / "out" / "a").read_bytes()[:6] == b"marker"
    assert log.lines == ["checked by size alone, since the server has no usable checksum: 1 of 2 files"]
    put(objects, plain=False)
    with pytest.raises(DataError, match=DAMAGED):
        fetch(source, tmp_path / "out2", log=log, patience=QUICK)


def test_a_server_without_etags_is_checked_by_size(
    s3_environment: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, log = noise(1, 300_000), Listener()
    entry = f"<Contents><Key>x/a</Key><Size>{len(good)}</Size></Contents>"
    listing = f"<ListBucketResult>{entry}</ListBucketResult>".encode()
    with web_server(lambda path: (200, listing if "list-type" in path else good)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fetch(f"s3://{BUCKET}/x", tmp_path / "out", log=log, patience=QUICK)
    assert content(tmp_path / "out") == {"a": good}
    assert log.lines == ["checked by size alone, since the server has no usable checksum: 1 of 1 files"]


@pytest.mark.parametrize(
    ("change", "size"),
    [("replaced before", 1_000), ("deleted before", 1_000), ("replaced meanwhile", 20_000_000)],
)
def test_an_object_that_changed_since_the_listing_is_an_error(
    proxy: Flaky, put: Put, clients: dict[bool, Any], tmp_path: Path, change: str, size: int
) -> None:
    # only one object: the cut below must not hit the download of another one, which would be repeated with success
    source, replaced = put({"a": noise(1, size)}), threading.Event()
    items = list_source(source)

    def replace_meanwhile(data: bytes) -> bytes:
        if proxy.received > 1_000_000 and not replaced.is_set():
            replaced.set()
            put({"a": noise(2, size)})
            proxy.cuts, proxy.after = 1, 0
        return data

    if change == "replaced before":
        put({"a": noise(2, size)})
    elif change == "deleted before":
        clients[True].delete_object(Bucket=BUCKET, Key=split_address(source)[1] + "/a")
    else:
        proxy.rewrite = replace_meanwhile
    with pytest.raises(DataError, match=rf"{DAMAGED}: in s3://.*/a, expected {size} bytes"):
        fetch(source, tmp_path / "out", items=items, patience=QUICK)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_complete_files_and_no_parts(s3_environment: S3, put: Put, tmp_path: Path) -> None:
    objects = {"a": noise(1, 100_000), "b": noise(2, 12_000_000), "c": noise(3, 4_000_000)}
    source = put(objects)
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system of its own can be mounted")
    try:
        with pytest.raises(AupairError, match=r"cannot write.*No space left on device.*make room") as caught:
            fetch(source, disk / "out", patience=QUICK)
        assert caught.value.exit_code == 1
        one_line(caught)
        assert {path.name for path in disk.rglob("*") if path.is_file()} <= {"a"}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "hush-hush"}, "SignatureDoesNotMatch (HTTP 403)"),
        ({"AWS_ACCESS_KEY_ID": "hush-hush"}, "InvalidAccessKeyId (HTTP 403)"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "NoCredentials"),
        ({"AWS_PROFILE": "nobody"}, "ProfileNotFound"),
    ],
)
def test_wrong_keys_are_an_error_that_does_not_show_them(
    proxy: Flaky, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], code: str
) -> None:
    source = put({"a": b"a"})
    items = list_source(source)
    for key, value in changed.items():
        monkeypatch.setenv(key, value) if value else monkeypatch.delenv(key)
    for key in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(key, str(tmp_path / "none"))
    proxy.requests.clear()
    with pytest.raises(AuthError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as caught:
        fetch(source, tmp_path / "out", items=items, patience=QUICK)
    assert code in one_line(caught)
    assert "hush" not in one_line(caught)
    assert len(proxy.requests) == ("HTTP" in code), "asked again with keys that are wrong"


def test_a_missing_bucket_and_an_empty_prefix_are_errors(s3_environment: S3, put: Put, tmp_path: Path) -> None:
    source = put({"dir/": b"", "deep/x": b"x"})
    with pytest.raises(DataError, match="has no such bucket or object: in s3://nowhere/data, got NoSuchBucket"):
        fetch("s3://nowhere/data", tmp_path / "out", patience=QUICK)
    out = write(tmp_path / "out", {"old": b"o"})
    for nothing in ("/dir", "/nix", "/dee", "/deep/x"):
        with pytest.raises(DataError, match=f"nothing under this prefix: in {source + nothing};"):
            fetch(source + nothing, out, patience=QUICK)
    assert content(tmp_path) == {"out/old": b"o"}
    fetch(source, out, patience=QUICK)
    assert content(tmp_path) == {"out/deep/x": b"x"}, "the target is replaced by complete data"


@pytest.mark.parametrize("key", ["../../evil", "/aa/../evil", "aa/./evil/x", "aa//evil/xx"])
def test_a_key_that_would_leave_the_folder_is_an_error(proxy: Flaky, put: Put, tmp_path: Path, key: str) -> None:
    harmless = "z" * len(key)
    source = put({"a": b"a", harmless: b"z"})
    proxy.rewrite = lambda data: data.replace(f"/{harmless}<".encode(), f"/{key}<".encode())
    for items in (None, [Item(key, 1)]):
        with pytest.raises(DataError, match="a name that cannot be a file in a folder") as caught:
            fetch(source, tmp_path / "out", items=items, patience=QUICK)
        assert repr(key) in one_line(caught)
    assert os.listdir(tmp_path) == []


def test_a_key_that_is_file_and_folder_is_an_error(s3_environment: S3, put: Put, tmp_path: Path) -> None:
    source = put({"a": b"a", "f": b"f", "f/deep/g": b"g", "f-": b"", "g/f": b""})
    message = r"both a file and a folder: in s3://.*, got f and f/deep/g; rename one"
    with pytest.raises(DataError, match=message) as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    one_line(caught)


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_is_an_error_in_time(
    s3_environment: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "hangs" else free_ports(1)[0]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hush@127.0.0.1:{port}")
        start = time.monotonic()
        with pytest.raises(
            UnreachableError, match=f"does not answer: .* from http://127.0.0.1:{port}; check the address"
        ) as caught:
            fetch(f"s3://{BUCKET}/x", tmp_path / "out", patience=ONE_TRY)
        assert time.monotonic() - start < 4
        assert "hush" not in one_line(caught)


def test_a_server_that_hangs_in_the_middle_is_an_error_in_time(proxy: Flaky, put: Put, tmp_path: Path) -> None:
    source, wake = put({"a": noise(1, 3_000_000)}), threading.Event()

    def hang(data: bytes) -> bytes:
        if proxy.received > 1_000_000:
            wake.wait(30)
        return data

    proxy.rewrite = hang
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r"ReadTimeoutError.*run it again to continue"):
        fetch(source, tmp_path / "out", patience=ONE_TRY)
    assert time.monotonic() - start < 6
    wake.set()


@pytest.mark.parametrize(
    ("status", "kind"), [(200, UnreachableError), (503, UnreachableError), (404, DataError), (405, RejectedError)]
)
def test_a_server_of_another_kind_is_an_error(
    s3_environment: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[AupairError]
) -> None:
    with web_server(lambda path: (status, b"<html><body><p>Please log in<br></body></html>")) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(kind, match=f"from {address}; check") as caught:
            fetch(f"s3://{BUCKET}/x", tmp_path / "out", patience=ONE_TRY)
    one_line(caught)


@pytest.mark.parametrize(
    ("source", "endpoint", "message"),
    [
        *((source, "", "expected s3://bucket/prefix") for source in ("s3://", "s3:///x", "s3://ab", "s3://a bucket/x")),
        ("s3://key:hush@bucket/x", "", "expected s3://bucket/prefix"),
        (f"s3://{BUCKET}/x", "seaweedfs:9000/ nonsense", "not the URL of a server: in AWS_ENDPOINT_URL"),
    ],
)
def test_an_invalid_address_is_an_error(
    s3_environment: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, endpoint: str, message: str
) -> None:
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ParamsError, match=message) as caught:
        fetch(source, tmp_path / "out", patience=ONE_TRY)
    assert "hush" not in one_line(caught)

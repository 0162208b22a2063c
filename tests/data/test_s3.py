"""Objects of a bucket, from a real server: what comes whole, what is taken up again, what is noticed."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from aupair.data.fetch import Fetched, fetch, fetch_items, list_source
from aupair.data.staging import Patience
from aupair.errors import AupairError, DataError, UnreachableError
from services.bucket import BUCKET, HASTY, QUICK, SLACK, Heard, come_back, content, leave, noise, one_line, size, split
from services.flaky import Flaky
from services.s3 import S3


def test_every_object_comes_under_its_name(
    speak: S3, put: Callable[..., str], clients: dict[bool, Any], tmp_path: Path
) -> None:
    objects = {
        "a.txt": b"a", "videos/1 ü+%20.mp4": noise(1, 200_000), "videos/deep/er/b": b"b", "empty": b"", "a.txt.part": b"p",
    }  # fmt: skip
    source = put({**objects, "marker/": b"", "videos/": b""})
    clients[True].put_object(Bucket=BUCKET, Key=split(source)[1] + "-other/x", Body=b"not below the prefix")
    heard = Heard()
    fetched = fetch(source + "/", tmp_path / "out", log=heard, patience=QUICK)
    assert content(tmp_path / "out") == objects
    assert fetched == Fetched(source, "", 5, sum(map(len, objects.values())))
    assert os.listdir(tmp_path) == ["out"]
    assert heard.counted == [(5, "fetching files")]
    assert heard.lines == [], "every ETag was an MD5"


def test_a_target_is_replaced_only_by_the_whole(speak: S3, put: Callable[..., str], tmp_path: Path) -> None:
    source, out = put({"new": b"n"}), tmp_path / "out"
    out.mkdir()
    (out / "old").write_bytes(b"o")
    with pytest.raises(DataError):
        fetch(source + "/nothing", out, patience=QUICK)
    assert content(out) == {"old": b"o"}
    fetch(source, out, patience=QUICK)
    assert content(out) == {"new": b"n"}


def test_only_the_items_that_were_asked_for_come(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({f"{k}.mp4": noise(k, 400_000) for k in range(4)})
    items = list_source(source)
    assert [(item.name, item.size, len(item.etag)) for item in items] == [(f"{k}.mp4", 400_000, 32) for k in range(4)]
    fetched = fetch_items(source, items[2:3], tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"2.mp4": noise(2, 400_000)}
    assert (fetched.files, fetched.bytes) == (1, 400_000)
    assert proxy.received < 400_000 + 100_000


def test_a_cut_connection_goes_on_where_it_broke(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"a.mp4": noise(1, 3_000_000)})
    proxy.cuts, proxy.after = 2, 1_000_000
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": noise(1, 3_000_000)}
    assert len(proxy.ranges()) == 2
    assert all(int(text[6:-1]) > 800_000 for text in proxy.ranges())
    assert proxy.cuts == 0
    assert proxy.received < 3_000_000 + SLACK


def test_cuts_that_let_something_through_never_end_patience(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    source = put({"a.mp4": noise(1, 7_000_000)})
    proxy.cuts, proxy.after = 5, 1_300_000
    fetch(source, tmp_path / "out", patience=Patience(attempts=2, backoff=0.02, timeout=2))
    assert content(tmp_path / "out") == {"a.mp4": noise(1, 7_000_000)}


def test_a_server_that_goes_away_is_taken_up_again(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    objects = {f"{k}.mp4": noise(k, 1_000_000) for k in range(6)}
    source = put(objects)
    leave(proxy, tmp_path, lambda: size(tmp_path) >= 2_500_000)
    with pytest.raises(UnreachableError, match=r"\d of 6 files are there; run it again to go on") as caught:
        fetch(source, tmp_path / "out", patience=HASTY)
    assert proxy.endpoint in one_line(caught)
    assert not (tmp_path / "out").exists()
    there = size(tmp_path)
    assert there >= 2_500_000
    come_back(proxy)
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == objects
    assert proxy.received < 6_000_000 - there + SLACK, "nothing came twice"
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_process_is_taken_up_again(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"a.mp4": noise(1, 4_000_000)})

    def slowly(data: bytes) -> bytes:
        time.sleep(0.02)
        return data

    proxy.rewrite = slowly
    code = "import sys; from pathlib import Path; from aupair.data.fetch import fetch; fetch(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, source, str(tmp_path / "out")])
    part = tmp_path / ".out.fetching" / "parts" / "a.mp4"
    while not (part.exists() and part.stat().st_size > 1_000_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    there, proxy.rewrite, proxy.received = part.stat().st_size, bytes, 0
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": noise(1, 4_000_000)}
    assert proxy.received < 4_000_000 - there + SLACK


def test_what_was_begun_of_another_object_is_not_gone_on_with(
    proxy: Flaky, put: Callable[..., str], clients: dict[bool, Any], tmp_path: Path
) -> None:
    source = put({"a.mp4": noise(1, 3_000_000), "gone/deep": b"g"}, plain=True)
    leave(proxy, tmp_path, lambda: size(tmp_path) >= 1_500_000)
    with pytest.raises(UnreachableError):
        fetch(source, tmp_path / "out", patience=HASTY)
    come_back(proxy)
    put({"a.mp4": noise(2, 3_000_000)}, plain=True)
    bucket, prefix = split(source)
    clients[True].delete_object(Bucket=bucket, Key=f"{prefix}/gone/deep")
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": noise(2, 3_000_000)}
    assert not (tmp_path / "out" / "gone").exists()
    assert proxy.ranges() == []


def test_what_was_begun_of_another_source_is_dropped(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    first = put({"one/a": noise(1, 2_000_000), "two/b": b"b"})
    leave(proxy, tmp_path, lambda: size(tmp_path) >= 1_000_000)
    with pytest.raises(UnreachableError):
        fetch(first + "/one", tmp_path / "out", patience=HASTY)
    come_back(proxy)
    fetch(first + "/two", tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"b": b"b"}


@pytest.mark.parametrize("damage", ["shorter", "longer", "other"])
def test_a_file_spoilt_in_between_is_fetched_again(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path, damage: str
) -> None:
    objects = {"a.mp4": noise(1, 300_000), "b.mp4": noise(2, 4_000_000)}
    source = put(objects)
    whole = tmp_path / ".out.fetching" / "whole" / "a.mp4"
    leave(proxy, tmp_path, whole.exists)
    with pytest.raises(UnreachableError, match="1 of 2 files"):
        fetch(source, tmp_path / "out", patience=HASTY)
    come_back(proxy)
    good = whole.read_bytes()
    whole.write_bytes({"shorter": good[:-7], "longer": good + b"x", "other": b"x" + good[1:]}[damage])
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == objects


def test_an_answer_that_ends_early_is_noticed_and_gone_on_with(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    source = put({"a.mp4": noise(1, 300_000)})
    proxy.rewrite = lambda data: data.replace(b"Content-Length: 300000", b"Content-Length: 200000")
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": noise(1, 300_000)}
    assert proxy.ranges() == ["bytes=200000-"]


def test_an_object_that_stays_truncated_is_told(proxy: Flaky, put: Callable[..., str], tmp_path: Path) -> None:
    source = put({"a.mp4": noise(1, 300_000)})
    proxy.rewrite = lambda data: re.sub(rb"Content-Length: \d{6}\b", b"Content-Length: 001000", data)
    with pytest.raises(DataError, match=r"a truncated object: in s3://.*a\.mp4, got \d+ bytes, expected 300000 bytes"):
        fetch(source, tmp_path / "out", patience=QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plain", [True, False])
def test_other_content_is_told_unless_the_next_try_is_right(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path, plain: bool
) -> None:
    good = b"MARKER" + noise(1, 10_000)
    source = put({"a.mp4": good}, plain=plain)
    proxy.rewrite = lambda data: data.replace(b"MARKER", b"marker")
    with pytest.raises(DataError, match="an object that does not match its checksum") as caught:
        fetch(source, tmp_path / "out", patience=QUICK)
    assert "a.mp4" in one_line(caught)
    assert not (tmp_path / "out").exists()
    spoilt = iter([True])
    proxy.rewrite = lambda data: (
        data.replace(b"MARKER", b"marker") if b"MARKER" in data and next(spoilt, False) else data
    )
    fetch(source, tmp_path / "out", patience=QUICK)
    assert content(tmp_path / "out") == {"a.mp4": good}


def upload_parts(client: Any, source: str, name: str, parts: list[bytes]) -> None:
    bucket, prefix = split(source)
    key = {"Bucket": bucket, "Key": f"{prefix}/{name}"}
    upload = client.create_multipart_upload(**key)["UploadId"]
    tags = [client.upload_part(**key, UploadId=upload, PartNumber=n, Body=p)["ETag"] for n, p in enumerate(parts, 1)]
    done = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]}
    client.complete_multipart_upload(**key, UploadId=upload, MultipartUpload=done)


@pytest.mark.parametrize("sizes", [(5 << 20, 5 << 20, 1000), (5 << 20, (5 << 20) + 3, 1000), (1000,)])
def test_an_object_of_parts_is_verified_by_its_parts(
    proxy: Flaky, put: Callable[..., str], clients: dict[bool, Any], tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    parts = [noise(k, size) for k, size in enumerate(sizes)]
    source = put({})
    upload_parts(clients[False], source, "a.mp4", parts)
    heard = Heard()
    assert list_source(source)[0].etag.endswith(f"-{len(sizes)}")
    fetch(source, tmp_path / "out", log=heard, patience=QUICK)
    assert (tmp_path / "out" / "a.mp4").read_bytes() == b"".join(parts)
    assert heard.lines == []
    wrong = parts[-1][:3] + bytes([parts[-1][3] ^ 1])
    proxy.rewrite = lambda data: data.replace(parts[-1][:4], wrong)
    with pytest.raises(DataError, match="does not match its checksum"):
        fetch(source, tmp_path / "out2", patience=HASTY)


def test_the_transfer_manager_s_uploads_are_verified(
    speak: S3, put: Callable[..., str], clients: dict[bool, Any], tmp_path: Path
) -> None:
    from boto3.s3.transfer import TransferConfig

    bucket, prefix = split(put({}))
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    clients[False].upload_fileobj(io.BytesIO(noise(1, 11 << 20)), bucket, f"{prefix}/a", Config=config)
    heard = Heard()
    fetch(f"s3://{bucket}/{prefix}", tmp_path / "out", log=heard, patience=QUICK)
    assert (tmp_path / "out" / "a").read_bytes() == noise(1, 11 << 20)
    assert heard.lines == []


def test_an_etag_that_is_no_md5_leaves_the_size_and_the_crc(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    def as_kms(data: bytes) -> bytes:
        """Answer as a server whose own key encrypts: an ETag that is the MD5 of something else."""
        header = b"X-Amz-Server-Side-Encryption: aws:kms\r\nAccept-Ranges:"
        return data.replace(b"MARKER", b"marker").replace(b"Accept-Ranges:", header, 1)

    objects, heard = {"a": b"MARKER" + noise(1, 5000), "b": b"b"}, Heard()
    source, proxy.rewrite = put(objects, plain=True), as_kms
    fetch(source, tmp_path / "out", log=heard, patience=QUICK)
    assert (tmp_path / "out" / "a").read_bytes()[:6] == b"marker"
    assert heard.lines == ["checked by size alone, the server gives no usable checksum: 1 of 2 files"]
    put(objects, plain=False)
    with pytest.raises(DataError, match="does not match its checksum"):
        fetch(source, tmp_path / "out2", log=heard, patience=QUICK)


def test_an_object_replaced_while_it_comes_is_started_over(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    source = put({"a": noise(1, 2_000_000)})
    replaced = threading.Event()

    def replace(data: bytes) -> bytes:
        if proxy.received > 1_000_000 and not replaced.is_set():
            replaced.set()
            put({"a": noise(2, 2_000_000)})
            proxy.cuts, proxy.after = 1, 0
        return data

    proxy.rewrite, heard = replace, Heard()
    fetch(source, tmp_path / "out", log=heard, patience=QUICK)
    assert content(tmp_path / "out") == {"a": noise(2, 2_000_000)}
    assert [line.rpartition(": ")[2] for line in heard.lines] == ["listing again"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size; skip where that is not permitted."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no file system of its own can be mounted: no program mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system of its own can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_what_is_whole_and_nothing_half(
    proxy: Flaky, put: Callable[..., str], tmp_path: Path
) -> None:
    objects = {"a": noise(1, 100_000), "b": noise(2, 4_000_000), "c": noise(3, 4_000_000)}
    source = put(objects)
    with small_disk(tmp_path / "disk", "2m") as disk:
        leave(proxy, disk, (disk / ".out.fetching" / "whole" / "a").exists)
        with pytest.raises(UnreachableError):
            fetch(source, disk / "out", patience=HASTY)
        come_back(proxy)
        with pytest.raises(AupairError, match=r"cannot write.*No space left on device.*make room") as caught:
            fetch(source, disk / "out", patience=QUICK)
        assert caught.value.exit_code == 1
        one_line(caught)
        assert {path.name for path in disk.rglob("*") if path.is_file()} == {"a", "source.json"}
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        fetch(source, disk / "out", patience=QUICK)
        assert content(disk / "out") == objects
        assert os.listdir(disk) == ["out"]


def test_a_server_that_knows_no_ranges_and_no_etags(speak: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, asked = noise(1, 300_000), []

    class Simple(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = (
                f"<ListBucketResult><Contents><Key>x/a</Key><Size>{len(good)}</Size></Contents></ListBucketResult>"
            )
            body = listing.encode() if "list-type" in self.path else good
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body is good:
                asked.append(self.headers["Range"])
                body = body[:200_000] if len(asked) == 1 else body
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    heard = Heard()
    with HTTPServer(("127.0.0.1", 0), Simple) as simple:
        threading.Thread(target=simple.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{simple.server_port}")
        fetch(f"s3://{BUCKET}/x", tmp_path / "out", log=heard, patience=QUICK)
        simple.shutdown()
    assert content(tmp_path / "out") == {"a": good}
    assert [text is not None for text in asked] == [False, True], "the second answer was taken from its beginning"
    assert heard.lines == ["checked by size alone, the server gives no usable checksum: 1 of 1 files"]

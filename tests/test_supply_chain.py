"""The audit of the lock with data from a file, and the signature of a bundle with a local key."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from conftest import REPOSITORY

STUB = """
import json, sys, urllib.request
arguments = sys.argv[1:]
place, packages = arguments[arguments.index("-o") + 1], []
if "--osv-url" not in arguments:
    print("Traceback", "ConnectionError: no route to host", sep="\\n", file=sys.stderr)
    sys.exit(1)
for name, version in (("torch", "2.7.0"), ("numpy", "2.0.0")):
    query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
    with urllib.request.urlopen(arguments[arguments.index("--osv-url") + 1], query) as answer:
        entries = json.loads(answer.read()).get("vulns", [])
    vulns = [{"id": entry["id"], "aliases": [], "fix_versions": ["2.8.0"]} for entry in entries]
    packages.append({"name": name, "version": version, "vulns": vulns})
with open(place, "w") as file:
    json.dump({"dependencies": packages}, file)
"""
"""A program that asks and writes as pip-audit does; the real one comes from a package index."""


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(name: str, package: str, events: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    """Return a vulnerability as osv.dev exports it."""
    affected = {"package": {"ecosystem": "PyPI", "name": package}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": name, "affected": [affected | more]}


def write_export(path: Path, *entries: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for content in entries:
            archive.writestr(f"{content['id']}.json", json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("events", "affected", "safe"),
    [
        ([{"introduced": "0"}, {"fixed": "2.8.0"}], ["0.1", "2.7.9", "2.8.0rc1"], ["2.8.0", "3.0"]),
        ([{"introduced": "1.2"}, {"last_affected": "1.4"}], ["1.2", "1.4"], ["1.1.9", "1.4.1"]),
        ([{"introduced": "1"}, {"fixed": "1.5"}, {"introduced": "2"}, {"fixed": "2.5"}], ["1.4", "2.0"], ["0.9", "1.5", "1.9", "2.5"]),
        ([{"introduced": "3"}], ["3", "9"], ["2.9"]),
    ],
)  # fmt: skip
def test_versions_in_a_range_are_affected(
    audit: ModuleType, tmp_path: Path, events: list[dict[str, str]], affected: list[str], safe: list[str]
) -> None:
    export = audit.OsvExport(write_export(tmp_path / "all.zip", entry("A", "Some_Package", events, versions=["7.7"])))
    for version in [*affected, "7.7"]:
        assert [found["id"] for found in export.affecting("some-package", version)] == ["A"], version
    assert not any(export.affecting("some-package", version) for version in safe)
    assert export.affecting("another", affected[0]) == []


@contextmanager
def package_index(content: object) -> Iterator[str]:
    """Yield the address of a package index that answers every question with this content."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(audit: ModuleType, tmp_path: Path, *options: object) -> int:
    """Run the audit with the stub as pip-audit."""
    (tmp_path / "stub.py").write_text(STUB)
    command = f"{sys.executable} {tmp_path / 'stub.py'}"
    return int(audit.main([str(REPOSITORY / "requirements.lock"), "--pip-audit", command, *map(str, options)]))


def test_a_vulnerability_of_the_export_is_named_and_the_exit_code_is_1(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"introduced": "0"}, {"fixed": "2.8.0"}]
    assert run(audit, tmp_path, "--osv", write_export(tmp_path / "bad.zip", entry("PYSEC-1", "Torch", events))) == 1
    assert capsys.readouterr().out == "torch 2.7.0: PYSEC-1; fixed in 2.8.0\n"
    assert run(audit, tmp_path, "--osv", write_export(tmp_path / "good.zip", entry("PYSEC-1", "other", events))) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "audit: 2 packages checked, 0 known vulnerabilities\n")


def test_without_data_there_is_one_line_and_exit_code_3(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.zip").write_text("no zip")
    with package_index({"vulnerabilities": []}) as pypi:
        cases = [("--pypi", pypi), ("--osv", tmp_path / "no.zip"), ("--osv", write_export(tmp_path / "empty.zip"))]
        for options in cases:
            assert run(audit, tmp_path, *options) == 3
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert "OSV=all.zip" in captured.err


@pytest.mark.parametrize("fault", ["closed", "silent", "no data"])
def test_an_index_without_data_is_noticed_before_pip_audit_asks_for_every_package(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def pip_audit(*_: object) -> None:
        raise AssertionError("it takes minutes")

    monkeypatch.setattr(audit, "run_pip_audit", pip_audit)
    monkeypatch.setattr(audit, "LONGEST", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, package_index({"info": {}}) as without:
        ours = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if fault == "closed":
            silent.close()
        start = time.monotonic()
        assert run(audit, tmp_path, "--pypi", without if fault == "no data" else ours) == 3
        assert time.monotonic() - start < 5
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(
        r"audit: no vulnerability data, none of the \d{3} packages of requirements.lock was checked: ", line
    )
    assert "OSV=all.zip" in line


def test_a_package_that_the_source_does_not_know_is_not_counted_as_safe(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
    assert audit.report([skipped], "") == 3
    assert "nothing was checked: Dependency not found" in capsys.readouterr().err
    assert audit.report([skipped, {"name": "a", "version": "1", "vulns": []}], "") == 3
    assert "1 packages could not be checked: ours" in capsys.readouterr().err


def test_a_bundle_is_signed_and_an_altered_one_is_refused(tmp_path: Path) -> None:
    tool = ["uv", "tool", "run", "-q", "--from", "model-signing==1.1.1", "--with", "pyopenssl", "model_signing"]
    if shutil.which("uv") is None or subprocess.run([*tool, "--help"], capture_output=True).returncode:
        pytest.skip("model-signing is neither in uv's cache nor to be had from a package index")
    keys = {name: tmp_path / f"{name}.pem" for name in ("private", "public")}
    new_key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(keys["private"])]
    subprocess.run(new_key, check=True, capture_output=True)
    public = ["openssl", "ec", "-in", str(keys["private"]), "-pubout", "-out", str(keys["public"])]
    subprocess.run(public, check=True, capture_output=True)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "selection.json").write_text("{}")

    def make(verb: str, key: Path) -> subprocess.CompletedProcess[str]:
        arguments = ["make", "-o", ".venv/.installed", verb, f"BUNDLE={bundle}", f"KEY={key}"]
        return subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)

    assert make("sign", keys["private"]).returncode == 0
    assert sorted(path.name for path in bundle.iterdir()) == ["selection.json"], "the signature lies beside the bundle"
    done = make("verify", keys["public"])
    assert (done.returncode, "Verification succeeded" in done.stdout) == (0, True), done.stderr
    (bundle / "selection.json").write_text("{ }")
    done = make("verify", keys["public"])
    assert done.returncode != 0
    assert "Verification failed" in done.stdout + done.stderr


def test_the_base_image_can_be_pinned_by_its_digest() -> None:
    base = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
    command = ["make", "-n", "image", f"BASE={base}", "ENGINE=podman"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"--build-arg BASE={base}" in done.stdout
    text = (REPOSITORY / "Containerfile").read_text()
    assert text.count("FROM ${BASE}") == 2, "no stage is built from another image"
    assert "org.opencontainers.image.base.name=${BASE}" in text

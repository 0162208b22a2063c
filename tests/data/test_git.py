"""Tests of fetching the data folder of a git repository, by real git and real DVC."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from aupair.data.fetch import FetchSummary, fetch
from aupair.data.hashing import dvc_hash
from aupair.data.s3 import Patience
from aupair.errors import AupairError, AuthError, DataError, ParamsError, UnreachableError
from services.bucket import content, one_line, web_server, write
from services.clock import FakeClock
from services.flaky import flaky_proxy
from services.s3 import s3_server

QUICK = Patience(attempts=2, timeout=5, longest=60)


@dataclass(frozen=True)
class Origin:
    """A repository with two commits on main: the first, tagged v1, has other data; the branch bare has none.

    It also holds modules that would be run in place of DVC's, if its folder were searched for modules.
    """

    folder: Path
    first: str
    second: str

    @property
    def source(self) -> str:
        return f"git+file://{self.folder}"

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def dvc(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-P", "-m", "dvc", *arguments], cwd=self.folder, check=True, capture_output=True
        )

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--no-verify", "-m", "more")
        return self.git("rev-parse", "HEAD")

    def md5(self, revision: str) -> str:
        return str(yaml.safe_load(self.git("show", f"{revision}:data.dvc"))["outs"][0]["md5"])


ONE = {"a": b"a", "deep/b": b"b", "empty": b""}
TWO = {**ONE, "a": b"A", "new": b"n"}


@pytest.fixture(autouse=True, scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep DVC from the settings and caches of the machine."""
    own = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith(("DVC_", "GIT_", "AWS_"))]:
            patch.delenv(key)
        for key in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(key, str(own))
        patch.setenv("DVC_NO_ANALYTICS", "true")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, settings: None) -> Origin:
    """A repository with a DVC remote inside it, as this one has; tests do not change it."""
    folder = tmp_path_factory.mktemp("origin") / "repo"
    write(folder, {".dvc/config": b"[core]\n    analytics = false\n['remote \"demo\"']\n    url = ../demo\n"})
    write(folder, dict.fromkeys(("dvc.py", "yaml.py"), b"raise SystemExit('ran')"))
    write(folder, {".dvc/.gitignore": b"/cache\n/tmp\n/config.local\n", ".gitignore": b"/data\n"})
    origin = Origin(folder, "", "")
    origin.git("init", "-q", "-b", "main")
    commits = []
    for files in (ONE, TWO):
        write(folder / "data", files)
        origin.dvc("add", "-q", "data")
        origin.dvc("push", "-q", "-r", "demo", "data.dvc")
        commits.append(origin.commit())
    origin.git("tag", "v1", commits[0])
    origin.git("checkout", "-q", "-b", "bare")
    (folder / "data.dvc").unlink()
    origin.commit()
    origin.git("checkout", "-q", "main")
    return Origin(folder, *commits)


@pytest.fixture
def copied(origin: Origin, tmp_path: Path) -> Origin:
    """A copy of the repository to spoil, without a cache of its own."""
    folder = shutil.copytree(origin.folder, tmp_path / "origin")
    shutil.rmtree(folder / ".dvc" / "cache")
    shutil.rmtree(folder / "data")
    return Origin(Path(folder), origin.first, origin.second)


@pytest.mark.parametrize("revision", ["", "v1", "{first}", "{first:.8}"])
def test_a_revision_of_a_repository_brings_its_data(origin: Origin, tmp_path: Path, revision: str) -> None:
    first = revision != ""
    name = revision.format(first=origin.first)
    summary = fetch(origin.source, tmp_path / "out", revision=name, remote="demo", patience=QUICK)
    files, commit = (ONE, origin.first) if first else (TWO, origin.second)
    assert content(tmp_path / "out") == files
    assert summary == FetchSummary(origin.source, commit, len(files))
    assert dvc_hash(tmp_path / "out") == origin.md5(summary.commit), "what check-data finds is what data.dvc says"
    assert os.listdir(tmp_path) == ["out"], "no clone, no cache"
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    (tmp_path / "out" / "a").open("a").close()
    assert (tmp_path / "out" / "a").stat().st_mode & 0o222 == 0o200


def test_a_repository_without_the_revision_or_the_data_is_an_error(origin: Origin, tmp_path: Path) -> None:
    for revision in ("nix", "0123456789", "0123456789" * 4):
        with pytest.raises(DataError, match=f"no such revision: in file://.*, got {revision}, expected a branch"):
            fetch(origin.source, tmp_path / "out", revision=revision, patience=QUICK)
    with pytest.raises(DataError, match=r"no data\.dvc: in git\+file://.* at .*; run `dvc add data`"):
        fetch(origin.source, tmp_path / "out", revision="bare", patience=QUICK)
    for name in ("nix", "SSL", "Forbidden"):
        with pytest.raises(DataError, match=r"no such git repository.*does not appear to be a git repository"):
            fetch(f"git+file://{tmp_path}/{name}", tmp_path / "out", patience=QUICK)
    assert not (tmp_path / "out").exists()


def test_a_missing_remote_is_an_error(origin: Origin, tmp_path: Path) -> None:
    for remote, got in (("", "no default one"), ("nix", "nix")):
        with pytest.raises(ParamsError, match=f"no such DVC remote: .*got {got}; name one as remote"):
            fetch(origin.source, tmp_path / "out", remote=remote, patience=QUICK)


def objects(origin: Origin) -> Iterator[Path]:
    """Yield the remote's objects that are files of the data."""
    return (path for path in (origin.folder / "demo").rglob("*") if path.is_file() and path.suffix != ".dir")


def test_files_that_the_remote_lacks_are_an_error_and_a_later_call_pulls_only_them(
    copied: Origin, tmp_path: Path
) -> None:
    lacking = next(path for path in objects(copied) if path.read_text() == "A")
    lacking.unlink()
    copied.commit()
    with pytest.raises(DataError, match=r"the DVC remote lacks files.*failed to transfer.*dvc push") as caught:
        fetch(copied.source, tmp_path / "out", remote="demo", patience=QUICK)
    one_line(caught)
    assert not (tmp_path / "out").exists()
    pulled = {path.read_text() for path in (tmp_path / ".out.fetching" / "cache").rglob("*") if path.is_file()}
    assert pulled >= {"b", "n"}
    for path in objects(copied):
        path.chmod(0o644)
        path.write_text("must not be asked for again")
    lacking.write_text("A")
    copied.commit()
    fetch(copied.source, tmp_path / "out", remote="demo", patience=QUICK)
    assert content(tmp_path / "out") == TWO


def test_a_damaged_file_of_a_remote_is_an_error(copied: Origin, tmp_path: Path) -> None:
    spoilt = next(path for path in objects(copied) if path.read_text() == "A")
    spoilt.chmod(0o644)
    spoilt.write_text("X")
    copied.commit()
    with pytest.raises(DataError, match=f"does not match its checksum.*expected {copied.md5('main')}") as caught:
        fetch(copied.source, tmp_path / "out", remote="demo", patience=QUICK)
    one_line(caught)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.fetching" / "cache").exists(), "the next call would use the damaged file again"


def test_a_remote_in_a_bucket(
    origin: Origin, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Origin(Path(shutil.copytree(origin.folder, tmp_path / "origin")), origin.first, origin.second)
    md5_of_a = hashlib.md5(b"A").hexdigest()[2:]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server(tmp_path / "s3", ["dvc"]) as server:
        for key, value in server.environment().items():
            monkeypatch.setenv(key, value)
        with (copied.folder / ".dvc" / "config").open("a") as config:
            config.write("['remote \"s3\"']\n    url = s3://dvc/store\n")
        copied.dvc("push", "-q", "-r", "s3", "data.dvc")
        copied.commit()
        fetch(copied.source, tmp_path / "out", remote="s3", patience=QUICK)
        assert content(tmp_path / "out") == TWO
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        with pytest.raises(AuthError, match=r"the DVC remote refuses access.*Forbidden.*AWS_ACCESS_KEY_ID") as caught:
            fetch(copied.source, tmp_path / "out2", remote="s3", patience=QUICK)
        assert "hush" not in one_line(caught)
        assert clock.sleeps == []
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        with flaky_proxy(urlsplit(server.endpoint).port or 0) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            proxy.go_away()
            clock.on_sleep = proxy.listen
            fetch(copied.source, tmp_path / "out2", remote="s3", patience=QUICK)
            assert (content(tmp_path / "out2"), len(clock.sleeps)) == (TWO, 1)
            monkeypatch.setattr("aupair.retry._answered", set())
            clock.on_sleep = lambda: None
            proxy.lose = lambda request: md5_of_a in request and len(clock.sleeps) < 2
            fetch(copied.source, tmp_path / "out3", remote="s3", patience=QUICK)
    assert (content(tmp_path / "out3"), len(clock.sleeps)) == (TWO, 2), "other files came: the remote had answered"
    with pytest.raises(UnreachableError, match="the DVC remote does not answer"):
        fetch(copied.source, tmp_path / "out4", remote="s3", patience=replace(QUICK, outage=0.0))


@pytest.mark.parametrize(
    ("status", "expected"), [(401, AuthError), (403, AuthError), (404, DataError), (503, UnreachableError)]
)
def test_a_git_server_s_refusal_is_an_error_without_the_password(
    tmp_path: Path, status: int, expected: type[AupairError]
) -> None:
    with web_server(lambda path: (status, b"")) as address:
        host = f"{address.removeprefix('http://')}/repo.git"
        for user in ("", "user:hush@"):
            with pytest.raises(expected, match=rf"in http://{host}, got") as caught:
                fetch(f"git+http://{user}{host}", tmp_path / "out", patience=QUICK)
            assert "hush" not in one_line(caught)
    assert b"hush" not in b"".join(content(tmp_path / ".out.fetching").values())


@pytest.mark.parametrize(
    ("patience", "expected"),
    [
        (Patience(longest=1), "git did not end, got 1 s"),
        (Patience(timeout=1, longest=60), "the git server does not answer"),
    ],
)
def test_a_git_server_that_hangs_is_an_error_in_time(tmp_path: Path, patience: Patience, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/hanging.git"
        start = time.monotonic()
        with pytest.raises(UnreachableError, match=expected):
            fetch(f"git+{url}", tmp_path / "out", patience=patience)
        assert time.monotonic() - start < 10


def test_a_machine_without_git_is_an_error(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AupairError, match="a program is not installed, got git; install git"):
        fetch(origin.source, tmp_path / "out", patience=QUICK)

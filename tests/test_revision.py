"""The commit that a report names, from the image or from the repository that the report lies in."""

import subprocess
from pathlib import Path

import pytest

from aupair.revision import COMMIT, DATE, Revision, get_revision


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as a user with a name, at a fixed time."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    environment = {"GIT_COMMITTER_DATE": "2026-03-04T23:30:00+0900", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a params file and the metrics of a run, both committed."""
    monkeypatch.delenv(COMMIT, raising=False)
    git(tmp_path, "init", "-q")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "metrics.json").write_text("{}\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "1")
    return tmp_path


def test_the_commit_of_a_folder_that_need_not_exist_with_the_day_of_its_committer(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    revision = get_revision(repository / "work" / "new")
    assert revision == Revision(head, "2026-03-04", False)
    assert str(revision) == f"{head[:12]} of 2026-03-04"


def test_what_a_run_writes_is_no_change_but_a_setting_is(repository: Path) -> None:
    (repository / "reports" / "metrics.json").write_text('{"a": 1}\n')
    (repository / "new.txt").write_text("not tracked\n")
    revision = get_revision(repository)
    assert revision is not None
    assert not revision.changed
    (repository / "params.yaml").write_text("seed: 2\n")
    revision = get_revision(repository / "reports")
    assert revision is not None
    assert revision.changed
    assert str(revision).endswith("of 2026-03-04, with uncommitted changes")


def test_an_image_knows_its_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMIT, "0123456789abcdef-dirty")
    assert str(get_revision(repository)) == "0123456789ab, with uncommitted changes"
    monkeypatch.setenv(DATE, "2026-01-02")
    assert get_revision(repository) == Revision("0123456789abcdef", "2026-01-02", True)


def test_no_repository_no_commit_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMIT, raising=False)
    assert get_revision(tmp_path) is None, "no repository"
    git(tmp_path, "init", "-q")
    assert get_revision(tmp_path) is None, "no commit yet"
    monkeypatch.setenv("PATH", "")
    assert get_revision(tmp_path) is None, "no git"

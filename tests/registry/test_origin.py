"""The origin of a run."""

import subprocess
from pathlib import Path

import pytest

from aupair.registry.origin import git_commit_tag, origin_tags


def test_the_commit_of_the_working_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=tmp_path, text=True).strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_commit_tag() == {}, "no repository"
    git("init", "-q")
    assert git_commit_tag() == {}, "no commit yet"
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "1", "--allow-empty")
    assert git_commit_tag() == {"git.commit": git("rev-parse", "HEAD")}
    (tmp_path / "dvc.lock").touch()
    assert git_commit_tag() == {"git.commit": git("rev-parse", "HEAD")}, "each run writes dvc.lock"
    (tmp_path / "params.yaml").touch()
    assert git_commit_tag() == {"git.commit": git("rev-parse", "HEAD") + "-dirty"}
    assert origin_tags("dvc repro")["mlflow.source.git.commit"].endswith("-dirty")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit_tag() == {}, "no git"


def test_a_job_on_a_cluster_has_no_user() -> None:
    assert "mlflow.user" in origin_tags("dvc repro")
    tags = origin_tags("aupair pipeline", is_job=True)
    assert "mlflow.user" not in tags
    assert tags["mlflow.source.type"] == "JOB"

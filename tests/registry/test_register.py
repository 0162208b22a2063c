"""What register-model logs beside the bundle; the rest is in test_versions, on a real store."""

import subprocess
from pathlib import Path

import pytest

from aupair.registry.register import git_commit, headline


def test_the_parent_run_has_a_handful_of_metrics_and_evaluate_all_of_them() -> None:
    names = ("all-zero", "best-constant", "no-uncertainty", "P1", "P2")
    figures = {"score": 0.1, "f1": 0.2, "accuracy": 0.3, "exact_match": 0.4, "per_au": {"AU1": {"f1": 0.5}}}
    evidence = {
        "pair_accuracy": {"clear": None, "mean": 0.6, "per_au": {"AU1": 0.6}},
        "uncertainty": {
            "pair_nll": {"h": 1, "constant": 2, "constant_select": 3},
            "gain_at_80": {"sigma": 4},
            "ece": 5,
        },
    }
    rows = [{"name": name, "split": split, **figures} for name in names for split in ("select", "validation")]
    found = headline({"rows": rows, **evidence, "select": evidence})
    expected = {
        f"rows.{name}.{split}.{key}": figures[key]
        for name in names[1:]
        for split in ("select", "validation")
        for key in ("score", "f1", "accuracy")
    }
    more = {"pair_nll.h": 1, "pair_nll.constant": 2, "gain_at_80.sigma": 4}
    assert found == {**expected, "pair_accuracy.mean": 0.6, **{f"uncertainty.{k}": v for k, v in more.items()}}


def test_the_commit_of_the_working_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=tmp_path, text=True).strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_commit() == {}, "no repository"
    git("init", "-q")
    assert git_commit() == {}, "no commit yet"
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "1", "--allow-empty")
    assert git_commit() == {"git.commit": git("rev-parse", "HEAD")}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == {}, "no git"

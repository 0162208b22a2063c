"""A project whose dvc.lock is committed: metrics, experiments beside the checkout, and a colleague's clone.

The results are those of the flow that ran in one process; DVC takes them over without running a stage.
"""

import csv
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from aupair import stages, store
from aupair.params import Params
from test_dvc import TRIALS, call, ran

pytestmark = pytest.mark.slow

Environment = dict[str, str]


def commit(folder: Path, environment: Environment, message: str) -> None:
    """Commit everything that git does not ignore."""
    author = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    call(folder, environment, "git", "add", "-A")
    call(folder, environment, "git", *author, "commit", "-q", "--no-verify", "-m", message)


def versions(folder: Path, environment: Environment) -> int:
    """Return the number of registered versions."""
    return len(re.findall(r"^│ +\d+ ", call(folder, environment, "aupair", "registry", "list"), re.MULTILINE))


@pytest.fixture(scope="module")
def team(clone: Callable[[str], Path], finished: Path, tiny: Params, environment: Environment) -> Path:
    """A copy of the repository with the results of a finished flow, after `dvc repro` and a commit of its lock."""
    folder = clone("team")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny.model_dump(mode="json"), sort_keys=False))
    for name in ("data", "work", "reports"):
        shutil.copytree(finished / name, folder / name)
    names = [
        f"{stage.name}@{trial}" if stage.per_trial else stage.name
        for stage in stages.FLOW[:-1]
        for trial in (TRIALS if stage.per_trial else (0,))
    ]
    call(folder, environment, "dvc", "add", "-q", "data")
    call(folder, environment, "dvc", "commit", "-q", "-f", *names)
    assert ran(call(folder, environment, "dvc", "repro")) == ["register-model"]
    commit(folder, environment, "results")
    return folder


def test_a_repro_that_does_nothing_leaves_git_clean(team: Path, environment: Environment) -> None:
    assert ran(call(team, environment, "dvc", "repro")) == ["register-model"]
    assert call(team, environment, "git", "status", "--porcelain") == ""
    assert versions(team, environment) == 1


def test_the_metric_is_the_summary(team: Path, environment: Environment) -> None:
    shown = json.loads(call(team, environment, "dvc", "metrics", "show", "--json"))
    assert shown[""]["data"] == {"reports/summary.json": {"data": store.read_json(team / "reports" / "summary.json")}}


def test_experiments_run_beside_the_checkout_and_register_nothing(team: Path, environment: Environment) -> None:
    """One in a temporary copy and one from the queue: DVC commits both, and both are in the MLflow store of the checkout."""
    call(team, environment, "dvc", "exp", "run", "-n", "copied", "-S", "evaluate.tie=0.02", "--temp")
    call(team, environment, "dvc", "exp", "run", "-n", "queued", "-S", "evaluate.tie=0.03", "--queue")
    call(team, environment, "dvc", "exp", "run", "--run-all")
    shown = call(team, environment, "dvc", "exp", "show", "--csv", "--no-pager")
    rows = {row["Experiment"]: row for row in csv.DictReader(shown.splitlines())}
    assert {name: float(rows[name]["evaluate.tie"]) for name in ("copied", "queued")} == {
        "copied": 0.02,
        "queued": 0.03,
    }
    assert all(rows[name]["f1"] and rows[name]["pair_nll"] for name in ("copied", "queued"))
    assert call(team, environment, "git", "status", "--porcelain") == ""
    assert versions(team, environment) == 1
    with closing(sqlite3.connect(team / "mlflow.db")) as database:
        names = " ".join(name for (name,) in database.execute("select name from runs"))
    assert all(name in names for name in ("copied", "queued"))


def test_a_colleague_has_reports_and_predictions_without_training(
    team: Path, environment: Environment, tmp_path: Path
) -> None:
    call(team, environment, "dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    call(team, environment, "dvc", "push", "-q")
    commit(team, environment, "remote")
    call(tmp_path, environment, "git", "clone", "-q", str(team), "colleague")
    other = tmp_path / "colleague"
    call(other, environment, "dvc", "pull", "-q")
    assert call(other, environment, "aupair", "report") == call(team, environment, "aupair", "report")
    for folder in (team, other):
        call(
            folder,
            environment,
            "aupair",
            "predict",
            "data/videos/s003c0.mp4",
            "--model",
            "work/bundle",
            "--out",
            "predictions",
        )
    here, there = ((folder / "predictions" / "s003c0.csv").read_bytes() for folder in (team, other))
    assert here == there
    assert call(other, environment, "git", "status", "--porcelain") == ""
    assert not (other / "mlflow.db").exists(), "nothing was trained or registered"

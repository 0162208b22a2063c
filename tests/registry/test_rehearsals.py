"""A DVC experiment and a pipeline's run on this machine are logged, and register nothing unless asked."""

from pathlib import Path
from typing import Any

import pytest

from aupair.params import Params, parse_params
from aupair.registry import mlflow_store, versions
from aupair.registry.register import _Registration, register_bundle
from aupair.registry.runs import StageRun
from bundle_parts import write_parts


def register(home: Path, rehearsals: bool) -> _Registration:
    """Run register-model on parts of which nothing is loaded."""
    (home / "table.md").write_text("the table\n")
    stages = [StageRun("evaluate", metrics={"score": 0.6})]
    return register_bundle(
        home / "bundle", write_parts(home / "work"), stages, [home / "table.md"], settings(rehearsals)
    )


def settings(rehearsals: bool) -> Params:
    return parse_params({"register_model": {"rehearsals": rehearsals}})


def runs(client: Any) -> list[str]:
    """Return the stages of all runs."""
    experiment = client.get_experiment_by_name("aupair").experiment_id
    return sorted(run.data.tags["stage"] for run in client.search_runs([experiment]))


@pytest.mark.parametrize(("variable", "value"), [("DVC_EXP_NAME", "urban-sial"), ("KFP_RUN_ID", "local-20261130-1")])
def test_a_rehearsal_is_logged_and_registered_only_if_asked(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    done = register(tmp_path, rehearsals=False)
    client = mlflow_store.open_mlflow()
    assert (done.version, list(client.search_model_versions("name = 'aupair'"))) == (None, [])
    assert runs(client) == ["evaluate", "flow"]
    assert (tmp_path / "bundle" / "selection.json").exists()
    monkeypatch.setenv(variable, f"{value}-asked")  # a run of a pipeline has one set of params
    assert register(tmp_path, rehearsals=True).version == 1
    assert versions.get_version(1, "aupair").aliases == ("challenger",)


def test_a_rehearsal_leaves_the_alias_of_a_registered_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = register(tmp_path, rehearsals=False)
    assert first.version == 1
    mlflow_store.open_mlflow().delete_registered_model_alias("aupair", "challenger")
    monkeypatch.setenv("DVC_EXP_NAME", "urban-sial")
    assert register(tmp_path, rehearsals=False).sha256 == first.sha256
    assert versions.get_version(1, "aupair").aliases == ()


@pytest.mark.parametrize("below", ["", "faces"])
def test_an_experiment_in_a_temporary_copy_uses_the_store_of_the_checkout(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, copy = tmp_path / "checkout", tmp_path / "checkout" / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    (copy / below).mkdir(exist_ok=True)
    monkeypatch.chdir(copy / below)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    assert mlflow_store.tracking_uri() == f"sqlite:///{copy / below / 'mlflow.db'}", "no experiment"
    monkeypatch.setenv("DVC_EXP_NAME", "urban-sial")
    assert mlflow_store.tracking_uri() == f"sqlite:///{checkout / below / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    assert mlflow_store.tracking_uri() == "sqlite:////elsewhere/mlflow.db"

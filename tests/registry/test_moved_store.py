"""A store that was moved or renamed, one of another MLflow, and an experiment that was deleted."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aupair.errors import RegistryError
from aupair.registry import mlflow_store, moved_store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, in which a run has an artifact."""
    folder = tmp_path / "home"
    folder.mkdir()
    client = open_store(folder, monkeypatch)
    experiment = mlflow_store.get_or_create_experiment(client, "aupair")
    run = client.create_run(experiment, run_name="one")
    (tmp_path / "table.md").write_text("the table")
    client.log_artifact(run.info.run_id, str(tmp_path / "table.md"))
    return folder


def open_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return mlflow_store.open_mlflow(create=True)


def the_run(client: Any) -> Any:
    experiment = client.get_experiment_by_name("aupair")
    return client.search_runs([experiment.experiment_id])[0]


def test_artifacts_are_found_again_after_the_folder_was_renamed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = home.rename(home.parent / "another name")
    client = open_store(renamed, monkeypatch)
    run = the_run(client)
    assert run.info.artifact_uri.startswith(str(renamed / "mlruns"))
    downloaded = client.download_artifacts(run.info.run_id, "table.md", str(home.parent))
    assert Path(downloaded).read_text() == "the table"
    new = client.create_run(run.info.experiment_id)
    assert new.info.artifact_uri.startswith(str(renamed)), "new runs, too"


def test_a_copy_leaves_the_original_alone_and_a_store_without_its_artifacts_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = the_run(open_store(home, monkeypatch)).info.artifact_uri
    copy = Path(shutil.copytree(home, home.parent / "copy"))
    assert the_run(open_store(copy, monkeypatch)).info.artifact_uri == before, "the recorded folder exists"
    (home / "mlruns").rename(home.parent / "kept")
    assert the_run(open_store(home, monkeypatch)).info.artifact_uri == before, "there is nothing beside the database"


def test_missing_files_are_named_with_their_place(tmp_path: Path) -> None:
    moved_store.check_files_exist(f"file://{tmp_path}", "models:/aupair/1")
    moved_store.check_files_exist("s3://bucket/mlruns", "models:/aupair/1")
    with pytest.raises(RegistryError, match="files of this model are missing") as caught:
        moved_store.check_files_exist(f"{tmp_path}/mlruns/models/m-1/artifacts", "models:/aupair/1")
    assert f"{tmp_path}/mlruns/models/m-1/artifacts" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("revision", "said"), [("ffffffffffff", "newer"), ("f5a4f2784254", "older")])
def test_a_store_of_another_mlflow_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, revision: str, said: str
) -> None:
    other = Path(shutil.copytree(home, home.parent / said))
    with sqlite3.connect(other / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    with pytest.raises(RegistryError, match=f"the store is {said} than MLflow") as caught:
        open_store(other, monkeypatch)
    assert "\n" not in str(caught.value)
    assert ("upgrade sqlite:///" in str(caught.value)) == (said == "older"), "a newer one cannot be upgraded"


def test_a_deleted_experiment_is_one_line_that_says_how_to_restore_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_store(home, monkeypatch)
    number = the_run(client).info.experiment_id
    client.delete_experiment(number)
    with pytest.raises(RegistryError, match=f"mlflow experiments restore --experiment-id {number}"):
        mlflow_store.get_or_create_experiment(client, "aupair")

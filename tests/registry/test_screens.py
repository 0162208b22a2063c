"""What MLflow's screens show of a flow and of a version: descriptions, data, tags for people. On a real store."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.errors import RegistryError
from aupair.params import Params
from aupair.registry import descriptions, mlflow_store, versions
from aupair.registry.dataset import describe_data
from aupair.registry.register import _serving_example, _serving_signature, register_bundle
from aupair.registry.runs import StageRun
from bundle_parts import write_parts

COUNT = {"subjects": 3, "videos": 4, "frames": 1200, "annotated": 1000, "positives": {"AU1": 7}}
INFO = {"md5": "83e181c8c4bc4dd2c0c8cc151e2fd7e8.dir", "counts": {"fit": COUNT, "validation": COUNT}}
NOTE = "mlflow.note.content"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A registered version: its client, its entry, its flow's run, its logged model, and a function that repeats it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        parts = write_parts(home / "work")
        metrics = store.read_json(parts.metrics)
        for row in metrics["rows"]:
            row |= {"intervals": {"score": [0.5, 0.7]}}
            row["per_au"] = {au: {**figures, "f1_interval": [0.4, 0.6]} for au, figures in row["per_au"].items()}
        store.write_json(parts.metrics, metrics)
        store.write_json(parts.data, INFO)

        def register() -> Any:
            done = register_bundle(home / "bundle", parts, [StageRun("check-data", data=INFO)], (), Params())
            client = mlflow_store.open_mlflow()
            entry = client.get_model_version("aupair", str(done.version))
            run, model = client.get_run(entry.run_id), client.get_logged_model(entry.source.removeprefix("models:/"))
            return SimpleNamespace(client=client, entry=entry, run=run, model=model, register=register)

        yield register()


def test_the_data_is_an_input_of_the_run_with_its_hash_and_its_counts(registered: Any) -> None:
    (logged,) = registered.run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("data", INFO["md5"])
    profile = json.loads(logged.dataset.profile)
    assert profile["num_rows"] == 2400
    assert profile["splits"]["fit"] == COUNT
    assert [tag.value for tag in logged.tags] == ["fit, validation"]
    assert not [path for path in registered.client.list_artifacts(registered.run.info.run_id) if "data" in path.path]


def test_the_models_metrics_name_the_data_they_were_measured_on(registered: Any) -> None:
    (score,) = (metric for metric in registered.model.metrics if metric.key == "validation/score")
    assert (score.value, score.dataset_name, score.dataset_digest) == (0.6, "data", INFO["md5"])
    history = registered.client.get_metric_history(registered.run.info.run_id, "validation/score")
    assert len(history) == 1, "one point of the run"


def test_a_version_begins_with_the_table_of_its_aus_and_says_how_it_is_used(registered: Any) -> None:
    lines = registered.entry.description.splitlines()
    assert lines[0].startswith("| AU | uncertainty decides | F1 of P1 | F1 of P2 |")
    assert lines[2] == "| AU1 | yes | 0.500 | 0.500 | [0.400, 0.600] |"
    assert lines[5].startswith("| AU6 | no |")
    for text in ("0.600 [0.500, 0.700]", INFO["md5"], "models:/aupair/1", "iBUG 300-W", "| fit | 3 | 4 | 1,200 |"):
        assert text in registered.entry.description


def test_experiment_run_and_model_are_described_and_an_edited_text_stays(registered: Any) -> None:
    client, experiment = registered.client, registered.run.info.experiment_id
    assert "select/f1" in client.get_experiment(experiment).tags[NOTE]
    assert registered.run.data.tags[NOTE].startswith("| AU |")
    assert "champion" in client.get_registered_model("aupair").description
    client.update_registered_model("aupair", "Ours.")
    client.set_experiment_tag(experiment, NOTE, "Ours, too.")
    registered.register()
    descriptions.describe_experiment(client, experiment)
    assert client.get_registered_model("aupair").description == "Ours."
    assert client.get_experiment(experiment).tags[NOTE] == "Ours, too."


def visible(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the tags that MLflow's pages show, which hide its own."""
    return [(key, text) for key, text in tags.items() if not key.startswith("mlflow.")]


def test_the_tags_that_people_read_come_first(registered: Any) -> None:
    expected = {
        "Score": "0.600 [0.500, 0.700]",
        "Choices": "all without uncertainty, but AU1, AU2, AU4",
        "Network": "vgg16",
        "Data": "83e181, 6 people, 8 videos, 2,400 frames",
        "Licence": "not commercial (MTCNN, dlib, pretrained weights); the data's own",
    }
    version, run, model = (visible(own.tags) for own in (registered.entry, registered.run.data, registered.model))
    assert version[:5] == run[:5] == list(expected.items()), "in the order of creation: lists, and pages of runs"
    assert sorted(version)[:5] == sorted(model)[:5] == sorted(expected.items()), "sorted: the page of a version"
    assert not [key for key in registered.entry.tags if key.startswith("f1.AU") or key.endswith(".difference")]
    untrained = Params.model_validate({"train_pseudo_intensity": {"network": {"weights": "none"}}})
    assert descriptions._licence(untrained) == "not commercial (MTCNN, dlib); the data's own"
    assert describe_data({"md5": "abcdefgh"}) == "abcdef"


def test_the_logged_model_knows_its_version_also_after_a_kill(registered: Any) -> None:
    tag = [{"name": "aupair", "version": 1}]
    assert json.loads(registered.model.tags[descriptions.MODEL_VERSIONS]) == tag
    registered.client.delete_logged_model_tag(registered.model.model_id, descriptions.MODEL_VERSIONS)
    registered.client.update_model_version("aupair", "1", "")
    again = registered.register()
    assert json.loads(again.model.tags[descriptions.MODEL_VERSIONS]) == tag
    assert again.entry.description.startswith("| AU |")
    assert len(versions.list_versions("aupair")) == 1


def test_serving_has_an_example_and_no_default_for_fps(registered: Any) -> None:
    (fps,) = _serving_signature(Params(), ["AU1"]).params
    assert (fps.name, fps.default) == ("fps", None)
    files = {path.path for path in registered.client.list_logged_model_artifacts(registered.model.model_id)}
    assert "input_example.json" in files
    assert len(np.unique(_serving_example(32)[0])) >= 16, "what is served refuses faces of a few values"


def test_a_version_is_found_after_its_store_was_renamed_and_missing_files_are_named(
    registered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(Path.cwd(), tmp_path / "renamed")
    (Path.cwd() / "mlruns").rename(tmp_path / "elsewhere")  # as if the folder had been renamed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    assert versions.resolve_bundle("models:/aupair/1").is_relative_to(home)
    shutil.rmtree(home / "mlruns")
    with pytest.raises(RegistryError, match=r"the files of this model are missing: in .*/renamed/mlruns/models"):
        versions.resolve_bundle("models:/aupair/1")

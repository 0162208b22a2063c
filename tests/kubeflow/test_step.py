"""A stage inside its component reads and writes KFP's artifacts, and computes what it computes elsewhere."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aupair import stages, store
from aupair.errors import DataError, ParamsError, RunFailedError
from aupair.kubeflow import step
from aupair.kubeflow.compile import importable_pipelines
from aupair.params import Params
from aupair.stage import ARTIFACTS
from conftest import REPOSITORY
from kfp_artifact import Artifact


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a component's plain function."""
    monkeypatch.delenv("KFP_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)

    def get(name: str) -> Any:
        with importable_pipelines(REPOSITORY):
            return getattr(importlib.import_module(f"components.{name}"), name).python_func

    return get


def at(root: Path, name: str, trial: int = 0) -> Path:
    """Return the place of an artifact in a checkout."""
    return root / ARTIFACTS[name].format(trial=trial)


def whole(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a section as KFP passes it: every number is a float."""
    return {
        key: whole(value) if isinstance(value, dict) else float(value) if type(value) is int else value
        for key, value in tree.items()
    }


def test_a_component_is_a_function_that_gives_the_stages_bytes(
    function: Callable[[str], Any], finished: Path, tiny: Params, tmp_path: Path
) -> None:
    pairs = Artifact(tmp_path / "out" / "pairs")
    function("sample_pairs")(
        seed=0, sample_pairs=whole(tiny.sample_pairs.model_dump()),
        labels=Artifact(at(finished, "labels")), faces=Artifact(at(finished, "faces")), pairs=pairs,
    )  # fmt: skip
    for path in at(finished, "pairs").iterdir():
        assert (Path(pairs.path) / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pairs"], "no temporary file is left"
    assert pairs.metadata["aupair"]


def test_training_shows_scores_and_curves(
    function: Callable[[str], Any], finished: Path, tiny: Params, tmp_path: Path
) -> None:
    mapping, scores, curves = (Artifact(tmp_path / name) for name in ("mapping", "scores", "curves"))
    function("train_mapping")(
        seed=0, target="occurrence", train_mapping=whole(tiny.train_mapping.model_dump()),
        labels=Artifact(at(finished, "labels")), faces=Artifact(at(finished, "faces")),
        features=Artifact(at(finished, "features")), mapping=mapping, scores=scores, curves=curves,
    )  # fmt: skip
    for path in at(finished, "mapping").iterdir():
        assert (Path(mapping.path) / path.name).read_bytes() == path.read_bytes()
    last = store.read_jsonl(Path(mapping.path) / "curves.jsonl")[-1]
    assert scores.metadata == {name: value for name, value in last.items() if name != "epoch"}, "the last values"
    assert {
        f"{route}.{loss}" for route in tiny.extract_features.routes for loss in ("train_loss", "select_loss")
    } == set(scores.metadata)
    page = Path(curves.path).read_text()
    assert page.count("<svg") == 2, "the losses on fit and on select"
    assert "http" not in page.replace("http-equiv", "")


def test_trials_are_ordered_by_their_metadata(
    function: Callable[[str], Any], finished: Path, tiny: Params, tmp_path: Path
) -> None:
    """KFP happens to collect in the loop's order; nothing guarantees that order."""
    gathered = {"f": [Artifact(at(finished, "f", trial), trial=float(trial)) for trial in (1, 0)]}
    names = ("data", "labels", "info", "faces", "pairs", "h", "features", "mapping")
    one = {name: Artifact(at(finished, name)) for name in names}
    written = ("selection", "summary", "metrics", "draws", "table", "plots", "report")
    out = {name: Artifact(tmp_path / name) for name in written}
    networks = {"trials": [0.0, 1.0], "ensemble": "all"}
    settings = {"target": "occurrence", **networks, "evaluate": whole(tiny.evaluate.model_dump())}
    function("evaluate")(**settings, **one, **gathered, **out)
    for name in ("selection", "summary", "metrics", "draws", "table", "report"):
        assert Path(out[name].path).read_bytes() == at(finished, name).read_bytes(), name
    assert out["summary"].metadata == store.read_json(at(finished, "summary")), "numbers alone"


def test_a_stage_that_fails_leaves_nothing(function: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    out = {name: Artifact(tmp_path / "out" / name) for name in ("labels", "info", "data_docs")}
    with pytest.raises(DataError):
        function("check_data")(aus="all", target="occurrence", check_data={}, data=Artifact(tmp_path / "data"), **out)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("section", "message"),
    [({"epochs": 2.5}, r"parameter train_mapping.epochs: in the arguments of train-mapping, got 2.5"),
     ({"epoch": 2.0}, r"unknown parameter: in the arguments of train-mapping, got train_mapping.epoch; did you mean")],
)  # fmt: skip
def test_whole_floats_are_ints_and_others_are_refused(section: dict[str, float], message: str) -> None:
    stage = stages.get_stage("train-mapping")
    good = step.params_for(stage, {"seed": 3, "train_mapping": {"epochs": 2.0}}, None)
    assert (good.seed, good.train_mapping.epochs) == (3, 2)
    assert isinstance(good.train_mapping.epochs, int)
    with pytest.raises(ParamsError, match=message):
        step.params_for(stage, {"train_mapping": section}, None)


@pytest.mark.slow
def test_stage_fails_if_its_processes_fail(
    function: Callable[[str], Any], finished: Path, tiny: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs were drawn from other faces, so both processes refuse them."""
    monkeypatch.setenv("AUPAIR_PROCESSES", "2")
    pairs = Path(shutil.copytree(at(finished, "pairs"), tmp_path / "pairs"))
    store.write_json(pairs / "counts.json", {**store.read_json(pairs / "counts.json"), "fingerprint": "another"})
    given = {
        "labels": Artifact(at(finished, "labels")),
        "faces": Artifact(at(finished, "faces")),
        "pairs": Artifact(pairs),
        "embeddings": Artifact(at(finished, "embeddings")),
    }
    out = {name: Artifact(tmp_path / "out" / name) for name in ("f", "scores", "curves")}
    section = tiny.train_pseudo_intensity.model_dump()
    with pytest.raises(RunFailedError, match="train-pseudo-intensity on 2 processes, got exit code"):
        function("train_pseudo_intensity")(seed=0, trial=0, train_pseudo_intensity=section, **given, **out)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["shared", "integrated"])
def test_two_processes_in_a_component_train_what_one_trains(
    function: Callable[[str], Any], finished: Path, tiny: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    sharing: str,
) -> None:  # fmt: skip
    """As in a pod with two GPUs, here on the CPU; without dropout, whose masks differ between processes.

    The tolerance: two processes sum gradients in another order than one, and which kernels run depends on the CPU. The
    curves are float32, and Adam divides a gradient by its size, so that a rounding error of a gradient near zero can move
    a weight by as much as the learning rate (.003) in each of the three steps. Losses of .9798 and .9795, and, with
    a second loss, of 1.743 and 1.736 have been observed.
    tests/ranking/test_distributed.py compares in float64 with a tolerance of 3e-7. A task has f's section alone, which fits
    no default of h's if sigma is f's second output.
    """
    section = tiny.train_pseudo_intensity.model_dump()
    section["network"] |= {"dropout": 0.0, "sharing": sharing}
    curves = {}
    for processes in (1, 2):
        monkeypatch.setenv("AUPAIR_PROCESSES", str(processes))
        given = {name: Artifact(at(finished, name)) for name in ("labels", "faces", "pairs", "embeddings")}
        out = {name: Artifact(tmp_path / str(processes) / name) for name in ("f", "scores", "curves")}
        function("train_pseudo_intensity")(seed=0, trial=0, train_pseudo_intensity=section, **given, **out)
        curves[processes] = store.read_jsonl(Path(out["f"].path) / "curves.jsonl")
    for one, two in zip(curves[1], curves[2], strict=True):
        assert (two["network"], two["step"]) == (one["network"], one["step"])
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)

"""As many trials and shards as are allowed fit into one argument of a process; some more would not."""

import json
from pathlib import Path
from typing import Any

import pytest

from aupair.errors import ParamsError
from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.limits import MAX_SHARDS, MAX_TRIALS
from aupair.kubeflow.pipeline_file import read_pipeline_file
from aupair.kubeflow.shards import write_shard_plan
from aupair.params import Params, load_params
from conftest import REPOSITORY
from kfp_artifact import Artifact
from kubeflow_options import EVERY_OPTION
from services.kfp_arguments import LIMIT, Sizes, executor_input, measure_task

PAPER = load_params(REPOSITORY / "params/paper.yaml")


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the first documents of both pipelines, with the paper's params and every option of a cluster."""
    folder, specs = tmp_path_factory.mktemp("limits"), {}
    for name in ("train", "predict"):
        compile_pipeline(name, PAPER, load_cluster(None, EVERY_OPTION), folder / f"{name}.yaml", REPOSITORY)
        specs[name] = read_pipeline_file(folder / f"{name}.yaml").spec
    return specs


@pytest.fixture(scope="module")
def measure(specs: Any) -> Any:
    """Return a function that measures a task for a number of trials, or shards."""

    def measure(task: str, number: int) -> Sizes:
        if task == "gather-predictions":
            return measure_task(specs["predict"], task, {}, number, {})
        values = PAPER.model_dump(mode="json") | {"trials": list(range(number))}
        return measure_task(
            specs["train"], task, values, number, {"aupair": "0.1.0", "git_commit": "0" * 40, "trial": 9}
        )

    return measure


def test_what_is_measured_is_what_the_real_driver_writes(specs: Any) -> None:
    real = json.loads((Path(__file__).parent / "real" / "executor_input_kfp_2.17.0.json").read_text())["executor_input"]
    ours = executor_input(specs["predict"], "gather-predictions", {}, 3, {})
    assert _shape(json.loads(ours)) == _shape(json.loads(real))
    assert json.dumps(json.loads(real), separators=(", ", ":")) == real, "a space after each comma"
    assert json.dumps(json.loads(ours), separators=(", ", ":")) == ours


def _shape(value: Any) -> Any:
    """Return the keys and types of a tree."""
    if isinstance(value, dict):
        return {key: _shape(child) for key, child in value.items()}
    return [_shape(child) for child in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("task", "most"), [("evaluate", MAX_TRIALS), ("register-model", MAX_TRIALS), ("gather-predictions", MAX_SHARDS)]
)
def test_the_largest_list_fits_and_a_longer_one_does_not(measure: Any, task: str, most: int) -> None:
    sizes = measure(task, most)
    assert sizes.argument < sizes.template < LIMIT
    assert measure(task, most * 5 // 4).template > LIMIT, "the limit is not smaller than it must be"


def test_more_are_refused_before_anything_runs(tmp_path: Path, tiny: Params) -> None:
    many = tiny.model_copy(update={"trials": tuple(range(MAX_TRIALS + 1))})
    with pytest.raises(ParamsError, match=r"too many trials, got 81, expected at most 80, .* `dvc repro`"):
        compile_pipeline("train", many, load_cluster(None), tmp_path / "x.yaml", REPOSITORY)
    with pytest.raises(ParamsError, match="too many shards, got 101, expected at most 100"):
        write_shard_plan(str(tmp_path), "x", MAX_SHARDS + 1, Artifact(tmp_path / "plan"))
    assert not list(tmp_path.iterdir())

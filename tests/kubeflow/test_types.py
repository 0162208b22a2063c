"""Every argument in the compiled pipelines is of the type of the input that it goes to, by the rules of KFP's driver."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from aupair.kubeflow.cluster import Cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.pipeline_file import read_pipeline_file
from aupair.params import Params
from conftest import REPOSITORY
from services.kfp_driver import type_errors


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> dict[str, Any]:
    """Return the first documents of both pipelines."""
    folder = tmp_path_factory.mktemp("types")
    for name in ("train", "predict"):
        compile_pipeline(name, tiny, Cluster(), folder / f"{name}.yaml", REPOSITORY)
    return {name: dict(read_pipeline_file(folder / f"{name}.yaml").spec) for name in ("train", "predict")}


@pytest.mark.parametrize("name", ["train", "predict"])
def test_every_argument_has_the_type_of_its_input(specs: dict[str, Any], name: str) -> None:
    assert type_errors(specs[name]) == []


@pytest.mark.parametrize(("name", "item"), [("train", "trials"), ("predict", "plan-shards-Output")])
def test_the_items_of_a_loop_are_integers(specs: dict[str, Any], name: str, item: str) -> None:
    inputs = specs[name]["components"]["comp-for-loop-2"]["inputDefinitions"]["parameters"]
    assert inputs[f"pipelinechannel--{item}-loop-item"]["parameterType"] == "NUMBER_INTEGER"


@dsl.component(base_image="none", install_kfp_package=False)
def _train(trial: int) -> None:
    """Train one trial."""


@dsl.component(base_image="none", install_kfp_package=False)
def _plan() -> list:
    """Return trials without the type of their items."""
    return [0, 1]


@dsl.component(base_image="none", install_kfp_package=False)
def _finish(status: dsl.PipelineTaskFinalStatus) -> None:
    """End the run."""


def test_items_of_a_bare_list_are_refused(tmp_path: Path) -> None:
    """The former pipelines: kfp compiles the items of `list` as STRING, the driver makes "0" of 0 and refuses it."""

    @dsl.pipeline(name="bare-lists")
    def pipeline(trials: list = [0, 1]) -> None:  # noqa: B006
        with dsl.ExitHandler(_finish()):
            with dsl.ParallelFor(trials) as trial:
                _train(trial=trial)
            with dsl.ParallelFor(_plan().output) as planned:
                _train(trial=planned)

    compiler.Compiler().compile(pipeline, str(tmp_path / "bare.yaml"))
    assert type_errors(yaml.safe_load((tmp_path / "bare.yaml").read_text())) == [
        'root/exit-handler-1/for-loop-2/train: input parameter "trial" type mismatch: expect NUMBER_INTEGER, got string',
        'root/exit-handler-1/for-loop-3/train-2: input parameter "trial" type mismatch: '
        "expect NUMBER_INTEGER, got string",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("root", "inputDefinitions", "parameters", "seed", "defaultValue"), "0",
         'root: input parameter "seed" type mismatch: expect NUMBER_INTEGER, got string'),
        (("root", "inputDefinitions", "parameters", "check_data", "parameterType"), "LIST",
         'root/exit-handler-1: input parameter "pipelinechannel--check_data" type mismatch: expect STRUCT, got list'),
        (("components", "comp-evaluate", "inputDefinitions", "parameters", "trials", "parameterType"), "STRUCT",
         'evaluate: input parameter "trials" type mismatch: expect STRUCT, got list'),
        (("components", "comp-summarise", "inputDefinitions", "parameters", "status", "parameterType"), "BOOLEAN",
         'root/summarise: input parameter "status" type mismatch: expect BOOLEAN, got struct'),
        (("components", "comp-for-loop-2", "dag", "tasks", "train-pseudo-intensity", "inputs", "parameters", "seed"),
         {"runtimeValue": {"constant": True}},
         'train-pseudo-intensity: input parameter "seed" type mismatch: expect NUMBER_INTEGER, got bool'),
        (("components", "comp-for-loop-2", "dag", "tasks", "train-pseudo-intensity", "inputs", "parameters"), {},
         'train-pseudo-intensity: neither value nor default value provided for non-optional parameter "seed"'),
        (("components", "comp-exit-handler-1", "dag", "tasks", "for-loop-2", "parameterIterator", "items"),
         {"raw": '[0, "1"]'},
         'for-loop-2: input parameter "pipelinechannel--trials-loop-item" type mismatch: '
         "expect NUMBER_INTEGER, got string"),
    ],
)  # fmt: skip
def test_a_wrong_type_anywhere_shows(specs: dict[str, Any], path: tuple[str, ...], value: Any, message: str) -> None:
    spec = copy.deepcopy(specs["train"])
    *parents, last = path
    tree = spec
    for key in parents:
        tree = tree[key]
    tree[last] = value
    assert any(error.endswith(message) for error in type_errors(spec))

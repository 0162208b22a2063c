"""The arguments of a run are checked against the compiled file before anything is run or sent; plan says what will."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aupair.errors import ArtifactError, ParamsError
from aupair.kubeflow import cluster as clusters
from aupair.kubeflow import plan as plans
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.compiled import Compiled, arguments, changes, load
from aupair.params import Params

Command = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Compiled:
    path = tmp_path_factory.mktemp("compiled") / "train.yaml"
    options = clusters.load(REPOSITORY / "params/cluster.yaml", ["image=example.org/aupair:1", "cache=true"])
    compile_pipeline("train", tiny, options, path, REPOSITORY)
    return load(path)


def test_only_what_is_given_is_sent_and_a_section_whole(train: Compiled, tiny: Params) -> None:
    found = arguments(train, ["source=s3://b/p", "train_mapping.epochs=3", "trials=[0, 2]", "seed=7"])
    assert set(found) == {"source", "train_mapping", "trials", "seed"}
    assert found["train_mapping"] == {**tiny.train_mapping.model_dump(), "epochs": 3}
    assert (found["trials"], found["seed"]) == ([0, 2], 7)
    assert changes(train, found) == {"source": "s3://b/p", "train_mapping.epochs": 3, "trials": [0, 2], "seed": 7}


def test_text_stays_text(train: Compiled) -> None:
    found = arguments(train, ["source=/data/2021: x=y", "revision=1"])
    assert (found["source"], found["revision"]) == ("/data/2021: x=y", "1")


def test_a_deep_key_and_two_of_one_section(train: Compiled) -> None:
    found = arguments(
        train, ["source=x", "train_pseudo_intensity.optimiser.steps=9", "train_pseudo_intensity.device=cuda"]
    )
    section = found["train_pseudo_intensity"]
    assert (section["optimiser"]["steps"], section["device"]) == (9, "cuda")
    assert train.inputs["train_pseudo_intensity"].default["device"] == "cpu", "the file's own default is left alone"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["sourse=x"], "unknown parameter: in .*train.yaml, got sourse; did you mean source?"),
        (["source=x", "train_mapping.epoch=3"], "got train_mapping.epoch; did you mean epochs?"),
        (["source=x", "train_mapping.epochs=2.5"], "parameter train_mapping.epochs.*got 2.5"),
        (["source=x", "seed=x"], "parameter seed: in .*, got 'x', expected integer"),
        (["source=x", "seed=true"], "parameter seed.*got True"),
        (["source=x", "trials=3"], "parameter trials.*got 3, expected list"),
        (["source=x", "trials=[]"], "parameter trials"),
        (["source=x", "check_data"], "--param, got check_data, expected section.key=value"),
        (["source.x=3"], "unknown parameter.*got source"),
        (["source="], "parameter source, got nothing"),
        (["source=git+https://bob:hunter2@x/r.git"], "parameter source, got a URL with a user in it"),
        (["seed=1"], "a parameter without a value: in .*, got no source; give --param source=..."),
    ],
)
def test_a_wrong_argument_is_one_line(train: Compiled, given: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=message.replace("?", r"\?")):
        arguments(train, given)


def test_predictions_are_asked_for_in_the_types_that_kfp_takes(tmp_path: Path, tiny: Params) -> None:
    compile_pipeline("predict", tiny, clusters.Cluster(), tmp_path / "p.yaml", REPOSITORY)
    predict = load(tmp_path / "p.yaml")
    found = arguments(predict, ["source=x", "abstain=1"])
    assert (found["abstain"], type(found["abstain"])) == (1.0, float)
    for given, message in (("shards=0", "parameter shards, got 0"), ("abstain=7", "parameter abstain, got 7")):
        with pytest.raises(ParamsError, match=message):
            arguments(predict, ["source=x", given])


def remove(tree: dict[str, Any], *path: str) -> None:
    *above, last = path
    for key in above:
        tree = tree[key]
    del tree[last]


@pytest.mark.parametrize(
    "path",
    [("root", "dag"), ("components", "comp-check-data"), ("deploymentSpec", "executors", "exec-evaluate"),
     ("root", "inputDefinitions", "parameters", "seed", "parameterType"), ("pipelineInfo", "name")],
)  # fmt: skip
def test_a_file_that_somebody_cut_is_refused(train: Compiled, tmp_path: Path, path: tuple[str, ...]) -> None:
    import copy

    import yaml

    tree = copy.deepcopy(dict(train.spec))
    remove(tree, *path)
    (tmp_path / "cut.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ArtifactError, match=r"not a compiled pipeline: in .*cut\.yaml"):
        load(tmp_path / "cut.yaml")


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "- 1", "root: 3\npipelineInfo: {name: x}"])
def test_another_file_is_no_compiled_pipeline(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"not a compiled pipeline: in .*x\.yaml.*aupair pipeline compile"):
        load(path)
    with pytest.raises(ArtifactError, match="no compiled pipeline"):
        load(tmp_path / "none.yaml")


def test_the_plan_lists_every_task_in_an_order_in_which_it_can_run(train: Compiled) -> None:
    tasks = plans.plan(train, arguments(train, ["source=x", "trials=[3, 5]"]))
    assert [task.name for task in tasks] == [
        "fetch-data", "check-data", "preprocess-faces", "sample-pairs", "train-pseudo-intensity", "train-uncertainty",
        "extract-features", "train-mapping", "evaluate", "register-model", "summarise",
    ]  # fmt: skip
    times = {task.name: task.times for task in tasks}
    assert times["train-mapping"] == "2 (trial 3, 5)"
    assert times["evaluate"] == "1"
    why = {task.name: task.why for task in tasks}
    assert (why["evaluate"], why["register-model"], why["summarise"]) == (plans.CACHED, plans.ALWAYS, plans.AT_THE_END)
    asks = {task.name: task.asks for task in tasks}
    assert asks["train-uncertainty"]["GPU"] == "1 nvidia.com/gpu"
    assert "GPU" not in asks["evaluate"]
    assert asks["evaluate"]["retries"] == "2"
    assert {task.why for task in plans.plan(train, {}, "containers")} == {plans.ALWAYS, plans.AT_THE_END}


def test_the_plan_says_what_a_runner_leaves_aside(train: Compiled) -> None:
    assert plans.not_heeded(train, "cluster") == []
    containers = plans.not_heeded(train, "containers")
    for word in (
        "GPU",
        "memory",
        "secrets: the environment",
        "tolerations",
        "cache: off",
        "timeout",
        "ttl",
        "at most 2",
    ):
        assert any(word in line for line in containers), word
    assert not any("image" in line for line in containers)
    assert any("example.org/aupair:1" in line for line in plans.not_heeded(train, "subprocesses"))


def test_compile_and_plan_by_the_command_line(fresh: Path, aupair: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    out = fresh / "train.yaml"
    done = aupair("pipeline", "compile", "-o", out, "--image", "example.org/a:1", "--params", fresh / "params.yaml")
    assert (done.code, done.out) == (0, f"{out}: train, image example.org/a:1\n")
    monkeypatch.chdir(fresh)
    done = aupair("pipeline", "plan", out, "--param", "train_mapping.epochs=9", "--runner", "subprocesses")
    assert done.code == 0, done.err
    assert "train_mapping.epochs: 9" in done.out
    assert f"source: {fresh / 'data'}" in done.out
    assert aupair("pipeline", "plan", out, "--runner", "moon").line.startswith("--runner, got moon")
    assert aupair("pipeline", "run", out).line.startswith("pipeline run, got no --local")

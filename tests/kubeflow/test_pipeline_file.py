"""The arguments of a run are checked against the compiled file before anything is run or sent; compile shows the tasks."""

import copy
from pathlib import Path

import pytest
import yaml

from aupair.errors import ArtifactError, ParamsError
from aupair.kubeflow.cluster import Cluster, load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.pipeline_file import PipelineFile, parse_arguments, read_pipeline_file
from aupair.kubeflow.task_table import ALWAYS, AT_THE_END, CACHED, tabulate_tasks
from aupair.params import Params
from conftest import REPOSITORY, Command
from kubeflow_options import EVERY_OPTION


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> PipelineFile:
    """Return the training pipeline with every option of a cluster."""
    path = tmp_path_factory.mktemp("compiled") / "train.yaml"
    compile_pipeline("train", tiny, load_cluster(None, EVERY_OPTION), path, REPOSITORY)
    return read_pipeline_file(path)


def test_only_given_arguments_are_sent_and_a_section_whole(train: PipelineFile, tiny: Params) -> None:
    texts = ["source=s3://b/p", "train_mapping.epochs=3", "trials=[0, 2]", "seed=7"]
    assert parse_arguments(train, texts) == {
        "source": "s3://b/p",
        "train_mapping": {**tiny.train_mapping.model_dump(), "epochs": 3},
        "trials": [0, 2],
        "seed": 7,
    }


def test_text_stays_text(train: PipelineFile) -> None:
    arguments = parse_arguments(train, ["source=/data/2021: x=y", "revision=1"])
    assert (arguments["source"], arguments["revision"]) == ("/data/2021: x=y", "1")


def test_two_keys_of_one_section_and_a_deep_one(train: PipelineFile) -> None:
    keys = ["train_pseudo_intensity.optimiser.steps=9", "train_pseudo_intensity.device=cuda"]
    section = parse_arguments(train, ["source=x", *keys])["train_pseudo_intensity"]
    assert (section["optimiser"]["steps"], section["device"]) == (9, "cuda")
    assert train.inputs["train_pseudo_intensity"].default["device"] == "cpu", "the file's own default is unchanged"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sourse=x"], "unknown parameter: in .*train.yaml, got sourse; did you mean source?"),
        (["source=x", "train_mapping.epoch=3"], "got train_mapping.epoch; did you mean epochs?"),
        (["source=x", "train_mapping.epochs=2.5"], "parameter train_mapping.epochs.*got 2.5"),
        (["source=x", "seed=x"], "parameter seed: in .*, got 'x', expected a valid integer"),
        (["source=x", "trials=3"], "parameter trials.*got 3, expected a valid tuple"),
        (["source=x", "trials=[]"], "parameter trials"),
        (["source=x", f"trials={[*range(81)]}"], "too many trials, got 81, expected at most 80"),
        (["source=x", "check_data"], "--param is malformed, got check_data, expected section.key=value"),
        (["source.x=3"], "parameter source.*expected a valid string"),
        (["source="], "parameter source, got nothing"),
        (["source=git+https://bob:hunter2@x/r.git"], "parameter source, got a URL with a user in it"),
        (["seed=1"], "a parameter has no value: in .*, got no source; pass --param source=..."),
    ],
)
def test_a_wrong_argument_is_one_line(train: PipelineFile, texts: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=message.replace("?", r"\?")):
        parse_arguments(train, texts)


def test_arguments_of_the_prediction_pipeline(tmp_path: Path, tiny: Params) -> None:
    compile_pipeline("predict", tiny, Cluster(), tmp_path / "p.yaml", REPOSITORY)
    predict = read_pipeline_file(tmp_path / "p.yaml")
    abstain = parse_arguments(predict, ["source=x", "abstain=1"])["abstain"]
    assert (abstain, type(abstain)) == (1.0, float)
    for text, message in (
        ("shards=0", "parameter shards.*got 0"),
        ("shards=101", "got 101, expected at most 100, .*; a shard holds any number of videos"),
        ("abstain=7", "parameter abstain.*got 7"),
    ):
        with pytest.raises(ParamsError, match=message):
            parse_arguments(predict, ["source=x", text])
    assert {task.times for task in tabulate_tasks(predict)} == {"once", "once a shard"}


@pytest.mark.parametrize(
    "path",
    [("root", "dag"), ("components", "comp-check-data"), ("deploymentSpec", "executors", "exec-evaluate"),
     ("root", "inputDefinitions", "parameters", "seed", "parameterType"), ("pipelineInfo", "name")],
)  # fmt: skip
def test_an_incomplete_file_is_refused(train: PipelineFile, tmp_path: Path, path: tuple[str, ...]) -> None:
    spec = copy.deepcopy(dict(train.spec))
    *parents, last = path
    tree = spec
    for key in parents:
        tree = tree[key]
    del tree[last]
    (tmp_path / "cut.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(ArtifactError, match=r"not a compiled pipeline: in .*cut\.yaml"):
        read_pipeline_file(tmp_path / "cut.yaml")


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "- 1", "root: 3\npipelineInfo: {name: x}"])
def test_another_file_is_no_compiled_pipeline(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"not (a compiled pipeline|YAML): in .*x\.yaml.*aupair pipeline compile"):
        read_pipeline_file(path)
    with pytest.raises(ArtifactError, match="no compiled pipeline"):
        read_pipeline_file(tmp_path / "none.yaml")


def test_the_table_has_every_task_in_an_order_in_which_it_can_run(train: PipelineFile) -> None:
    tasks = {task.name: task for task in tabulate_tasks(train)}
    assert list(tasks) == [
        "fetch-data", "check-data", "preprocess-faces", "embed-faces", "sample-pairs", "train-pseudo-intensity", "train-uncertainty",
        "extract-features", "train-mapping", "evaluate", "register-model", "summarise",
    ]  # fmt: skip
    assert (tasks["train-pseudo-intensity"].times, tasks["evaluate"].times) == ("once a trial", "once")
    assert [tasks[name].when for name in ("evaluate", "register-model", "summarise")] == [CACHED, ALWAYS, AT_THE_END]
    assert tasks["train-uncertainty"].settings == "GPUs 2, memory 24Gi, retries 2"
    assert tasks["evaluate"].settings == "memory 8Gi, retries 2"
    assert tasks["check-data"].inputs == "aus, check_data, target"


def test_compile_by_the_command_line(fresh: Path, aupair: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    out = fresh / "train.yaml"
    done = aupair("pipeline", "compile", "-o", out, "--image", "example.org/a:1", "--params", fresh / "params.yaml")
    assert done.code == 0, done.err
    assert "train, image example.org/a:1" in done.out
    assert sum("train-mapping" in line for line in done.out.splitlines()) == 1
    assert aupair("pipeline", "run", out).line.startswith("pipeline run needs --local; add it")

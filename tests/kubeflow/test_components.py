"""components/ and pipelines/ agree with FLOW in stages, edges and parameters; compiled files have the cluster's options."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aupair import stages
from aupair.errors import ParamsError
from aupair.kubeflow.cluster import Cluster, load_cluster
from aupair.kubeflow.compat import check_server_version
from aupair.kubeflow.compile import compile_pipeline, importable_pipelines
from aupair.kubeflow.descriptions import _ARTIFACTS, _INPUTS
from aupair.kubeflow.pipeline_file import PipelineFile, read_pipeline_file
from aupair.kubeflow.task_table import CACHED, tabulate_tasks
from aupair.params import Params, parse_params
from aupair.stage import ARTIFACTS
from kubeflow_options import EVERY_OPTION

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "params/cluster.yaml"
VIEWS = {"scores", "curves"}
"""Outputs for KFP's web UI, in addition to the stage's artifacts."""
OTHERS = {"fetch_data", "summarise", "plan_shards", "predict_shard", "gather_predictions"}


def component(name: str) -> Any:
    import importlib

    with importable_pipelines(REPOSITORY):
        return getattr(importlib.import_module(f"components.{name}"), name)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> dict[str, PipelineFile]:
    folder = tmp_path_factory.mktemp("compiled")
    full, example = load_cluster(None, EVERY_OPTION), load_cluster(EXAMPLE)
    files = {}
    for name, pipeline, options in (
        ("train", "train", Cluster()), ("predict", "predict", Cluster()), ("full", "train", full),
        ("example train", "train", example), ("example predict", "predict", example),
    ):  # fmt: skip
        compile_pipeline(pipeline, tiny, options, folder / f"{name}.yaml", REPOSITORY)
        files[name] = read_pipeline_file(folder / f"{name}.yaml")
    return files


def graph(compiled: PipelineFile, name: str) -> dict[str, Any]:
    """Return the tasks of a part of the pipeline by their names."""
    tasks: dict[str, Any] = compiled.spec["components"][name]["dag"]["tasks"]
    return tasks


def test_each_stage_has_a_component_of_its_name_and_no_other_is_there() -> None:
    files = {path.stem for path in (REPOSITORY / "components").glob("*.py")} - {"__init__"}
    assert files == {stage.section for stage in stages.FLOW} | OTHERS


@pytest.mark.parametrize("stage", stages.FLOW, ids=lambda stage: stage.name)
def test_a_component_takes_and_gives_what_the_flow_says(stage: stages.Stage) -> None:
    spec = component(stage.section).component_spec
    gathers = {name for name in stage.reads if "{trial}" in ARTIFACTS[name] and not stage.per_trial}
    artifacts = {name: value for name, value in spec.inputs.items() if value.type.startswith("system.")}
    parameters = set(spec.inputs) - set(artifacts)
    assert set(artifacts) == set(stage.reads)
    assert {name for name, value in artifacts.items() if value.is_artifact_list} == gathers
    assert parameters == set(stage.sections) | ({"trial"} if stage.per_trial else set())
    assert set(spec.outputs) - VIEWS == set(stage.writes)
    assert spec.description == inspect.getdoc(stage.run).partition("\n\n")[0], "the same sentence everywhere"


@pytest.mark.parametrize("stage", stages.FLOW, ids=lambda stage: stage.name)
def test_a_component_is_thin_and_brings_nothing_along(stage: stages.Stage) -> None:
    text = (REPOSITORY / "components" / f"{stage.section}.py").read_text()
    body = text.partition("-> None:")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 4
    assert re.findall(r"^\s*from aupair\S* import .*", text, re.M) == [
        "    from aupair.kubeflow.step import run_component"
    ]
    container = component(stage.section).component_spec.implementation.container
    assert "pip install" not in " ".join(container.command)


def test_the_pipeline_joins_the_stages_as_the_flow_does(compiled: dict[str, PipelineFile]) -> None:
    train = compiled["train"]
    outer, inner = graph(train, "comp-exit-handler-1"), graph(train, "comp-for-loop-2")
    writer = {name: stage.name for stage in stages.FLOW for name in stage.writes} | {"data": "fetch-data"}
    assert set(inner) == {stage.name for stage in stages.FLOW if stage.per_trial}
    assert set(outer) == {stage.name for stage in stages.FLOW if not stage.per_trial} | {"fetch-data", "for-loop-2"}
    for stage in stages.FLOW:
        tasks = inner if stage.per_trial else outer
        for name, source in tasks[stage.name]["inputs"]["artifacts"].items():
            if "taskOutputArtifact" in source:
                output = source["taskOutputArtifact"]
                producer, key = output["producerTask"], output["outputArtifactKey"]
            else:
                producer, key = re.fullmatch(
                    r"pipelinechannel--([a-z-]+)-(\w+)", source["componentInputArtifact"]
                ).groups()  # type: ignore[union-attr]
            if producer == "for-loop-2":
                assert key == f"pipelinechannel--{writer[name]}-{name}", stage.name
            else:
                assert (producer, key) == (writer[name], name), stage.name


def test_the_inputs_are_the_params_and_where_the_data_are(compiled: dict[str, PipelineFile], tiny: Params) -> None:
    inputs = compiled["train"].inputs
    assert set(inputs) == {"source", "revision", "remote", *Params.model_fields}
    from aupair.params import parse_params

    assert parse_params({name: inputs[name].default for name in Params.model_fields}) == tiny, (
        "whole floats are ints again"
    )
    assert inputs["source"].default is None, "no data by accident"


@pytest.mark.parametrize("name", ["train", "predict"])
def test_every_input_and_output_is_described(compiled: dict[str, PipelineFile], name: str) -> None:
    spec = compiled[name].spec
    tasks = [component for component in spec["components"].values() if "executorLabel" in component]
    for component in (spec["root"], *tasks):
        for side in ("inputDefinitions", "outputDefinitions"):
            for kind in component.get(side, {}).values():
                assert all(definition["description"] for definition in kind.values())
    for key, definition in spec["root"]["inputDefinitions"]["parameters"].items():
        assert f"* `{key}`: {definition['description']}" in spec["pipelineInfo"]["description"], (
            "what KFP's web UI shows"
        )


def test_the_description_of_a_section_has_its_keys_of_all_kinds(compiled: dict[str, PipelineFile]) -> None:
    inputs = compiled["train"].spec["root"]["inputDefinitions"]["parameters"]
    for key in ("network.width", "optimiser.steps", "objective", "margin"):
        assert f" {key}," in inputs["train_pseudo_intensity"]["description"] + ","
    assert inputs["sample_pairs"]["description"].endswith("valid_pairs, folds, mode, frames, groups, train_pairs"), (
        "groups and reference"
    )
    assert "at most 80" in inputs["trials"]["description"]


def test_no_description_is_left_over(compiled: dict[str, PipelineFile]) -> None:
    used = {
        key
        for name in ("train", "predict")
        for component in compiled[name].spec["components"].values()
        for side in ("inputDefinitions", "outputDefinitions")
        for kind in component.get(side, {}).values()
        for key in kind
    }
    assert set(_INPUTS) | set(_ARTIFACTS) <= used | set(compiled["train"].inputs) | set(compiled["predict"].inputs)


def test_the_exit_handler_runs_whatever_happened(compiled: dict[str, PipelineFile]) -> None:
    for name in ("train", "predict"):
        summarise = compiled[name].spec["root"]["dag"]["tasks"]["summarise"]
        assert summarise["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
        assert summarise["dependentTasks"] == ["exit-handler-1"]


def test_nothing_is_set_by_default(compiled: dict[str, PipelineFile]) -> None:
    for name in ("train", "predict"):
        assert compiled[name].platform == {}
        for executor in compiled[name].spec["deploymentSpec"]["executors"].values():
            assert set(executor["container"]) == {"args", "command", "image"}
            assert executor["container"]["image"] == "aupair:latest"
        assert "retryPolicy" not in compiled[name].path.read_text()
        assert "enableCache" not in compiled[name].path.read_text()


def test_options_are_set_on_the_tasks_that_they_are_for(compiled: dict[str, PipelineFile], tiny: Params) -> None:
    full = compiled["full"]
    executors = full.spec["deploymentSpec"]["executors"]
    platform = full.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    needs = {f"exec-{stage.name}": stages.needs_with(stage, tiny) for stage in stages.FLOW}
    for label, need in needs.items():
        resources = executors[label]["container"]["resources"]
        assert resources["resourceMemoryLimit"] == f"{need.memory}Gi"
        assert ("accelerator" in resources) == bool(need.gpus)
        for key in ("tolerations", "nodeSelector", "emptyDirMounts"):  # of /dev/shm
            assert (key in platform[label]) == bool(need.gpus), (label, key)
    assert executors["exec-train-uncertainty"]["container"]["resources"]["accelerator"]["resourceCount"] == "2"
    assert executors["exec-preprocess-faces"]["container"]["resources"]["resourceCpuLimit"] == "8"
    for label in executors:
        assert {secret["secretName"] for secret in platform[label]["secretAsEnv"]} == {"s3", "mlflow"}
        assert platform[label]["pvcMount"][0]["mountPath"] == "/ckpt"
        assert platform[label]["activeDeadlineSeconds"] == "3600"
        assert platform[label]["fieldPathAsEnv"][0]["fieldPath"] == "metadata.labels['pipeline/runid']"
        env = {item["name"]: item["value"] for item in executors[label]["container"]["env"]}
        assert env["AUPAIR_CHECKPOINTS"] == "/ckpt/a"
        assert env["MLFLOW_EXPERIMENT_NAME"] == "aupair"
        assert env.get("AUPAIR_VOLUMES") == ("/ckpt:/ckpt/a" if label == "exec-fetch-data" else None)
        assert platform[label]["securityContext"] == {"runAsUser": "1234", "runAsGroup": "5678"}
    assert graph(full, "comp-exit-handler-1")["for-loop-2"]["iteratorPolicy"]["parallelismLimit"] == 2


@pytest.mark.parametrize(
    ("frozen", "h", "with_gpu"),
    [
        (False, "factors", {"train-pseudo-intensity", "train-uncertainty"}),
        (True, "factors", {"embed-faces"}),
        (True, "network", {"embed-faces", "train-uncertainty"}),
    ],
)
def test_only_stages_that_pass_faces_through_a_trunk_get_a_gpu_and_its_memory(
    tmp_path: Path, frozen: bool, h: str, with_gpu: set[str]
) -> None:
    params = parse_params({"train_pseudo_intensity": {"network": {"frozen": frozen}}, "train_uncertainty": {"kind": h}})
    compile_pipeline("train", params, load_cluster(None, ["gpus=1", "memory=true"]), tmp_path / "x.yaml", REPOSITORY)
    executors = read_pipeline_file(tmp_path / "x.yaml").spec["deploymentSpec"]["executors"]
    resources = {
        label.removeprefix("exec-"): executor["container"]["resources"] for label, executor in executors.items()
    }
    assert {name for name, own in resources.items() if "accelerator" in own} == with_gpu
    large = {name for name, own in resources.items() if own["resourceMemoryLimit"] == "24Gi"}
    assert large == with_gpu - {"embed-faces"}


def test_only_tasks_without_a_side_effect_are_retried_or_cached(tmp_path: Path, tiny: Params) -> None:
    options = load_cluster(None, ["retries=2", "cache=true"])
    compile_pipeline("train", tiny, options, tmp_path / "x.yaml", REPOSITORY)
    file = read_pipeline_file(tmp_path / "x.yaml")
    tasks = graph(file, "comp-exit-handler-1") | graph(file, "comp-for-loop-2") | file.spec["root"]["dag"]["tasks"]
    single = {name: task for name, task in tasks.items() if not name.startswith(("for-loop", "exit-handler"))}
    assert {name for name, task in single.items() if "retryPolicy" not in task} == {"register-model", "summarise"}
    cached = {name for name, task in single.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert set(single) - cached == {"register-model", "summarise"}


def test_the_task_that_records_the_result_of_a_prediction_is_not_cached(tmp_path: Path, tiny: Params) -> None:
    compile_pipeline("predict", tiny, load_cluster(None, ["cache=true"]), tmp_path / "x.yaml", REPOSITORY)
    file = read_pipeline_file(tmp_path / "x.yaml")
    cached = {row.name for row in tabulate_tasks(file) if row.when == CACHED}
    assert cached == {"plan-shards", "predict-shard"}


def test_the_time_to_live_holds_after_a_success_and_after_a_failure(tmp_path: Path, tiny: Params) -> None:
    """Argo prefers KFP's own settings of the last two to the first."""
    compile_pipeline("predict", tiny, load_cluster(None, ["ttl=60", "deadline=9"]), tmp_path / "x.yaml", REPOSITORY)
    assert read_pipeline_file(tmp_path / "x.yaml").kubernetes["pipelineConfig"] == {
        "resourceTtlOnCompletion": 60,
        "resourceTtlOnSuccess": 60,
        "resourceTtlOnFailure": 60,
        "activeDeadlineSeconds": 9,
    }


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (["timeout=3600", "backoff=60"], 3 * 3600 + 60 + 120),
        ([], 7 * 86400),
        (["timeout=3600", "retry_window=50"], 50),
        (["timeout=2147483647"], 2**31 - 1),
    ],
)
def test_retries_have_time_for_the_whole_stage(tmp_path: Path, tiny: Params, options: list[str], seconds: int) -> None:
    """Argo counts the window from the first attempt's start, and stops a retried pod at its end."""
    cluster = load_cluster(None, ["retries=2", *options])
    compile_pipeline("predict", tiny, cluster, tmp_path / "x.yaml", REPOSITORY)
    task = graph(read_pipeline_file(tmp_path / "x.yaml"), "comp-for-loop-2")["predict-shard"]
    assert task["retryPolicy"]["backoffMaxDuration"] == f"{seconds}s"


def test_retries_without_checkpoints_are_worth_a_warning() -> None:
    (warning,) = load_cluster(None, ["retries=2"]).warnings
    assert warning.startswith("retries without checkpoints")
    assert not load_cluster(None, ["retries=2", "pvcs.a=/a", "checkpoints=/a"]).warnings
    assert not Cluster().warnings


def test_scratch_is_on_the_nodes_disk_unless_a_storage_class_is_named(tmp_path: Path, tiny: Params) -> None:
    """A fresh volume of a class may belong to root; an emptyDir is for everybody."""
    settings = []
    for options in (["scratch=50"], ["scratch=50", "scratch_class=fast"]):
        compile_pipeline("predict", tiny, load_cluster(None, options), tmp_path / "x.yaml", REPOSITORY)
        platform = read_pipeline_file(tmp_path / "x.yaml").kubernetes["deploymentSpec"]["executors"]
        settings.append(platform["exec-predict-shard"])
    directory, volume = settings
    assert directory == {"emptyDirMounts": [{"volumeName": "scratch", "mountPath": "/tmp", "sizeLimit": "50Gi"}]}
    assert volume["genericEphemeralVolume"][0]["storageClassName"] == "fast"
    assert "emptyDirMounts" not in volume


def test_several_gpus_are_for_the_training_stages(tmp_path: Path, tiny: Params) -> None:
    compile_pipeline("train", tiny, load_cluster(None, ["gpus=4"]), tmp_path / "x.yaml", REPOSITORY)
    executors = read_pipeline_file(tmp_path / "x.yaml").spec["deploymentSpec"]["executors"]
    for label, executor in executors.items():
        processes = {item["name"]: item["value"] for item in executor["container"].get("env", ())}
        training = label in ("exec-train-pseudo-intensity", "exec-train-uncertainty")
        assert processes.get("AUPAIR_PROCESSES") == ("4" if training else None)
        if training:
            assert executor["container"]["resources"]["accelerator"]["resourceCount"] == "4"


def test_a_compiled_file_is_the_same_every_time(
    compiled: dict[str, PipelineFile], tmp_path: Path, tiny: Params
) -> None:
    full = load_cluster(None, EVERY_OPTION)
    compile_pipeline("train", tiny, full, tmp_path / "again.yaml", REPOSITORY)
    assert (tmp_path / "again.yaml").read_bytes() == compiled["full"].path.read_bytes()


def test_the_example_of_a_cluster_names_every_option(tmp_path: Path) -> None:
    text, every = EXAMPLE.read_text(), tmp_path / "every.yaml"
    every.write_text(re.sub(r"^#(?=\w|  \w)", "", text, flags=re.M))
    assert set(yaml.safe_load(every.read_text())) == set(Cluster.model_fields)
    load_cluster(every)
    assert {option.partition("=")[0].partition(".")[0] for option in EVERY_OPTION} == set(Cluster.model_fields)


@pytest.mark.parametrize("name", ["example train", "example predict"])
def test_the_example_asks_for_cpu_and_memory_of_every_task_and_for_nothing_that_a_cluster_may_lack(
    compiled: dict[str, PipelineFile], name: str
) -> None:
    """A namespace with a ResourceQuota refuses pods without requests and limits."""
    file = compiled[name]
    for label, executor in file.spec["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        wanted = {f"resource{kind}{bound}" for kind in ("Cpu", "Memory") for bound in ("Request", "Limit")}
        assert wanted <= set(resources), label
        assert "accelerator" not in resources
    assert {key for task in file.kubernetes["deploymentSpec"]["executors"].values() for key in task} == {
        "fieldPathAsEnv"
    }
    assert "pipelineConfig" not in file.kubernetes
    check_server_version(file, "2.14.0")


def test_the_documents_fit_kfps_schema(compiled: dict[str, PipelineFile]) -> None:
    """The second document through kfp's own protobuf messages: an unknown field raises."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as messages
    from kfp.pipeline_spec import pipeline_spec_pb2

    json_format.ParseDict(dict(compiled["full"].spec), pipeline_spec_pb2.PipelineSpec())
    executors = compiled["full"].platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for config in executors.values():
        json_format.ParseDict(config, messages.KubernetesExecutorConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gpu=1"], "unknown parameter: in .*, got gpu; did you mean gpus?"),
        (["gpus=-1"], "parameter gpus"),
        (["memory={trian: 3}"], "stages among"),
        (["memory=5"], "parameter memory: in .*, got 5, expected true, or GiB by stage"),
        (["checkpoints=/c"], "on a volume of pvcs; /c is on none"),
        (["env.AWS_SECRET_ACCESS_KEY=x"], "no secret in env"),
        (["tolerations=[{kye: x}]"], "tolerations.0.kye; did you mean key?"),
        (["pvcs.a=b"], "parameter pvcs.a"),
        (["env.AWS_ACCESS_KEY_ID=x"], "no secret in env.*put AWS_ACCESS_KEY_ID into secrets"),
        (["env.MLFLOW_TRACKING_URI='http://bob:hunter2@x'"], "put MLFLOW_TRACKING_URI into secrets"),
        (["pvcs={a: /tmp}", "scratch=3"], "a different mount path for each volume"),
        (["secrets={a: {k: X}, b: {k: X}}"], "each variable once in env and secrets; got X twice"),
        (["tolerations=[{key: a, operator: Exists, value: b}]"], "Exists without a value"),
        (["image=''"], "parameter image"),
        (["scratch_class=fast"], "the size of the volume, in scratch"),
        (["run_as_user=-1"], "parameter run_as_user"),
        (["gpus=99999999999999999999"], "a number beyond 64 bits"),
    ],
)
def test_a_wrong_option_is_one_line(options: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=message.replace("?", r"\?")):
        load_cluster(None, options)


def test_a_file_of_another_kind_is_not_overwritten(tmp_path: Path, tiny: Params) -> None:
    (tmp_path / "params.yaml").write_text("seed: 7\n")
    with pytest.raises(ParamsError, match=r"would overwrite another file, got .*params\.yaml"):
        compile_pipeline("train", tiny, Cluster(), tmp_path / "params.yaml", REPOSITORY)
    assert (tmp_path / "params.yaml").read_text() == "seed: 7\n"
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ParamsError, match="would overwrite another file"):
        compile_pipeline("train", tiny, Cluster(), tmp_path / "folder.yaml", REPOSITORY)
    for gpus in (0, 1):  # a compiled pipeline is
        compile_pipeline("train", tiny, Cluster(gpus=gpus), tmp_path / "train.yaml", REPOSITORY)
    assert "nvidia.com/gpu" in (tmp_path / "train.yaml").read_text()


def test_a_file_that_is_not_yaml_is_not_written(tmp_path: Path, tiny: Params) -> None:
    with pytest.raises(ParamsError, match=r"-o is not a YAML file, got .*x\.json, expected a file named"):
        compile_pipeline("train", tiny, Cluster(), tmp_path / "x.json", REPOSITORY)
    assert not list(tmp_path.iterdir())

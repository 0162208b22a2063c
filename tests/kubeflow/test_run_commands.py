"""upload, status, logs and cancel through the command line, against the stand-in for the API server."""

import json
from pathlib import Path

import pytest

from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.kubeflow.pipeline_file import read_pipeline_file
from aupair.kubeflow.run_tasks import _templates, format_duration
from aupair.params import Params
from conftest import REPOSITORY, Command, Outcome
from services.kfp_nodes import fnv, node
from services.kfp_server import HTML, KfpServer

pytestmark = pytest.mark.usefixtures("clean_environment")

SOURCE = ("--param", "source=s3://bucket/data")
HANDLER = "root.exit-handler-1"


def call(aupair: Command, kfp: KfpServer, command: str, *options: object) -> Outcome:
    """Call a command of `aupair pipeline` on the server."""
    return aupair("pipeline", command, *options, "--host", kfp.url)


@pytest.fixture
def run_id(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> str:
    """Return the id of a run of the training pipeline, whose tasks are retried twice, in the middle of its training."""
    assert call(aupair, kfp, "submit", files["full"], *SOURCE, "--name", "first").code == 0
    kfp.states = ["RUNNING"]
    training = f"{HANDLER}.for-loop-2.for-loop-2-iterations(0:0).train-mapping"
    executor = f"{training}.executor"
    kfp.nodes = [
        node("w-x1", "w-x1", "RUNNING", "root-driver", seconds=0),
        node("w-x1", f"{HANDLER}.check-data-driver", "SUCCEEDED", seconds=1),
        node("w-x1", f"{HANDLER}.check-data", "SUCCEEDED", f"{HANDLER}.check-data.executor", seconds=75),
        node("w-x1", f"{HANDLER}.check-data.executor", "SUCCEEDED", f"{HANDLER}.check-data.executor(0)"),
        node("w-x1", f"{HANDLER}.check-data.executor(0)", "SUCCEEDED", f"{HANDLER}.for-loop-2"),
        node("w-x1", training, "FAILED", executor, seconds=7503),
        node("w-x1", executor, "FAILED", f"{executor}(0)", f"{executor}(1)"),
        node("w-x1", f"{executor}(1)", "FAILED"),
        node("w-x1", f"{HANDLER}.evaluate", "RUNTIME_STATE_UNSPECIFIED", seconds=0),
        node("w-x1", f"{HANDLER}.evaluate-driver", "RUNTIME_STATE_UNSPECIFIED", seconds=0),
    ]
    return next(iter(kfp.runs))


def pod(name: str, template: str = "retry-system-container-impl") -> str:
    """Return the name that Argo gives to the pod of a node."""
    return f"w-x1-{template}-{fnv('w-x1.' + name)}"


CHECK = pod(f"{HANDLER}.check-data.executor(0)")
TRAIN = [pod(f"{HANDLER}.for-loop-2.for-loop-2-iterations(0:0).train-mapping.executor({number})") for number in (0, 1)]


def test_argos_hash() -> None:
    """Known values of FNV-1a."""
    assert (fnv("hello"), fnv("world")) == (1335831723, 933488787)


@pytest.mark.parametrize(("key", "options"), [("plain", []), ("retries", ["retries=1"])])
def test_a_pod_is_named_by_the_template_that_a_server_makes_of_its_task(
    tmp_path: Path, tiny: Params, key: str, options: list[str]
) -> None:
    """What the compiler of KFP 2.17.0 made of this pipeline, before it had embed-faces: the template of each task's executor."""
    compile_pipeline("train", tiny, load_cluster(None, options), tmp_path / "train.yaml", REPOSITORY)
    real = json.loads((Path(__file__).parent / "real" / "argo_templates_kfp_2.17.0.json").read_text())
    templates = _templates(read_pipeline_file(tmp_path / "train.yaml").spec)
    assert templates.pop("embed-faces") == real[key]["preprocess-faces"]
    assert templates == real[key]


def test_the_latest_runs_are_listed(aupair: Command, kfp: KfpServer, run_id: str, files: dict[str, Path]) -> None:
    assert call(aupair, kfp, "submit", files["plain"], *SOURCE, "--name", "second").code == 0
    done = call(aupair, kfp, "status")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if "run-" in line]
    assert ["second" in rows[0], "first" in rows[1], len(rows)] == [True, True, 2]
    assert "2026-11-30 06:00" in rows[0]
    (request,) = kfp.received("GET", "runs")
    assert (request.query["page_size"], request.query["sort_by"]) == ("10", "created_at desc")


def test_the_tasks_of_a_run_have_states_and_durations(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    done = call(aupair, kfp, "status", run_id)
    assert done.code == 0, done.err
    cells = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in done.out.splitlines() if "│" in line]
    assert cells == [
        ["check-data", "SUCCEEDED", "1 min 15 s"],
        ["evaluate", "OMITTED", "0 s"],
        ["train-mapping", "FAILED", "2 h 5 min"],
    ], "no driver, executor or loop"
    assert "first: RUNNING" in done.out


def test_a_list_of_tasks_that_the_server_has_cut_off_says_so(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    """A real server's list ends in the middle of a run that is larger than 1 MiB, and stays so after its end."""
    assert "the server's list stops here" not in call(aupair, kfp, "status", run_id).out, "the run goes on"
    kfp.states = ["SUCCEEDED"]
    assert "the server's list stops here" in call(aupair, kfp, "status", run_id).out
    kfp.nodes.append(node("w-x1", "root.summarise", "SUCCEEDED"))
    assert "the server's list stops here" not in call(aupair, kfp, "status", run_id).out


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_run_that_is_not_there_is_one_line(aupair: Command, kfp: KfpServer, command: str) -> None:
    done = call(aupair, kfp, command, "none")
    assert done.code == 8
    assert done.line.endswith("Run none not found"), "no word about --host"
    assert not done.out


def test_the_logs_of_failed_tasks_of_every_try(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    info, fatal = (f"{level}1130 07:25:38.561423      15 launcher_v2.go:206] publish" for level in "IF")
    training = f"epoch 1\nepoch 2\n{info} success.\nValueError: no loss\n{info} failure.\n{fatal} failed\n"
    kfp.logs = {CHECK: "all well\n", TRAIN[0]: "lost the bucket\n", TRAIN[1]: training}
    done = call(aupair, kfp, "logs", run_id, "--tail", 3)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"==> train-mapping, FAILED, pod {TRAIN[0]}",
        "lost the bucket",
        f"==> train-mapping, FAILED, pod {TRAIN[1]}",
        "epoch 2",
        "ValueError: no loss",
        f"{fatal} failed",
    ]


def test_the_logs_of_one_task(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    kfp.logs = {CHECK: "all well\n"}
    done = call(aupair, kfp, "logs", run_id, "--task", "check-data")
    assert done.out == f"==> check-data, SUCCEEDED, pod {CHECK}\nall well\n"
    done = call(aupair, kfp, "logs", run_id, "--task", "check_data")
    assert done.code == 8
    assert "known tasks: check-data, evaluate, train-mapping" in done.line


def test_a_task_without_retries_has_one_pod(
    aupair: Command, kfp: KfpServer, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(aupair, kfp, "submit", files["plain"], *SOURCE).code == 0
    name = f"{HANDLER}.plan-shards"
    kfp.nodes = [node("w-x1", name, "FAILED", f"{name}.executor"), node("w-x1", f"{name}.executor", "FAILED")]
    plain = pod(f"{name}.executor", "system-container-impl")
    kfp.logs = {plain: "no videos\n"}
    assert call(aupair, kfp, "logs", next(iter(kfp.runs))).out == f"==> plan-shards, FAILED, pod {plain}\nno videos\n"


def test_the_tasks_that_follow_a_task_are_no_part_of_it(
    aupair: Command, kfp: KfpServer, files: dict[str, Path]
) -> None:
    """A server of 2.17.0 lists both as children of a task."""
    assert call(aupair, kfp, "submit", files["plain"], *SOURCE).code == 0
    name, loop = f"{HANDLER}.plan-shards", f"{HANDLER}.for-loop-2"
    kfp.nodes = [
        node("w-x1", f"{HANDLER}.plan-shards-driver", "SUCCEEDED", name),
        node("w-x1", name, "SUCCEEDED", f"{name}.executor", loop),
        node("w-x1", f"{name}.executor", "SUCCEEDED", loop),
    ]
    plain = pod(f"{name}.executor", "system-container-impl")
    kfp.logs = {plain: "3 shards\n"}
    done = call(aupair, kfp, "logs", next(iter(kfp.runs)))
    assert done.out == f"==> plan-shards, SUCCEEDED, pod {plain}\n3 shards\n"


def test_the_pods_of_a_real_run_are_named(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    """A training run in the middle, on KFP 2.17.0 with Argo 4.0.5 and the retries of the shipped ConfigMap.

    The pods below were there: the server gave out their logs.
    """
    assert call(aupair, kfp, "submit", files["full"], *SOURCE).code == 0
    keys = ("display_name", "state", "start_time", "end_time", "child_tasks")
    rows = json.loads((Path(__file__).parent / "real" / "nodes_kfp_2.17.0.json").read_text())
    kfp.nodes = [dict(zip(keys, (*row[:4], [{"pod_name": name} for name in row[4]]))) for row in rows]
    pods = {
        "fetch-data": [51698833],
        "check-data": [992286489],
        "preprocess-faces": [2899526719],
        "sample-pairs": [1963744430],
        "train-pseudo-intensity": [3512833, 3035285581],
    }
    prefix = "aupair-train-mpzqn-retry-system-container-impl"
    kfp.logs = {f"{prefix}-{number}": f"log {number}\n" for numbers in pods.values() for number in numbers}
    for name, numbers in pods.items():
        done = call(aupair, kfp, "logs", next(iter(kfp.runs)), "--task", name)
        assert sorted(line for line in done.out.splitlines() if "==>" not in line) == sorted(
            f"log {number}" for number in numbers
        )


def test_a_run_of_an_uploaded_pipeline_has_its_tasks_too(
    aupair: Command, kfp: KfpServer, files: dict[str, Path]
) -> None:
    """As started from Kubeflow's web UI: the run refers to the version, and holds no specification."""
    assert call(aupair, kfp, "upload", files["full"]).code == 0
    (version,) = kfp.versions.values()
    reference = {"pipeline_id": version["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
    kfp.runs["run-9"] = {"run_id": "run-9", "display_name": "nine", "pipeline_version_reference": reference}
    kfp.nodes = [node("w-x1", f"{HANDLER}.check-data", "FAILED"), node("w-x1", "w-x1", "FAILED")]
    done = call(aupair, kfp, "status", "run-9")
    assert [line.split()[1] for line in done.out.splitlines() if "FAILED" in line] == ["check-data"], done.out


def test_argos_own_retries_of_every_node_are_followed(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    """Where the server's ConfigMap has a retryStrategy for all templates, a task is itself a node with tries."""
    assert call(aupair, kfp, "submit", files["plain"], *SOURCE).code == 0
    name = f"{HANDLER}(0).plan-shards"
    kfp.nodes = [
        node("w-x1", name, "FAILED", f"{name}(0)"),
        node("w-x1", f"{name}(0)", "FAILED", f"{name}(0).executor"),
        node("w-x1", f"{name}(0).executor", "FAILED", f"{name}(0).executor(0)"),
    ]
    deep = pod(f"{name}(0).executor(0)", "system-container-impl")
    kfp.logs = {deep: "no videos\n"}
    assert call(aupair, kfp, "logs", next(iter(kfp.runs))).out == f"==> plan-shards, FAILED, pod {deep}\nno videos\n"


def test_behind_the_user_interface_logs_have_another_path(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    kfp.ui, kfp.logs = True, {TRAIN[1]: "ValueError: no loss\n"}
    done = call(aupair, kfp, "logs", run_id, "--namespace", "mine")
    assert done.code == 0, done.err
    assert "no log: the server refused to read the log of pod" in done.out, "the first pod is gone"
    assert done.out.endswith("ValueError: no loss\n")
    query = [request.query for request in kfp.requests if request.path == "/k8s/pod/logs"][-1]
    assert query == {"podname": TRAIN[1], "runid": run_id, "createdat": "2026-11-30", "podnamespace": "mine"}


def test_logs_that_are_gone_leave_a_command_to_try(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    done = call(aupair, kfp, "logs", run_id, "--namespace", "mine")
    assert done.code == 8
    assert f'pods "{TRAIN[0]}" not found' in done.out, "status 200, and a refusal in the body"
    assert f"try kubectl -n mine logs -l pipeline/runid={run_id} -c main" in done.line


def test_a_login_page_is_no_log(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    kfp.logs = dict.fromkeys(TRAIN, HTML[2])
    done = call(aupair, kfp, "logs", run_id)
    assert (done.code, "login page" in done.line) == (6, True)


def test_a_run_is_stopped_once(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    done = call(aupair, kfp, "cancel", run_id, "--wait")
    assert done.code == 0, done.err
    assert done.out == f"run {run_id}: ended as FAILED\n"
    done = call(aupair, kfp, "cancel", run_id)
    assert done.code == 8
    assert "the run has ended, or is being stopped" in done.line
    assert len([request for request in kfp.requests if request.path.endswith(":terminate")]) == 1


def test_stopping_does_not_wait_unless_asked(aupair: Command, kfp: KfpServer, run_id: str) -> None:
    done = call(aupair, kfp, "cancel", run_id)
    assert done.out == f"run {run_id}: stopping\n"
    assert kfp.states == ["CANCELING", "FAILED"]


def test_a_file_is_uploaded_once(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    for state in ("uploaded", "was uploaded before; nothing has changed"):
        done = call(aupair, kfp, "upload", files["full"])
        assert done.code == 0, done.err
        assert done.out.startswith("aupair-train version sha256-")
        assert done.out.splitlines()[0].endswith(f": {state}")
        assert f"{kfp.url}/#/pipelines/details/{next(iter(kfp.pipelines))}/version/" in done.out
    assert len(kfp.pipelines) == len(kfp.versions) == 1
    assert "`trials`: " in kfp.received("POST", "pipelines")[0].body["description"], "the inputs, for KFP's web UI"
    (request,) = kfp.received("POST", "pipelines/upload_version")
    assert files["full"].read_text() in request.body, "both documents, unchanged"
    assert call(aupair, kfp, "upload", files["plain"], "--name", "aupair-train").code == 0
    assert (len(kfp.pipelines), len(kfp.versions)) == (1, 2)


def test_a_version_of_another_file_is_not_overwritten(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    options = ("--name", "ours", "--version", "1.0")
    assert call(aupair, kfp, "upload", files["full"], *options).code == 0
    done = call(aupair, kfp, "upload", files["plain"], *options)
    assert done.code == 8
    assert "got 1.0; name another version with --version" in done.line
    assert len(kfp.versions) == 1


def test_a_refused_upload_leaves_no_empty_pipeline(
    aupair: Command, kfp: KfpServer, files: dict[str, Path], tmp_path: Path
) -> None:
    newer = tmp_path / "newer.yaml"
    newer.write_text(files["plain"].read_text().replace("schemaVersion: 2.1.0", "schemaVersion: 2.1.0\nnewThing: 1"))
    done = call(aupair, kfp, "upload", newer)
    assert done.code == 8
    assert "HTTP 400: unknown template format" in done.line
    assert not kfp.pipelines
    assert call(aupair, kfp, "upload", files["plain"]).code == 0
    assert call(aupair, kfp, "upload", newer).code == 8
    assert len(kfp.pipelines) == 1, "one that was there before stays"


@pytest.mark.parametrize("command", ["submit", "schedule", "upload", "doctor"])
def test_a_server_that_does_not_tell_its_version_gets_older_keys_only(
    aupair: Command, kfp: KfpServer, files: dict[str, Path], command: str
) -> None:
    kfp.version = "unknown"
    options = {"submit": SOURCE, "schedule": (*SOURCE, "--name", "a", "--interval", "60")}.get(command, ())
    done = call(aupair, kfp, command, files["full"], *options)
    assert done.code == 8
    assert "--server-version" in (done.out if command == "doctor" else done.line)
    assert not kfp.runs
    assert not kfp.schedules
    assert not kfp.pipelines
    assert call(aupair, kfp, command, files["full"], *options, "--server-version", "2.17").code == 0


def test_a_version_that_the_server_tells_wins(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    kfp.version = "2.16.0"
    assert call(aupair, kfp, "submit", files["full"], *SOURCE, "--server-version", "2.17").code == 8


def test_a_version_must_be_one(aupair: Command, kfp: KfpServer, files: dict[str, Path]) -> None:
    done = call(aupair, kfp, "upload", files["plain"], "--server-version", "newest")
    assert (done.code, "expected a version such as 2.17" in done.line) == (2, True)
    assert not kfp.requests


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min")]
)
def test_a_duration_in_words(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text

"""submit and schedule through the command line, against a stand-in for the API server (services/kfp_server.py)."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from aupair import params
from aupair.errors import RejectedError
from aupair.kubeflow import runs
from aupair.kubeflow.pipeline_file import read_pipeline_file
from aupair.kubeflow.run_tasks import FINISHED
from aupair.kubeflow.server import Connection, find_server
from conftest import REPOSITORY, Command, Outcome
from services.kfp_nodes import node
from services.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("clean_environment")

SOURCE = "source=s3://bucket/data"


def submit(aupair: Command, kfp: KfpServer, path: Path, *options: object) -> Outcome:
    """Submit a file with a source."""
    return aupair("pipeline", "submit", path, "--param", SOURCE, "--host", kfp.url, *options)


def create_schedule(aupair: Command, kfp: KfpServer, path: Path, *options: object) -> Outcome:
    """Schedule a file with a source under the name nightly."""
    return aupair("pipeline", "schedule", path, "--name", "nightly", "--param", SOURCE, "--host", kfp.url, *options)


def test_a_run_has_exactly_the_arguments_and_both_documents(
    kfp: KfpServer, files: dict[str, Path], aupair: Command
) -> None:
    options = [part for text in ("trials=[0,1]", "seed=7", "train_mapping.epochs=3") for part in ("--param", text)]
    done = submit(aupair, kfp, files["full"], "--name", "first", *options)
    assert done.code == 0, done.err
    (run,) = kfp.runs.values()
    assert done.out == f"run {run['run_id']}: first, in experiment aupair\n{kfp.url}/#/runs/details/{run['run_id']}\n"
    assert not done.err
    (body,) = [request.body for request in kfp.received("POST", "runs")]
    defaults = params.load_params(REPOSITORY / "params.yaml").model_dump(mode="json")
    arguments = body["runtime_config"].pop("parameters")
    assert body["runtime_config"] == {}
    assert arguments == {
        "source": "s3://bucket/data",
        "trials": [0, 1],
        "seed": 7,
        "train_mapping": {**defaults["train_mapping"], "epochs": 3},
    }
    numbers = [arguments["seed"], *arguments["trials"], arguments["train_mapping"]["epochs"]]
    assert all(type(value) is int for value in numbers)
    file = read_pipeline_file(files["full"])
    assert body["pipeline_spec"] == {"pipeline_spec": file.spec, "platform_spec": file.platform}
    assert body["display_name"] == "first"
    assert "full.yaml, sha256 " in body["description"]


def test_the_experiment_is_created_once(kfp: KfpServer, files: dict[str, Path], aupair: Command) -> None:
    name = "50% a+b"  # breaks if a filter is quoted once instead of twice
    for _ in range(2):
        done = submit(aupair, kfp, files["plain"], "--experiment", name)
        assert done.code == 0, done.err
    assert [row["display_name"] for row in kfp.experiments.values()] == [name]
    assert len({run["experiment_id"] for run in kfp.runs.values()}) == 1


def test_an_archived_experiment_takes_no_run(kfp: KfpServer, files: dict[str, Path], aupair: Command) -> None:
    kfp.experiments["old"] = {"experiment_id": "old", "display_name": "aupair", "storage_state": "ARCHIVED"}
    done = submit(aupair, kfp, files["plain"])
    assert (done.code, "restore it" in done.line) == (8, True)
    assert not kfp.runs


def test_an_answer_without_an_id_is_an_error(
    kfp: KfpServer, files: dict[str, Path], aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp, "_store", lambda *_: {})
    kfp.experiments["ours"] = {"experiment_id": "ours", "display_name": "aupair"}
    done = submit(aupair, kfp, files["plain"])
    assert (done.code, done.line.partition(":")[0], done.out) == (8, "the server's answer has no id", "")


def test_a_wrong_argument_is_not_sent(kfp: KfpServer, files: dict[str, Path], aupair: Command) -> None:
    done = submit(aupair, kfp, files["full"], "--param", "train_mapping.epoch=3")
    assert done.code == 2
    assert "did you mean epochs?" in done.line
    assert not kfp.requests


def test_nothing_is_sent_to_a_server_that_would_drop_a_part_of_the_file(
    files: dict[str, Path], aupair: Command, kfp: KfpServer
) -> None:
    kfp.version = "2.16.1"
    done = submit(aupair, kfp, files["full"])
    assert done.code == 8
    assert "got server 2.16.1, which would run the file without any secret" in done.line
    assert not kfp.received("POST", "runs")
    assert submit(aupair, kfp, files["plain"]).code == 0


def test_a_file_that_a_server_cannot_read(
    files: dict[str, Path], tmp_path: Path, aupair: Command, kfp: KfpServer
) -> None:
    newer = tmp_path / "newer.yaml"
    newer.write_text(files["plain"].read_text().replace("schemaVersion: 2.1.0", "schemaVersion: 2.1.0\nnewThing: 1"))
    for done in (submit(aupair, kfp, newer), create_schedule(aupair, kfp, newer, "--cron", "@daily")):
        assert done.code == 8
        assert "HTTP 500" in done.line
        assert "unknown template format" in done.line
        assert "try `aupair pipeline doctor FILE.yaml`" in done.line


def test_a_server_refuses_an_unknown_key_of_a_task_and_drops_all_settings_for_one_of_the_pipeline(
    files: dict[str, Path], aupair: Command, kfp: KfpServer
) -> None:
    """What check_server_version prevents, on servers whose version is not what they say."""
    kfp.unknown = frozenset({"secretAsEnv"})
    done = submit(aupair, kfp, files["full"])
    assert done.code == 8
    assert 'failed to unmarshal kubernetes config: proto: (line 1:91): unknown field "secretAsEnv"' in done.line
    assert "v2_template.go" not in done.line, "a stack trace"
    kfp.unknown = frozenset({"resourceTtlOnCompletion"})
    done = submit(aupair, kfp, files["full"])
    assert done.code == 8
    assert "the server dropped the file's settings for Kubernetes" in done.line
    assert "the run was stopped" in done.line
    assert list(kfp.settings.values()) == [{}]
    assert kfp.states[0] == "CANCELING"
    assert not done.out, "no run is announced"
    assert create_schedule(aupair, kfp, files["full"], "--interval", 60).code == 8
    assert not kfp.schedules
    assert aupair("pipeline", "upload", files["full"], "--host", kfp.url).code == 8
    assert not kfp.pipelines
    assert not kfp.versions


@pytest.mark.parametrize("where", [(), ("platforms", "kubernetes"), ("platforms", "kubernetes", "pipelineConfig")])
def test_a_second_document_that_a_server_does_not_know_is_dropped_without_a_word(
    files: dict[str, Path], tmp_path: Path, aupair: Command, kfp: KfpServer, where: tuple[str, ...]
) -> None:
    """Seen on a server of 2.17.0, which gives no message; the file is one that somebody has edited."""
    first, second = yaml.safe_load_all(files["full"].read_text())
    tree = second
    for key in where:
        tree = tree[key]
    tree["fromTheFuture"] = 1
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump_all([first, second]))
    assert submit(aupair, kfp, files["full"]).code == 0
    assert "the run was stopped" in submit(aupair, kfp, tmp_path / "edited.yaml").line
    known, dropped = kfp.settings.values()
    assert known
    assert not dropped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "parameter source is not optional"),
        ({"source": "s3://a/b", "shards": "4"}, "input parameter shards requires type double or integer"),
        ({"source": "s3://a/b", "shards": True}, "input parameter shards requires type double or integer"),
        ({"source": 1}, "input parameter source requires type string"),
        ({"source": "s3://a/b", "trials": [0]}, "parameter(s) provided are not required by pipeline: trials"),
    ],
)
def test_arguments_that_a_server_refuses(
    files: dict[str, Path], kfp: KfpServer, arguments: dict[str, object], message: str
) -> None:
    """They do not pass `parse_arguments`; a server that gets them all the same refuses with HTTP 400."""
    connection = Connection(find_server(kfp.url))
    with pytest.raises(RejectedError, match="HTTP 400") as caught:
        runs.submit_run(connection, read_pipeline_file(files["plain"]), arguments, experiment="aupair")
    assert message in str(caught.value)


def test_waiting_follows_a_run_to_its_success(files: dict[str, Path], aupair: Command, kfp: KfpServer) -> None:
    kfp.states = ["PENDING", "RUNNING", 502, 503, "RUNNING", "SUCCEEDED"]
    done = submit(aupair, kfp, files["plain"], "--wait")
    assert done.code == 0, done.err
    lines = [line.split(",")[0].strip() for line in done.err.splitlines()]
    assert lines[:2] == ["pending", "running"]
    assert "polling again" in lines[2]
    assert lines[-1] == "succeeded"
    assert done.out.splitlines()[-1].startswith("succeeded after ")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_fails_names_its_tasks_and_where_their_logs_are(
    files: dict[str, Path], aupair: Command, kfp: KfpServer, state: str
) -> None:
    kfp.states = ["RUNNING", state]
    loop = "root.exit-handler-1.for-loop-2.for-loop-2-iterations"
    kfp.nodes = [
        node("w", "root", "FAILED"),
        node("w", "root.exit-handler-1.check-data", "SUCCEEDED"),
        node("w", "root.exit-handler-1.for-loop-2", "FAILED"),
        node("w", f"{loop}(0:0).train-mapping", "FAILED"),
        node("w", f"{loop}(1:1).train-mapping", "FAILED"),
        node("w", f"{loop}(1:1).train-mapping.executor", "FAILED"),
        node("w", "root.exit-handler-1.evaluate", "RUNTIME_STATE_UNSPECIFIED"),
        node("w", "root.exit-handler-1.evaluate-driver", "FAILED"),
    ]
    done = submit(aupair, kfp, files["full"], "--wait")
    assert done.code == 9
    (run_id,) = kfp.runs
    last = done.err.splitlines()[-1]
    assert f"the run ended as {state} after" in last
    assert f"{kfp.url}/#/runs/details/{run_id}" in last
    assert "failed tasks: evaluate-driver, train-mapping (2 times)" in last
    assert last.endswith(f"see `aupair pipeline logs {run_id}`")


def test_a_driver_of_a_loop_that_failed_is_named(files: dict[str, Path], aupair: Command, kfp: KfpServer) -> None:
    kfp.states, loop = ["FAILED"], "root.exit-handler-1.for-loop-2"
    kfp.nodes = [
        node("w", loop, "FAILED"),
        node("w", f"{loop}.iteration-driver", "FAILED"),
        node("w", f"{loop}.iteration-driver(0)", "FAILED"),
    ]
    done = submit(aupair, kfp, files["full"], "--wait")
    assert "got failed tasks: iteration-driver; see" in done.err.splitlines()[-1]


def test_a_run_that_fails_before_any_task(files: dict[str, Path], aupair: Command, kfp: KfpServer) -> None:
    kfp.states = ["FAILED"]
    done = submit(aupair, kfp, files["plain"], "--wait")
    assert done.code == 9
    assert "got no failed task; see `aupair pipeline logs run-" in done.err.splitlines()[-1]


def test_items_of_a_loop_that_the_driver_refuses_fail_the_run(
    files: dict[str, Path], tmp_path: Path, aupair: Command, kfp: KfpServer
) -> None:
    text = files["full"].read_text()
    old = "pipelinechannel--trials-loop-item:\n          parameterType: NUMBER_INTEGER"
    assert text.count(old) == 1
    (tmp_path / "bare.yaml").write_text(text.replace(old, old.replace("NUMBER_INTEGER", "STRING")))
    done = submit(aupair, kfp, tmp_path / "bare.yaml", "--wait")
    assert done.code == 9, done.err


def test_waiting_ends_in_time_and_the_run_goes_on(files: dict[str, Path], aupair: Command, kfp: KfpServer) -> None:
    kfp.states = ["RUNNING"]
    done = submit(aupair, kfp, files["plain"], "--wait", "--timeout", "1")
    assert done.code == 10
    last = done.err.splitlines()[-1]
    assert "got running after 1 s" in last
    assert "the run continues" in last


def test_ctrl_c_stops_the_waiting_not_the_run(files: dict[str, Path], kfp: KfpServer) -> None:
    kfp.states = ["RUNNING"]
    command = ["pipeline", "submit", str(files["plain"]), "--param", SOURCE, "--host", kfp.url, "--wait"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from aupair.cli.main import main; main()", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not kfp.received("GET", "runs/") and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"stopped waiting; the run continues: {kfp.url}/#/runs/details/" in err.splitlines()[-1]
    assert not [request for request in kfp.requests if request.method == "DELETE" or ":terminate" in request.path]


@pytest.mark.parametrize(
    ("options", "trigger", "mode"),
    [
        (["--cron", "0 30 2 * * 1-5"], {"cron_schedule": {"cron": "0 30 2 * * 1-5"}}, ("ENABLE", True, 1)),
        (
            ["--interval", 3600, "--catchup", "--disabled", "--max-concurrency", 3],
            {"periodic_schedule": {"interval_second": 3600}}, ("DISABLE", False, 3),
        ),
    ],
)  # fmt: skip
def test_a_schedule_arrives_whole(
    files: dict[str, Path], aupair: Command, kfp: KfpServer, options: list[object], trigger: object, mode: object
) -> None:
    done = create_schedule(aupair, kfp, files["full"], *options)
    assert done.code == 0, done.err
    (body,) = [request.body for request in kfp.received("POST", "recurringruns")]
    assert body["trigger"] == trigger
    assert (body["mode"], body["no_catchup"], body["max_concurrency"]) == mode
    assert body["runtime_config"] == {"parameters": {"source": "s3://bucket/data"}}
    assert body["pipeline_spec"]["platform_spec"]["platforms"]
    assert "full.yaml, sha256 " in body["description"]
    assert f"{kfp.url}/#/recurringrun/details/{next(iter(kfp.schedules))}" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cron", "30 2 * * 1"], 'try --cron "0 30 2 * * 1"'),
        (["--cron", "0 30 2 * * 1 2026"], "expected six fields"),
        ([], "either --cron or --interval"),
        (["--cron", "@daily", "--interval", 5], "either --cron or --interval"),
    ],
)
def test_a_time_that_would_be_misread_is_not_sent(
    files: dict[str, Path], aupair: Command, kfp: KfpServer, options: list[object], message: str
) -> None:
    done = create_schedule(aupair, kfp, files["plain"], *options)
    assert done.code == 2
    assert message in done.line
    assert not kfp.requests


def test_a_schedule_is_replaced_only_on_request_and_only_by_an_accepted_one(
    files: dict[str, Path], aupair: Command, kfp: KfpServer
) -> None:
    assert create_schedule(aupair, kfp, files["full"], "--cron", "@daily").code == 0
    (first,) = kfp.schedules
    done = create_schedule(aupair, kfp, files["full"], "--cron", "@weekly")
    assert (done.code, "--replace" in done.line) == (8, True)
    kfp.unknown = frozenset({"fieldPathAsEnv"})
    assert create_schedule(aupair, kfp, files["full"], "--cron", "@weekly", "--replace").code == 8
    assert list(kfp.schedules) == [first], "the old one stays where the new one is refused"
    kfp.unknown = frozenset()
    assert create_schedule(aupair, kfp, files["full"], "--cron", "@weekly", "--replace").code == 0
    (second,) = kfp.schedules
    assert second != first
    assert kfp.schedules[second]["trigger"] == {"cron_schedule": {"cron": "@weekly"}}


def test_every_state_of_the_sdk_is_finished_or_known_to_go_on() -> None:
    from kfp_server_api import V2beta1RuntimeState as State

    going = {State.PENDING, State.RUNNING, State.CANCELING, State.PAUSED, State.RUNTIME_STATE_UNSPECIFIED}
    assert set(State.allowable_values) == {*FINISHED, *going}

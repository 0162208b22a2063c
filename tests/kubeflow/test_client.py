"""submit and schedule through the command line, against a stand-in for the API server (see services/kfp_server.py)."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aupair import params
from aupair.kubeflow import client, skew
from aupair.kubeflow.compiled import load
from conftest import REPOSITORY, Command
from services import kfp_server as fake

pytestmark = pytest.mark.usefixtures("nobody")

SOURCE = "source=s3://bucket/data"


def test_a_run_has_exactly_the_arguments_and_both_documents(
    kfp: fake.Server, files: dict[str, Path], aupair: Command
) -> None:
    given = [SOURCE, "trials=[0,1]", "seed=7", "train_mapping.epochs=3"]
    done = aupair(
        "pipeline", "submit", files["full"], "--host", kfp.url, "--name", "first",
        *(part for text in given for part in ("--param", text)),
    )  # fmt: skip
    assert done.code == 0, done.err
    (run,) = kfp.runs.values()
    assert done.out == f"run {run['run_id']}: first, in experiment aupair\n{kfp.url}/#/runs/details/{run['run_id']}\n"
    assert not done.err
    (sent,) = [request.body for request in kfp.asked("POST", "runs")]
    defaults = params.load_params(REPOSITORY / "params.yaml").model_dump(mode="json")
    assert sent["runtime_config"] == {
        "parameters": {
            "source": "s3://bucket/data",
            "trials": [0, 1],
            "seed": 7,
            "train_mapping": {**defaults["train_mapping"], "epochs": 3},
        }
    }
    arguments = sent["runtime_config"]["parameters"]
    whole = [arguments["seed"], *arguments["trials"], arguments["train_mapping"]["epochs"]]
    assert all(type(value) is int for value in whole)
    assert sent["pipeline_spec"] == {
        "pipeline_spec": load(files["full"]).spec,
        "platform_spec": load(files["full"]).platform,
    }
    assert sent["display_name"] == "first"
    assert "full.yaml, sha256 " in sent["description"]


def test_what_is_sent_is_what_the_sdk_would_send(kfp: fake.Server, files: dict[str, Path], aupair: Command) -> None:
    from google.protobuf import json_format
    from kfp.client.client import _extract_pipeline_yaml
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    for path in files.values():
        assert aupair("pipeline", "submit", path, "--host", kfp.url, "--param", SOURCE).code == 0
        sent, theirs = kfp.asked("POST", "runs")[-1].body["pipeline_spec"], _extract_pipeline_yaml(str(path))
        both = ("platform_spec" in sent, sent.get("pipeline_spec", sent), sent.get("platform_spec", {}))
        assert both[0] == ("platform_spec" in theirs.to_dict())
        assert json_format.ParseDict(both[1], pb.PipelineSpec()) == theirs.pipeline_spec
        assert json_format.ParseDict(both[2], pb.PlatformSpec()) == theirs.platform_spec


def test_the_experiment_is_made_once(kfp: fake.Server, files: dict[str, Path], aupair: Command) -> None:
    name = "50% a+b"  # what breaks where a filter is quoted once instead of twice
    for _ in range(2):
        done = aupair("pipeline", "submit", files["plain"], "--host", kfp.url, "--param", SOURCE, "--experiment", name)
        assert done.code == 0, done.err
    assert [row["display_name"] for row in kfp.experiments.values()] == [name]
    assert len({run["experiment_id"] for run in kfp.runs.values()}) == 1


def test_an_archived_experiment_takes_no_run(kfp: fake.Server, files: dict[str, Path], aupair: Command) -> None:
    kfp.experiments["old"] = {"experiment_id": "old", "display_name": "aupair", "storage_state": "ARCHIVED"}
    done = aupair("pipeline", "submit", files["plain"], "--host", kfp.url, "--param", SOURCE)
    assert (done.code, "restore it" in done.line) == (8, True)
    assert not kfp.runs


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["sorce=x"], "did you mean source?"),
        ([SOURCE, "train_mapping.epoch=3"], "did you mean epochs?"),
        ([SOURCE, "seed=many"], "expected integer"),
        ([], "no source"),
    ],
)
def test_a_wrong_argument_reaches_no_server(
    kfp: fake.Server, files: dict[str, Path], aupair: Command, given: list[str], said: str
) -> None:
    options = [part for text in given for part in ("--param", text)]
    done = aupair("pipeline", "submit", files["full"], "--host", kfp.url, *options)
    assert done.code == 2
    assert said in done.line
    assert not kfp.requests


def test_an_older_server_is_warned_of_and_what_it_refuses_is_explained(
    files: dict[str, Path], aupair: Command, kfp: fake.Server
) -> None:
    kfp.version, kfp.unknown = "2.5.0", frozenset({"resourceTtlOnCompletion"})
    done = aupair("pipeline", "submit", files["full"], "--param", SOURCE, "--host", kfp.url)
    warning, line = done.err.splitlines()
    assert done.code == 8
    assert "server 2.5.0 is older than the SDK 2.17.0" in warning
    assert warning.endswith("it does not know: ttl (since 2.17)")
    assert "does not know resourceTtlOnCompletion" in line
    assert line.endswith("compile without ttl, or upgrade it to 2.17")
    done = aupair("pipeline", "submit", files["plain"], "--param", SOURCE, "--host", kfp.url)
    assert done.code == 0
    assert "it knows all that is asked for" in done.err


def test_what_each_version_lacks_of_a_file(files: dict[str, Path]) -> None:
    full = load(files["full"])
    assert not skew.compare(full, "2.17.3")
    assert not skew.compare(full, "")
    assert not skew.compare(full, "a-commit")
    old = skew.compare(full, "v2.2.0")
    assert old.endswith(
        "gpus (since 2.3), memory (since 2.3), pvcs (since 2.5), secrets (since 2.5), shm (since 2.3), ttl (since 2.17)"
    )


def test_a_file_that_a_server_cannot_read_is_told_so(
    files: dict[str, Path], tmp_path: Path, aupair: Command, kfp: fake.Server
) -> None:
    newer = tmp_path / "newer.yaml"
    newer.write_text(files["plain"].read_text().replace("schemaVersion: 2.1.0", "schemaVersion: 2.1.0\nnewThing: 1"))
    done = aupair("pipeline", "submit", newer, "--param", SOURCE, "--host", kfp.url)
    assert done.code == 8
    assert "cannot read the compiled file" in done.line
    assert "newThing" in done.line


def submit_and_wait(aupair: Command, kfp: fake.Server, path: Path, *more: str) -> Any:
    """Submit a file and wait for its run."""
    return aupair("pipeline", "submit", path, "--param", SOURCE, "--host", kfp.url, "--wait", *more)


def test_waiting_follows_a_run_to_its_success(files: dict[str, Path], aupair: Command, kfp: fake.Server) -> None:
    kfp.states = ["PENDING", "RUNNING", 503, 503, "RUNNING", "SUCCEEDED"]
    done = submit_and_wait(aupair, kfp, files["plain"])
    assert done.code == 0, done.err
    said = [line.split(",")[0].strip() for line in done.err.splitlines()]
    assert said[:2] == ["pending", "running"]
    assert "asking again" in said[2]
    assert said[-1] == "succeeded"
    assert done.out.splitlines()[-1].startswith("succeeded after ")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_fails_names_the_task(files: dict[str, Path], aupair: Command, kfp: fake.Server, state: str) -> None:
    kfp.states = ["RUNNING", state]
    history = [{"state": "FAILED", "error": {"code": 2, "message": "exit code 3\nno videos"}}]
    kfp.tasks = [
        {"display_name": "check-data", "state": "SUCCEEDED"},
        {"display_name": "train-mapping", "state": "FAILED", "state_history": history},
        {"display_name": "for-loop-1", "state": "FAILED"},
        {"display_name": "root", "state": "FAILED"},
    ]
    done = submit_and_wait(aupair, kfp, files["full"])
    assert done.code == 9
    last = done.err.splitlines()[-1]
    assert f"the run {state.lower()} after" in last
    assert last.endswith("got task train-mapping: exit code 3 no videos")
    assert f"{kfp.url}/#/runs/details/" in last


def test_waiting_ends_in_time_and_the_run_goes_on(files: dict[str, Path], aupair: Command, kfp: fake.Server) -> None:
    kfp.states = ["RUNNING"]
    done = submit_and_wait(aupair, kfp, files["plain"], "--timeout", "1")
    assert done.code == 10
    last = done.err.splitlines()[-1]
    assert "got running after 1 s" in last
    assert "it goes on" in last


def test_ctrl_c_stops_the_waiting_not_the_run(files: dict[str, Path], kfp: fake.Server) -> None:
    kfp.states = ["RUNNING"]
    command = ["pipeline", "submit", str(files["plain"]), "--param", SOURCE, "--host", kfp.url, "--wait"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from aupair.cli.main import main; main()", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not any("runs/" in request.path for request in kfp.asked("GET", "runs")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"stopped waiting; the run goes on: {kfp.url}/#/runs/details/" in err.splitlines()[-1]
    assert not [request for request in kfp.requests if request.method == "DELETE" or ":terminate" in request.path]


def plan(aupair: Command, kfp: fake.Server, path: Path, *more: object) -> Any:
    """Schedule a file under the name nightly."""
    return aupair("pipeline", "schedule", path, "--name", "nightly", "--param", SOURCE, "--host", kfp.url, *more)


def test_a_schedule_arrives_whole(files: dict[str, Path], aupair: Command, kfp: fake.Server) -> None:
    done = plan(aupair, kfp, files["full"], "--cron", "0 30 2 * * 1-5")
    assert done.code == 0, done.err
    (sent,) = [request.body for request in kfp.asked("POST", "recurringruns")]
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * 1-5"}}
    assert (sent["mode"], sent["no_catchup"], sent["max_concurrency"]) == ("ENABLE", True, "1")
    assert sent["runtime_config"] == {"parameters": {"source": "s3://bucket/data"}}
    assert sent["pipeline_spec"]["platform_spec"] == load(files["full"]).platform
    assert f"{kfp.url}/#/recurringrun/details/{next(iter(kfp.schedules))}" in done.out


def test_an_interval_and_the_other_options_of_a_schedule(
    files: dict[str, Path], aupair: Command, kfp: fake.Server
) -> None:
    done = plan(aupair, kfp, files["plain"], "--interval", 3600, "--catchup", "--disabled", "--max-concurrency", 3)
    assert done.code == 0, done.err
    (sent,) = [request.body for request in kfp.asked("POST", "recurringruns")]
    assert sent["trigger"] == {"periodic_schedule": {"interval_second": "3600"}}
    assert (sent["mode"], sent["no_catchup"], sent["max_concurrency"]) == ("DISABLE", False, "3")


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (["--cron", "30 2 * * 1"], 'try --cron "0 30 2 * * 1"'),
        (["--cron", "0 30 2 * * 1 2026"], "expected six fields"),
        ([], "either --cron or --interval"),
        (["--cron", "@daily", "--interval", 5], "either --cron or --interval"),
    ],
)
def test_a_time_that_would_be_misread_reaches_no_server(
    files: dict[str, Path], aupair: Command, kfp: fake.Server, when: list[object], said: str
) -> None:
    done = plan(aupair, kfp, files["plain"], *when)
    assert done.code == 2
    assert said in done.line
    assert not kfp.requests


def test_a_schedule_is_replaced_only_when_asked_and_only_by_one_that_is_accepted(
    files: dict[str, Path], aupair: Command, kfp: fake.Server
) -> None:
    assert plan(aupair, kfp, files["full"], "--cron", "@daily").code == 0
    (first,) = kfp.schedules
    done = plan(aupair, kfp, files["full"], "--cron", "@weekly")
    assert (done.code, "--replace" in done.line) == (8, True)
    assert list(kfp.schedules) == [first]
    kfp.unknown = frozenset({"resourceTtlOnCompletion"})
    assert plan(aupair, kfp, files["full"], "--cron", "@weekly", "--replace").code == 8
    assert list(kfp.schedules) == [first], "the old one stays where the new one is refused"
    kfp.unknown = frozenset()
    assert plan(aupair, kfp, files["full"], "--cron", "@weekly", "--replace").code == 0
    (second,) = kfp.schedules
    assert second != first
    assert kfp.schedules[second]["trigger"] == {"cron_schedule": {"cron": "@weekly"}}


def test_the_sdk_s_finish_states_are_ours() -> None:
    from kfp_server_api import V2beta1RuntimeState as State

    going = {State.PENDING, State.RUNNING, State.CANCELING, State.PAUSED, State.RUNTIME_STATE_UNSPECIFIED}
    assert set(State.allowable_values) == {*client.ENDED, *going}

"""The stand-in refuses with the words of a real server: refusals of KFP 2.17.0, each to a request like ours here."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from aupair.kubeflow.pipeline_file import read_pipeline_file
from services.kfp_server import KfpServer, Request

REFUSALS: dict[str, list[Any]] = json.loads((Path(__file__).parent / "real" / "refusals_kfp_2.17.0.json").read_text())

ARGUMENTS: dict[str, dict[str, Any]] = {
    "unknown argument": {"source": "s", "trails": [0]},
    "wrong type: a string for a list": {"source": "s", "trials": "0"},
    "wrong type: a string for an integer": {"source": "s", "seed": "0"},
    "wrong type: a number for a string": {"source": 0},
    "missing argument": {},
    "null for a struct": {"source": "s", "evaluate": None},
    "schedule with an unknown argument": {"source": "s", "trails": [0]},
}


@pytest.fixture
def server() -> KfpServer:
    """Return a server with an experiment and a run that is being stopped."""
    experiments: dict[str, dict[str, Any]] = {"e": {"experiment_id": "e", "display_name": "aupair"}}
    return KfpServer(experiments=experiments, runs={"stopping": {"run_id": "stopping", "state": "CANCELING"}})


def ask(server: KfpServer, method: str, path: str, body: Any = None) -> list[Any]:
    """Return status, code and message of an answer, without what differs from request to request."""
    status, _, text = server.answer(Request(method, f"/apis/v2beta1/{path}", {}, {}, body))
    answer = json.loads(text)
    message = re.sub(r"line 1:\d+", "line 1:N", answer["message"].splitlines()[0])
    return [status, answer["code"], re.sub("nowhere|stopping", "RUN", message)]


def request_body(path: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a run."""
    file = read_pipeline_file(path)
    spec = {"pipeline_spec": copy.deepcopy(file.spec), "platform_spec": copy.deepcopy(file.platform)}
    parameters = {"parameters": arguments}
    return {"display_name": "a", "experiment_id": "e", "pipeline_spec": spec, "runtime_config": parameters}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_wrong_arguments(server: KfpServer, files: dict[str, Path], case: str) -> None:
    body, path = request_body(files["full"], ARGUMENTS[case]), "runs"
    if case.startswith("schedule"):
        path = "recurringruns"
        body |= {"max_concurrency": 1, "mode": "ENABLE", "trigger": {"cron_schedule": {"cron": "@daily"}}}
    assert ask(server, "POST", path, body) == REFUSALS[case]


def test_unknown_keys(server: KfpServer, files: dict[str, Path]) -> None:
    body = request_body(files["full"], {"source": "s"})
    assert ask(server, "POST", "runs", {**body, "fromTheFuture": 1}) == REFUSALS["unknown key of the body"]
    executors = body["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-check-data"]["fromTheFuture"] = 1
    assert ask(server, "POST", "runs", body) == REFUSALS["unknown key of a task's settings"]
    body["pipeline_spec"]["pipeline_spec"]["fromTheFuture"] = 1
    assert ask(server, "POST", "runs", body) == REFUSALS["unknown key of the first document"]


def test_runs_that_are_not_there_or_end_already(server: KfpServer) -> None:
    assert ask(server, "GET", "runs/nowhere") == REFUSALS["no such run"]
    assert ask(server, "POST", "runs/nowhere:terminate") == REFUSALS["terminate no such run"]
    assert ask(server, "POST", "runs/stopping:terminate") == REFUSALS["terminate again"]


def test_a_schedule_with_too_many_runs_at_once(server: KfpServer, files: dict[str, Path]) -> None:
    body = request_body(files["full"], {"source": "s"})
    body |= {"max_concurrency": 11, "mode": "ENABLE", "trigger": {"cron_schedule": {"cron": "@daily"}}}
    assert ask(server, "POST", "recurringruns", body) == REFUSALS["max_concurrency 11"]


def test_every_refusal_is_compared() -> None:
    others = {"unknown key of the body", "unknown key of a task's settings", "unknown key of the first document"}
    others |= {"no such run", "terminate no such run", "terminate again", "max_concurrency 11"}
    assert set(REFUSALS) == set(ARGUMENTS) | others

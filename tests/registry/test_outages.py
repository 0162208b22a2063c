"""What is lost and what is logged twice when MLflow does not answer: a real server behind a proxy that fails."""

import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import sqlalchemy.sql

from aupair.errors import RegistryError
from aupair.registry import live_logging, mlflow_store, versions
from aupair.registry.contact import WAIT_VARIABLE
from aupair.registry.register import register_bundle
from aupair.registry.runs import StageRun
from bundle_parts import write_parts
from listener import Listener
from registry.test_versions import params
from services.clock import FakeClock
from services.flaky import Flaky, flaky_proxy, refuse
from services.mlflow_server import BUCKET, MLflowServer, mlflow_server, postgres
from services.s3 import S3, s3_server

STAGE = StageRun("train-mapping", 1, {"epochs": 2})


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3"), [BUCKET]) as running:
        yield running


@pytest.fixture(scope="module")
def server(bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), bucket) as running:
        yield running


@pytest.fixture
def proxy(server: MLflowServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """A proxy in front of the server, as MLFLOW_TRACKING_URI."""
    for name in ("KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with flaky_proxy(server.port) as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.endpoint)
        yield running


def lose_first(pattern: str) -> Callable[[str], bool]:
    """Return a `lose` for the first answer to each path that matches; ids in paths count as equal."""
    seen: set[str] = set()

    def lose(request: str) -> bool:
        kind = re.sub(r"[0-9a-f]{32}", "ID", request.partition("?")[0])
        first = bool(re.search(pattern, kind)) and kind not in seen
        seen.add(kind)
        return first

    return lose


@pytest.mark.parametrize("fault", ["503 Unavailable", "429 Too Many Requests", "500 Internal Error", "lost", "gone"])
def test_transient_failure_after_the_first_answer_is_retried(
    proxy: Flaky, clock: FakeClock, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow_store.open_mlflow()
    experiment = mlflow_store.get_or_create_experiment(client, "faults")
    if fault == "lost":
        proxy.lose = lose_first("set-experiment-tag")
    elif fault == "gone":
        proxy.go_away()
        clock.on_sleep = lambda: proxy.listen() if len(clock.sleeps) == 3 else None
    else:
        proxy.rewrite = refuse(3, fault)
    client.set_experiment_tag(experiment, "fault", fault)
    assert client.get_experiment(experiment).tags["fault"] == fault
    assert len(clock.sleeps) == (1 if fault == "lost" else 3)
    line = rf"MLflow at {proxy.endpoint}: set_experiment_tag failed \(API request .*\); retrying in 1 s, giving up in 600 s"
    assert re.fullmatch(line, next(m for m in caplog.messages if "retrying in" in m))


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "404 Not Found"])
def test_a_refusal_is_not_tried_again(proxy: Flaky, clock: FakeClock, status: str) -> None:
    client = mlflow_store.open_mlflow()
    proxy.rewrite = refuse(1, status)
    with pytest.raises(RegistryError, match="failed"), mlflow_store.mlflow_errors("a tag"):
        client.set_experiment_tag("0", "a", "b")
    assert clock.sleeps == []


@pytest.mark.parametrize("fault", ["503 Unavailable", "lost", "gone"])
def test_a_fault_at_the_first_contact_is_an_error_at_once(proxy: Flaky, clock: FakeClock, fault: str) -> None:
    if fault == "lost":
        proxy.lose = lose_first("")
    elif fault == "gone":
        proxy.go_away()
    else:
        proxy.rewrite = refuse(1, fault)
    with pytest.raises(RegistryError, match=f"does not answer: in {proxy.endpoint}.*; start it, or correct"):
        versions.list_versions()
    assert clock.sleeps == []


def test_live_points_are_neither_lost_nor_logged_twice(
    proxy: Flaky, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each answer to create the experiment, runs and points is lost once, and then the server is away for a while."""
    monkeypatch.setenv("KFP_RUN_ID", f"run {time.time_ns()}")
    curve = tmp_path / "curves.jsonl"
    curve.write_text("".join(f'{{"epoch": {step}, "loss": {step / 2}}}\n' for step in range(1, 7)))
    proxy.lose = lose_first("experiments/create|runs/(create|log-batch|update|set-tag)")
    result = StageRun("train-mapping", 1, {"epochs": 2}, (curve,))
    with live_logging.log_while_running(STAGE, "live", lambda: result) as log:
        for step in range(1, 4):
            log.metrics(step, loss=step / 2)
        proxy.go_away()
        clock.on_sleep = lambda: proxy.listen() if proxy._listener is None else None
        log.metrics(4, loss=2.0)
    client = mlflow_store.open_mlflow()
    experiment = client.get_experiment_by_name("live").experiment_id
    runs = {run.data.tags["stage"]: run for run in client.search_runs([experiment])}
    assert len(client.search_runs([experiment])) == len(runs) == 2, "a run of the flow and one of the stage"
    run = runs["train-mapping"]
    points = sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss"))
    assert points == [(step, step / 2) for step in range(1, 7)], "the last two are of the file alone"
    assert (run.info.status, run.data.tags["logged"]) == ("FINISHED", "yes")


def test_an_outage_of_ten_minutes_costs_a_line_and_not_the_stage(
    proxy: Flaky, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", f"run {time.time_ns()}")
    listener = Listener()
    with live_logging.log_while_running(STAGE, "outage", lambda: STAGE, listener) as log:
        proxy.go_away()
        for step in range(3):
            log.metrics(step, loss=1.0)
        assert 500 < sum(clock.sleeps) <= 600
    assert [line.endswith("register-model will log it") for line in listener.lines] == [True]


def test_register_model_leaves_one_version_whatever_answer_is_lost(
    proxy: Flaky, clock: FakeClock, tmp_path: Path
) -> None:
    reports, name = tmp_path / "table.md", f"lost-{time.time_ns()}"
    reports.write_text("the table\n")
    proxy.lose = lose_first(r"(POST|PATCH|PUT|DELETE) /api/(?!.*artifacts/)|PUT .*/table.md|GET .*search")
    parts, stages = write_parts(tmp_path / "work"), [StageRun("evaluate", metrics={"score": 0.6})]
    done = register_bundle(tmp_path / "bundle", parts, stages, [reports], params(name))
    assert clock.sleeps, "nothing was lost"
    assert done.version == 1
    (version,) = versions.list_versions(name)
    assert version.aliases == ("challenger",)
    client: Any = mlflow_store.open_mlflow()
    experiment = client.get_experiment_by_name(name).experiment_id
    assert sorted(run.data.tags["stage"] for run in client.search_runs([experiment])) == ["evaluate", "flow"]
    assert [model.status for model in client.search_logged_models([experiment])] == ["READY"]

    proxy.lose = lose_first(r"GET ")
    bundle = versions.resolve_bundle(f"models:/{name}@challenger")
    assert (bundle / "selection.json").read_bytes() == (tmp_path / "bundle" / "selection.json").read_bytes()


@pytest.mark.parametrize("fault", ["503 Slow Down", "500 Internal Error", "gone", "403 Forbidden"])
def test_a_bucket_that_is_written_without_the_server_is_waited_for(
    bucket: S3, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from mlflow.artifacts import download_artifacts

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "a.txt").write_text("a")
    with flaky_proxy(urlsplit(bucket.endpoint).port or 0) as proxy:
        for key, value in {**bucket.environment(), "AWS_MAX_ATTEMPTS": "1"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.endpoint)  # MLflow keeps a client for each
        client = mlflow_store.open_mlflow(create=True)
        run_id = client.create_run(client.create_experiment("b", f"s3://{BUCKET}/direct")).info.run_id
        client.log_artifact(run_id, str(tmp_path / "a.txt"))
        if fault == "gone":
            proxy.go_away()
            clock.on_sleep = proxy.listen
        else:
            proxy.rewrite = refuse(1, fault)
        with (
            pytest.raises(RegistryError, match=r"failed: in an artifact, got .*Forbidden")
            if "403" in fault
            else nullcontext(),
            mlflow_store.mlflow_errors("an artifact"),
        ):
            client.log_artifact(run_id, str(tmp_path / "a.txt"), "again")
            proxy.rewrite = refuse(1, fault) if fault != "gone" else bytes
            download = partial(download_artifacts, f"s3://{BUCKET}/direct/{run_id}/artifacts/again/a.txt")
            assert Path(mlflow_store.retrying("reading", download)).read_text() == "a"
    assert len(clock.sleeps) == {"403 Forbidden": 0, "gone": 1}.get(fault, 2)


@pytest.mark.parametrize("wait", ["", "60"])
def test_a_bucket_that_never_answered_is_an_error_at_once_unless_the_user_waits(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    monkeypatch.setattr("aupair.retry._answered", set())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "MLFLOW_S3_ENDPOINT_URL": endpoint, WAIT_VARIABLE: wait,
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "a.txt").write_text("a")
    client = mlflow_store.open_mlflow(create=True)
    run_id = client.create_run(client.create_experiment("b", f"s3://{BUCKET}/silent")).info.run_id
    assert client.get_run(run_id), "the store itself has answered"
    if wait:
        clock.on_sleep = lambda: monkeypatch.setenv(WAIT_VARIABLE, "" if len(clock.sleeps) == 2 else wait)
    start = time.monotonic()
    with (
        pytest.raises(
            RegistryError, match=r"the bucket of MLflow's artifacts does not answer: in a file, got .*--wait"
        ),
        mlflow_store.mlflow_errors("a file"),
    ):
        client.log_artifact(run_id, str(tmp_path / "a.txt"))
    assert time.monotonic() - start < 15 or wait
    assert len(clock.sleeps) == (2 if wait else 0)
    assert boto3.client("s3").meta.config.connect_timeout == 5, "where nothing refuses the connection"


def test_a_locked_database_is_waited_for(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow_store.open_mlflow(create=True)
    client.set_experiment_tag("0", "a", "1")
    text = sqlalchemy.sql.text  # MLflow makes SQLite itself wait for 20 s
    monkeypatch.setattr(
        sqlalchemy.sql, "text", lambda sql: text(sql.replace("busy_timeout = 20000", "busy_timeout = 9"))
    )
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    clock.on_sleep = other.close
    client.set_experiment_tag("0", "a", "2")
    assert len(clock.sleeps) == 1
    assert client.get_experiment("0").tags["a"] == "2"


def test_a_lost_connection_to_a_database_is_made_again(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    with postgres() as environment:
        uri = environment["MLFLOW_BACKEND_STORE_URI"]
        monkeypatch.setenv("PGPASSWORD", environment["PGPASSWORD"])
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        client = mlflow_store.open_mlflow()
        client.set_experiment_tag("0", "a", "1")
        with psycopg.connect(uri.replace("+psycopg", "")) as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mlflow' AND pid <> pg_backend_pid()"
            assert connection.execute(others).rowcount > 0
        client.set_experiment_tag("0", "a", "2")
        assert client.get_experiment("0").tags["a"] == "2"

"""Runs and schedules of a compiled pipeline on a server (`aupair pipeline submit | schedule`).

Both documents of the file are part of the request, so that no upload is needed. The caching options of the file apply.
`aupair.kubeflow.run_status` waits for runs, stops them and reads their logs.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aupair.errors import ParamsError, RejectedError
from aupair.kubeflow.pipeline_file import PipelineFile
from aupair.kubeflow.server import Connection
from aupair.kubeflow.server_errors import kfp_errors


@dataclass(frozen=True)
class ServerObject:
    """A run, a schedule, an experiment or a version of a pipeline on the server.

    Attributes:
        url: its page in the web UI; empty if the address is unknown.
    """

    id: str
    name: str
    url: str


@dataclass(frozen=True)
class Schedule:
    """The times at which a pipeline runs: at the times of `cron`, or every `interval` seconds.

    Attributes:
        cron: six fields, seconds first, in the server's time zone (UTC by default); or a descriptor such as @daily.
        concurrency: the maximum number of overlapping runs.
        catchup: whether missed runs are started later.
    """

    name: str
    cron: str = ""
    interval: int = 0
    concurrency: int = 1
    catchup: bool = False
    enabled: bool = True

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.interval):
            got = "both" if self.cron else "neither"
            raise ParamsError("the schedule needs one kind of time", got=got, expected="either --cron or --interval")
        # a server would read five fields as the first five of six, without a message
        if self.cron and not self.cron.startswith("@") and len(self.cron.split()) != 6:
            expected, todo = 'six fields "second minute hour day month weekday"', 'try --cron "0 30 2 * * 1"'
            raise ParamsError("--cron has a wrong number of fields", got=f'"{self.cron}"', expected=expected, todo=todo)


def submit_run(
    connection: Connection, file: PipelineFile, arguments: Mapping[str, Any], *, experiment: str, name: str = ""
) -> ServerObject:
    """Start a run.

    Args:
        arguments: from `pipeline_file.parse_arguments`.
        experiment: created if it does not exist.
        name: the name of the run; by default the pipeline's name and the time.

    Raises:
        RejectedError: the server dropped the file's settings for Kubernetes; the run has been stopped.
        AupairError: the request fails; see `server_errors.kfp_errors`.
    """
    from kfp_server_api import V2beta1Run

    name = name or f"{file.name} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    request = V2beta1Run(display_name=name, **_job(connection, file, arguments, experiment))
    with kfp_errors(connection.server, "start the run"):
        run = connection.runs.run_service_create_run(request)
    submitted = _server_object(connection, run.run_id, name, "runs")
    if settings_dropped(file, run.pipeline_spec):
        with kfp_errors(connection.server, f"stop run {run.run_id}, which lacks the file's settings"):
            connection.runs.run_service_terminate_run(run.run_id)
        raise dropped_error(file, "the run was stopped")
    return submitted


def create_schedule(
    connection: Connection,
    file: PipelineFile,
    arguments: Mapping[str, Any],
    schedule: Schedule,
    *,
    experiment: str,
    replace: bool = False,
) -> ServerObject:
    """Create a schedule that runs a file repeatedly.

    Args:
        replace: delete the schedules of the same name, after the new one has been accepted.

    Raises:
        RejectedError: a schedule of that name exists, and `replace` is False.
        AupairError: the request fails; see `server_errors.kfp_errors`.
    """
    from kfp_server_api import V2beta1CronSchedule, V2beta1PeriodicSchedule, V2beta1RecurringRun, V2beta1Trigger

    old = schedule_ids(connection, schedule.name)
    if old and not replace:
        raise RejectedError("a schedule of this name exists already", got=schedule.name, todo="add --replace")
    if schedule.cron:
        trigger = V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=schedule.cron))
    else:
        trigger = V2beta1Trigger(periodic_schedule=V2beta1PeriodicSchedule(interval_second=schedule.interval))
    request = V2beta1RecurringRun(
        display_name=schedule.name,
        trigger=trigger,
        mode="ENABLE" if schedule.enabled else "DISABLE",
        max_concurrency=schedule.concurrency,
        no_catchup=not schedule.catchup,
        **_job(connection, file, arguments, experiment),
    )
    with kfp_errors(connection.server, "create the schedule"):
        created = connection.schedules.recurring_run_service_create_recurring_run(request)
    submitted = _server_object(connection, created.recurring_run_id, schedule.name, "recurringrun")
    dropped = settings_dropped(file, created.pipeline_spec)
    for schedule_id in [submitted.id] if dropped else old:
        with kfp_errors(connection.server, f"delete schedule {schedule_id}"):
            connection.schedules.recurring_run_service_delete_recurring_run(schedule_id)
    if dropped:
        raise dropped_error(file, "the new schedule was deleted")
    return submitted


def schedule_ids(connection: Connection, name: str) -> list[str]:
    """Return the ids of the schedules of this name."""
    with kfp_errors(connection.server, "list the schedules"):
        answer = connection.schedules.recurring_run_service_list_recurring_runs(
            page_size=100, namespace=connection.namespace, filter=name_filter(name)
        )
    return [str(schedule.recurring_run_id) for schedule in answer.recurring_runs or ()]


def settings_dropped(file: PipelineFile, answer: Mapping[str, Any] | None) -> bool:
    """Return whether a server dropped the file's second document, which is then missing in its answer."""
    return bool(file.platform and answer and "platform_spec" not in answer)


def dropped_error(file: PipelineFile, outcome: str) -> RejectedError:
    """Return the error for a server that dropped the settings, although its version should know them."""
    got = f"no secret, volume or node selector of it; {outcome}"
    todo = "the server does not know a key of its second document: compile with fewer options, or upgrade the server"
    return RejectedError("the server dropped the file's settings for Kubernetes", where=file.path, got=got, todo=todo)


def _server_object(connection: Connection, identifier: str | None, name: str, page: str) -> ServerObject:
    """Return the object that the server created.

    Raises:
        RejectedError: the server's answer has no id.
    """
    server = connection.server
    if not identifier:
        raise RejectedError("the server's answer has no id", where=server.host, got=name, todo="check --host")
    return ServerObject(identifier, name, f"{server.ui}/#/{page}/details/{identifier}" if server.ui else "")


def _job(connection: Connection, file: PipelineFile, arguments: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """Return the fields that the requests for a run and for a schedule share."""
    from kfp_server_api import V2beta1RuntimeConfig

    return {
        "experiment_id": _experiment_id(connection, experiment),
        "description": f"{file.path.name}, sha256 {file.digest}, image {', '.join(file.images)}",
        "pipeline_spec": {"pipeline_spec": file.spec, "platform_spec": file.platform} if file.platform else file.spec,
        "runtime_config": V2beta1RuntimeConfig(parameters=dict(arguments)),
    }


def _experiment_id(connection: Connection, name: str) -> str:
    """Return the id of an experiment; create it if it does not exist.

    Raises:
        RejectedError: the experiment is archived, which would hide its runs.
    """
    from kfp_server_api import V2beta1Experiment

    with kfp_errors(connection.server, "list the experiments"):
        answer = connection.experiments.experiment_service_list_experiments(
            namespace=connection.namespace, filter=name_filter(name)
        )
    if answer.experiments:
        experiment = answer.experiments[0]
    else:
        request = V2beta1Experiment(display_name=name, namespace=connection.namespace)
        with kfp_errors(connection.server, f"create experiment {name}"):
            experiment = connection.experiments.experiment_service_create_experiment(request)
    if experiment.storage_state == "ARCHIVED":
        todo = "restore it in the web UI, or name another with --experiment"
        raise RejectedError(f"experiment {name} is archived", where=connection.server.host, todo=todo)
    return _server_object(connection, experiment.experiment_id, name, "experiments").id


def name_filter(name: str) -> str:
    """Return the filter for a name, URL-quoted because the server unquotes it once more than HTTP does."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return quote(json.dumps({"predicates": [predicate]}), safe="")

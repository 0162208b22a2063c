"""Submit a compiled file as a run or as a schedule of runs, and wait for a run.

Both of the file's documents travel inside the request, under the two keys from which every v2 server puts them together
again; a run keeps its own copy, and no pile of uploaded versions grows. Caching stays as it was compiled.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aupair.errors import AupairError, ParamsError, RejectedError, RunFailedError, TimedOutError, UnreachableError
from aupair.kubeflow.api import Kfp
from aupair.kubeflow.compiled import Compiled
from aupair.kubeflow.refusals import ExistsError, NotReadyError, told
from aupair.log import Log

POLL_SECONDS = 5.0
QUIET_SECONDS = 60.0
PATIENCE = 60
"""Polls in a row that may fail while a run is waited for: a server is restarted now and then."""

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
FIELDS = "second minute hour day month weekday"


class StillRunning(AupairError):
    """Ctrl-C while a run was waited for; the exit code is the shell's for it."""

    exit_code = 130


@dataclass(frozen=True)
class Run:
    """A run on the server, or a schedule.

    Attributes:
        url: where a browser shows it; empty where that is not known.
    """

    id: str
    name: str
    url: str

    def __str__(self) -> str:
        return self.url or f"run {self.id}"


@dataclass(frozen=True)
class Schedule:
    """A run that comes again.

    Attributes:
        cron: six fields (FIELDS), in the server's time zone, UTC by default; or @daily and the like.
        interval: seconds from run to run, instead of cron.
        concurrency: runs of it at once.
        catchup: whether runs that were missed are made up for.
        enabled: whether it starts now.
    """

    name: str
    cron: str = ""
    interval: int = 0
    concurrency: int = 1
    catchup: bool = False
    enabled: bool = True

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.interval):
            raise ParamsError("when?", got="both" if self.cron else "neither", expected="either --cron or --interval")
        count = len(self.cron.split())
        if self.cron and not self.cron.startswith("@") and count != 6:
            example = f"0 {self.cron}" if count == 5 else "0 30 2 * * 1"
            todo = f'try --cron "{example}"'
            # the server would take five for the first five of six, without a word
            raise ParamsError("--cron", got=f'"{self.cron}"', expected=f'six fields "{FIELDS}"', todo=todo)


def submit(kfp: Kfp, compiled: Compiled, arguments: Mapping[str, Any], *, experiment: str, name: str = "") -> Run:
    """Start a run of a compiled file.

    Args:
        arguments: from `compiled.arguments`.
        experiment: made if it is missing.
        name: of the run; the pipeline's name and the time, if empty.

    Raises:
        AupairError: the server's refusal, as `refusals.told` tells it.
    """
    from kfp_server_api import V2beta1Run

    name = name or f"{compiled.name} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    body = V2beta1Run(experiment_id=_experiment(kfp, experiment), display_name=name, **_content(compiled, arguments))
    with told(kfp.server, "the run"):
        run_id = kfp.runs.run_service_create_run(body).run_id
    return Run(run_id, name, _url(kfp, f"runs/details/{run_id}"))


def schedule(kfp: Kfp, compiled: Compiled, arguments: Mapping[str, Any], plan: Schedule, *, experiment: str) -> Run:
    """Have a compiled file run again and again.

    Raises:
        ExistsError: there is a schedule of that name.
        AupairError: the server's refusal, as `refusals.told` tells it.
    """
    if scheduled(kfp, plan.name):
        raise ExistsError("a schedule of this name is there already", got=plan.name, todo="add --replace")
    return _schedule(kfp, compiled, arguments, plan, experiment)


def replace(kfp: Kfp, compiled: Compiled, arguments: Mapping[str, Any], plan: Schedule, *, experiment: str) -> Run:
    """Make a schedule, then delete those of the same name: a new one that is refused costs nothing."""
    old = scheduled(kfp, plan.name)
    made = _schedule(kfp, compiled, arguments, plan, experiment)
    for job in old:
        with told(kfp.server, f"deleting the old schedule {job}, the new one is there"):
            kfp.schedules.recurring_run_service_delete_recurring_run(job)
    return made


def scheduled(kfp: Kfp, name: str) -> list[str]:
    """Give the ids of the schedules of a name."""
    with told(kfp.server, "listing the schedules"):
        found = kfp.schedules.recurring_run_service_list_recurring_runs(
            filter=_named(name), page_size=100, **_where(kfp)
        )
    return [str(job.recurring_run_id) for job in found.recurring_runs or ()]


def wait(kfp: Kfp, run: Run, compiled: Compiled, timeout: float, log: Log) -> str:
    """Wait until a run has ended, and give how long it took, in words.

    Raises:
        RunFailedError: it ended without success; the tasks that failed are named.
        TimedOutError: it did not end within `timeout` seconds.
        StillRunning: Ctrl-C.
    """
    try:
        found, took = _poll(kfp, run, timeout, log)
    except KeyboardInterrupt:
        raise StillRunning("stopped waiting", todo=f"the run goes on: {run}") from None
    if found.state not in ("SUCCEEDED", "SKIPPED"):
        got = kfp.server.scrub(_failures(found, compiled)) or "no more than that from the server"
        raise RunFailedError(f"the run {found.state.lower()} after {took}", where=run, got=got)
    return took


def _poll(kfp: Kfp, run: Run, timeout: float, log: Log) -> tuple[Any, str]:
    """Ask for the run until it has ended; a server that is away for a while is asked again."""
    start, spoke, state, failed = time.monotonic(), 0.0, "", 0
    while True:
        try:
            with told(kfp.server, f"run {run.id}"):
                found = kfp.runs.run_service_get_run(run.id)
            failed, now = 0, str(found.state or "PENDING")
        except (UnreachableError, NotReadyError) as error:
            failed, now = failed + 1, state
            if failed >= PATIENCE:
                raise
            if failed == 1:
                log.line(f"  asking again: {error}")
        elapsed = time.monotonic() - start
        if now != state or elapsed - spoke > QUIET_SECONDS:
            state, spoke = now, elapsed
            log.line(f"  {state.lower()}, {_duration(elapsed)}")
        if not failed and state in ENDED:
            return found, _duration(elapsed)
        if elapsed >= timeout:
            got = f"{state.lower()} after {_duration(elapsed)}"
            raise TimedOutError("the run has not ended", where=run, got=got, todo="it goes on; look there")
        time.sleep(min(POLL_SECONDS, timeout - elapsed))


def _schedule(kfp: Kfp, compiled: Compiled, arguments: Mapping[str, Any], plan: Schedule, experiment: str) -> Run:
    from kfp_server_api import V2beta1CronSchedule, V2beta1PeriodicSchedule, V2beta1RecurringRun, V2beta1Trigger

    when = (
        V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=plan.cron))
        if plan.cron
        else V2beta1Trigger(periodic_schedule=V2beta1PeriodicSchedule(interval_second=str(plan.interval)))
    )
    body = V2beta1RecurringRun(
        experiment_id=_experiment(kfp, experiment),
        display_name=plan.name,
        trigger=when,
        max_concurrency=str(plan.concurrency),
        no_catchup=not plan.catchup,
        mode="ENABLE" if plan.enabled else "DISABLE",
        **_content(compiled, arguments),
    )
    with told(kfp.server, "the schedule"):
        made = kfp.schedules.recurring_run_service_create_recurring_run(body).recurring_run_id
    return Run(made, plan.name, _url(kfp, f"recurringrun/details/{made}"))


def _content(compiled: Compiled, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a run and a schedule have in common; the description tells which file it was."""
    from kfp_server_api import V2beta1RuntimeConfig

    both = {"pipeline_spec": compiled.spec, "platform_spec": compiled.platform}
    digest = hashlib.sha256(compiled.path.read_bytes()).hexdigest()
    return {
        "pipeline_spec": both if compiled.platform else compiled.spec,
        "runtime_config": V2beta1RuntimeConfig(parameters=dict(arguments)),
        "description": f"{compiled.path.name}, sha256 {digest[:16]}, image {', '.join(compiled.images)}",
    }


def _experiment(kfp: Kfp, name: str) -> str:
    """Find the experiment, or make it."""
    from kfp_server_api import V2beta1Experiment

    if found := _find_experiment(kfp, name):
        return found
    try:
        with told(kfp.server, f"experiment {name}"):
            new = V2beta1Experiment(display_name=name, namespace=kfp.namespace or None)
            return str(kfp.experiments.experiment_service_create_experiment(new).experiment_id)
    except ExistsError:  # another process was quicker
        if found := _find_experiment(kfp, name):
            return found
        raise


def _find_experiment(kfp: Kfp, name: str) -> str:
    with told(kfp.server, "listing the experiments"):
        found = kfp.experiments.experiment_service_list_experiments(filter=_named(name), **_where(kfp)).experiments
    if found and found[0].storage_state == "ARCHIVED":
        todo = "restore it in the user interface, or name another with --experiment"
        raise RejectedError(f"experiment {name} is archived", where=kfp.server.host, todo=todo)
    return str(found[0].experiment_id) if found else ""


def _where(kfp: Kfp) -> dict[str, str]:
    return {"namespace": kfp.namespace} if kfp.namespace else {}


def _named(name: str) -> str:
    """Give the filter for a name; quoted, since the server unquotes it once more than HTTP does."""
    return quote(
        json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}), safe=""
    )


def _url(kfp: Kfp, page: str) -> str:
    return f"{kfp.server.ui}/#/{page}" if kfp.server.ui else ""


def _failures(found: Any, compiled: Compiled) -> str:
    """Name the tasks that failed, with what the server says of each; Kubeflow's own nodes only where there is no task."""
    components = [compiled.spec["root"], *compiled.spec["components"].values()]
    tasks = {name for component in components for name in component.get("dag", {}).get("tasks", {})}
    details = (found.run_details.task_details if found.run_details else None) or ()
    failed = [task for task in details if task.state == "FAILED"]
    ours = [task for task in failed if task.display_name in tasks] or failed
    said = [f"task {task.display_name}" + (f": {words}" if (words := _words(task)) else "") for task in ours]
    return "; ".join(dict.fromkeys(filter(None, [*said, _words(found)])))


def _words(thing: Any) -> str:
    """Give what a run or a task says of its failure: itself, or in the last entry of its history."""
    errors = [thing.error, *(entry.error for entry in reversed(thing.state_history or ()))]
    return next((" ".join(error.message.split())[:500] for error in errors if error and error.message), "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

"""Run a training stage on several nodes: hand its inputs over, submit a TrainJob, follow it, fetch what it left.

The nodes reach a folder that they share with the component: a volume that all pods mount at the same path, or a folder of
this machine. There a run of a stage has a folder of its own, laid out as a checkout is; it goes when the stage ends.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import stages, store
from aupair.errors import ArtifactError, AuthError, RejectedError, RunFailedError, UnreachableError
from aupair.kubeflow import trainjob
from aupair.kubeflow.cluster import CHECKPOINTS, RUN
from aupair.kubeflow.trainjob import TrainJob
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.registry.live import pipeline_run_id

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

POLL_SECONDS = 2.0
PATIENCE = 600.0
"""seconds without an answer after which a TrainJob is given up; training itself may take days"""
TAIL = 20
"""lines shown of each other node, where a TrainJob failed"""


def train(stage: stages.Stage, params: Params, root: Path, trial: int, job: TrainJob, log: Log = SILENT) -> None:
    """Run a stage on the artifacts under `root`, as `stages.run` does, on the nodes of a TrainJob.

    A TrainJob of this run that an earlier try left behind is taken up, unless it failed.

    Raises:
        RunFailedError: it failed, or somebody deleted it.
        UnreachableError: nothing takes a TrainJob here, or it does not answer any more.
        AuthError, RejectedError: the cluster refuses it.
        ArtifactError: it ended without the stage's output.
    """
    shared = Path(os.environ[CHECKPOINTS])
    name = job_name(stage, trial, os.environ.get(RUN) or pipeline_run_id())
    folder, client = shared / "nodes" / name, trainjob.connect(job.image, shared)
    watch = Watch(client, name, log)
    with _told_to_stop(), _in_one_line(name), _cleaned_up(client, name, folder, log):
        found = watch.job()
        if found is not None and found.status == "Failed":
            _delete(client, name)
            watch.until_gone()
            found = None
        if found is None:
            hand_over(stage, params, root, folder, trial)
            command = ["run", stage.name, "--trial", str(trial), "--root", str(folder)]
            command += ["--params", str(folder / "params.yaml")]
            trainjob.submit(client, job, name, command, {CHECKPOINTS: str(shared)})
        log.line(f"{name}: {job.nodes} nodes" + (", taken up again" if found else ""))
        watch.until_it_ends(f"{stage.name} on {job.nodes} nodes")
        fetch(stage, params, root, folder, trial)


def job_name(stage: stages.Stage, trial: int, run: str) -> str:
    """Name the TrainJob of a stage in a run: the same for each try, so that none trains beside the one before."""
    key = sha256(f"{run}/{stage.name}/{trial}".encode()).hexdigest()
    return f"{stage.name}-{trial}-{key[:10]}"


def hand_over(stage: stages.Stage, params: Params, root: Path, folder: Path, trial: int) -> None:
    """Copy a stage's inputs and the params into a folder that the nodes reach."""
    here, there = (stage.paths(place, params.trials, trial) for place in (root, folder))
    for artifact in stage.reads:
        with store.atomic(there[artifact]) as temporary:
            source = here[artifact].resolve()
            if source.is_dir():
                shutil.copytree(source, temporary)
            else:
                shutil.copyfile(source, temporary)
    store.write_json(folder / "params.yaml", params.model_dump(mode="json"))  # JSON is YAML


def fetch(stage: stages.Stage, params: Params, root: Path, folder: Path, trial: int) -> None:
    """Move what the nodes wrote to where the stage would have written it.

    Raises:
        ArtifactError: it is not there.
    """
    here, there = (stage.paths(place, params.trials, trial) for place in (root, folder))
    for artifact in stage.writes:
        if not there[artifact].exists():
            todo = "mount one volume that all nodes can write (ReadWriteMany) at the same place"
            raise ArtifactError("the nodes left no output", where=there[artifact], todo=todo)
        with store.atomic(here[artifact]) as temporary:
            shutil.move(there[artifact], temporary)


@dataclass
class Watch:
    """Follows a TrainJob and tells its log."""

    client: "TrainerClient"
    name: str
    log: Log
    said: deque[str] = field(default_factory=lambda: deque(maxlen=200))

    def job(self) -> Any:
        """Ask for the TrainJob; None where there is none of that name."""
        try:
            return self.client.get_job(self.name)
        except (ValueError, RuntimeError) as error:  # of the container backend, of the cluster's
            if isinstance(error, ValueError) or getattr(error.__cause__, "status", None) == 404:
                return None
            raise

    def until_gone(self) -> None:
        """Wait until the TrainJob that was deleted is no more.

        Raises:
            UnreachableError: it stays.
        """
        deadline = time.monotonic() + PATIENCE
        while self.job() is not None:
            if time.monotonic() > deadline:
                raise UnreachableError("a TrainJob cannot be deleted", where=self.name, todo="see its finalizers")
            time.sleep(POLL_SECONDS)

    def until_it_ends(self, what: str) -> None:
        """Wait for the TrainJob and tell its log meanwhile.

        Raises:
            RunFailedError, UnreachableError: see `train`.
        """
        ended = threading.Event()
        follower = threading.Thread(target=self._follow, args=(ended,), daemon=True)
        follower.start()
        try:
            job = self._wait(what)
        finally:
            ended.set()
        follower.join(10 * POLL_SECONDS)  # not after an error: a pod has seconds left after SIGTERM
        if job.status != "Complete":
            said = [*self._tell_the_others(job), *self.said]  # the first node's words come first
            ours = (line.removeprefix("aupair: ") for line in reversed(said) if line.startswith("aupair: "))
            states = ", ".join(f"{step.name} {step.status}" for step in job.steps)
            raise RunFailedError(f"{what} failed", where=self.name, got=next(ours, states), todo="see the log above")

    def _wait(self, what: str) -> Any:
        heard = time.monotonic()
        while True:
            try:
                job = self.job()
            except (RuntimeError, TimeoutError) as error:  # the SDK's words for every problem of the API server
                if time.monotonic() - heard > PATIENCE:
                    raise UnreachableError(what, where=self.name, got=error.__cause__ or error) from error
                time.sleep(POLL_SECONDS)
                continue
            heard = time.monotonic()
            if job is None:
                raise RunFailedError(f"{what} failed", where=self.name, got="no such TrainJob any more")
            if job.status in ("Complete", "Failed"):
                return job
            time.sleep(POLL_SECONDS)

    def _follow(self, ended: threading.Event) -> None:
        """Tell the first node's log while it grows; what a broken connection tells again is left out."""
        told: Counter[str] = Counter()
        while True:
            last = ended.is_set()
            try:
                job = self.job()
                pod = next((step.pod_name for step in job.steps if step.name == "node-0"), "") if job else ""
                chunks = self.client.get_job_logs(self.name, follow=True) if pod else ()
                for number, chunk in enumerate(chunks):
                    if number >= told[pod]:
                        self._tell(chunk)
                        told[pod] += 1
            except (RuntimeError, TimeoutError, ValueError) as error:  # not up yet, or a connection broke
                if last:
                    self.log.line(f"the log of {self.name} is cut off: {error}")
            if last:
                return
            ended.wait(POLL_SECONDS)

    def _tell(self, text: str) -> None:
        for line in text.splitlines():
            self.said.append(line)
            self.log.line(line)

    def _tell_the_others(self, job: Any) -> list[str]:
        """Tell the last lines of the nodes whose log was not followed, and give all: torchrun's come after our words."""
        said: list[str] = []
        for step in job.steps:
            if step.name == "node-0":
                continue
            try:
                text = "\n".join(self.client.get_job_logs(self.name, step=step.name))
            except (RuntimeError, ValueError) as error:
                text = str(error)
            lines = text.splitlines()
            said += lines
            for line in lines[-TAIL:]:
                self.log.line(f"{step.name}: {line}")
        return said


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Say in a line why the cluster does not take a TrainJob; the SDK gives the API server's answer as the cause."""
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        status = getattr(error.__cause__, "status", None)
        got = f"{error}: {getattr(error.__cause__, 'reason', None) or error.__cause__ or 'no answer'}"
        if status in (401, 403):
            todo = "let the pods' service account work with TrainJobs: docs/runbook.md"
            raise AuthError("no right to a TrainJob", where=name, got=got, todo=todo) from error
        if status is not None:
            todo = f"install Kubeflow Trainer 2.2 or newer, with its runtime {trainjob.RUNTIME}"
            raise RejectedError("no TrainJob", where=name, got=got, todo=todo if status == 404 else "") from error
        raise UnreachableError("no TrainJob", where=name, got=got) from error


@contextmanager
def _cleaned_up(client: "TrainerClient", name: str, folder: Path, log: Log) -> Iterator[None]:
    """Delete the TrainJob and its folder in the end, however it came."""
    try:
        yield
    finally:
        try:
            _delete(client, name)
        except RuntimeError as error:  # it must not hide why the block ended
            log.line(f"{name} is left behind: {error}: {error.__cause__}")
        shutil.rmtree(folder, ignore_errors=True)


def _delete(client: "TrainerClient", name: str) -> None:
    """Delete a TrainJob, if it is there."""
    try:
        client.delete_job(name)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and getattr(error.__cause__, "status", None) != 404:
            raise


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Let SIGTERM be an exception, so that the TrainJob does not outlive the pod that waits for it."""
    if threading.current_thread() is not threading.main_thread():  # Python hears signals there only
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

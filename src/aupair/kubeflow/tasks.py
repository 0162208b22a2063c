"""How one task of a local run is run: in a subprocess or a container, with a log file, its cause of failure kept.

kfp 2.17 reports a container that failed as a success where it was removed before it was asked for its exit code
(kubeflow/pipelines#13332); here it is removed afterwards.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair.errors import ArtifactError, UnreachableError
from aupair.log import Log

if TYPE_CHECKING:
    import docker

PASSED = ("AWS_", "MLFLOW_", "AUPAIR_", "OMP_NUM_THREADS", "http_proxy", "https_proxy", "no_proxy")
"""The variables of this machine that containers get, by how their names begin; subprocesses have all."""


QUIET_SECONDS = 15.0


@dataclass
class Task:
    """One try of one task.

    Attributes:
        name: the component's, with hyphens.
        item: which trial or shard; empty where there is one.
        log: what it printed.
        code: its exit code; None while it runs.
    """

    name: str
    item: str
    log: Path
    code: int | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def title(self) -> str:
        """The name for people: `train-mapping (trial 1)`."""
        return f"{self.name} ({self.item})" if self.item else self.name

    def last_line(self) -> str:
        """Give the last line that it has printed."""
        with open(self.log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        # kfp's own lines are of no use: what the task was given, as JSON, and where it wrote what it gave
        return next((line for line in reversed(lines) if re.match(r"[A-Za-z0-9]", line)), "")

    def traceback(self) -> str:
        """Give the last traceback in the log; empty where there is none."""
        text = self.log.read_text(errors="replace")
        _, head, rest = text.rpartition("Traceback (most recent call last):")
        return (head + rest).rstrip() if head else ""

    def cause(self) -> str:
        """Give the line that says why: the exception, else the last line."""
        lines = [line.strip() for line in (self.traceback() or self.log.read_text(errors="replace")).splitlines()]
        named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
        last = (named or [line for line in lines if line] or [""])[-1]
        return re.sub(r"^aupair\.errors\.\w+: ", "", last)


class Tasks(ABC):
    """The tasks of a run, and how kfp is made to run them our way.

    Args:
        logs: the folder of the logs.
        environment: what every task gets besides.
        folders: folders of this machine that tasks use, and whether they write there.
        log: is told when a task starts and ends.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], folders: Mapping[Path, bool], log: Log) -> None:
        self.logs, self.environment, self.folders, self.log = logs, environment, folders, log
        self.tasks: list[Task] = []
        self.stopped = False
        self._live: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def watched(self) -> contextlib.AbstractContextManager[Any]:
        """Let kfp run its tasks through `run`, and give kfp's runner."""

    @abstractmethod
    def execute(self, image: str, command: Sequence[str], env: Mapping[str, str], task: Task) -> int:
        """Run a command until its end, its output in the task's log, and give its exit code."""

    def run(self, image: str, command: Sequence[str], env: Mapping[str, str]) -> bool:
        """Run one task; say whether it succeeded."""
        if self.stopped:
            return False
        task, ended = self._begin(command), threading.Event()
        self.log.line(f"  > {task.title}")
        threading.Thread(target=self._tell, args=(task, ended), daemon=True).start()
        try:
            task.code = self.execute(image, command, {**env, **self.environment}, task)
        finally:
            ended.set()
            task.code = -1 if task.code is None else task.code
            seconds = time.monotonic() - task.started
            done = "ok" if task.code == 0 else "stopped" if self.stopped else f"FAILED with exit code {task.code}"
            self.log.line(f"  < {task.title}: {done}, {seconds:.1f} s")
            if task.code and not self.stopped:
                self.log.line(f"    {task.cause()}")
        return task.code == 0

    def failed(self) -> Task | None:
        """Give the first task whose last try failed."""
        last = {task.title: task for task in self.tasks}
        return next((task for task in last.values() if task.code), None)

    def stop(self) -> None:
        """Kill what runs and start nothing more: kfp would wait for the end of it."""
        self.stopped = True
        for kill in list(self._live.values()):
            kill()

    @contextlib.contextmanager
    def _alive(self, task: Task, kill: Callable[[], object]) -> Iterator[None]:
        """Know how to kill a task while it runs."""
        self._live[str(task.log)] = kill
        try:
            yield
        finally:
            del self._live[str(task.log)]

    def _tell(self, task: Task, ended: threading.Event) -> None:
        """Say now and then what the task said last."""
        told = ""
        while not ended.wait(QUIET_SECONDS):
            line = task.last_line()
            if line and line != told:
                self.log.line(f"  . {task.title}: {line[:160]}")
                told = line

    def _begin(self, command: Sequence[str]) -> Task:
        """Name a task by its command: kfp hands over the function's name and the arguments as JSON."""
        values = dict(itertools.pairwise(command))
        name = values["--function_to_execute"].replace("_", "-")
        given = json.loads(values["--executor_input"]).get("inputs", {}).get("parameterValues", {})
        item = next((f"{key} {int(given[key])}" for key in ("trial", "shard") if key in given), "")
        with self._lock:
            tries = sum((task.name, task.item) == (name, item) for task in self.tasks)
            stem = "-".join([name, *item.split()[1:], *([f"try{tries + 1}"] if tries else [])])
            task = Task(name, item, self.logs / f"{len(self.tasks):02d}-{stem}.log")
            task.log.touch()
            self.tasks.append(task)
        return task


class Subprocesses(Tasks):
    """Each task in a process of this environment."""

    @contextlib.contextmanager
    def watched(self) -> Iterator[Any]:
        """See `Tasks.watched`."""
        from kfp import local
        from kfp.local import subprocess_task_handler as handlers

        tasks = self

        class Handler(handlers.SubprocessTaskHandler):
            def validate_image(self, image: str) -> None:
                """Say nothing: the image is not used."""

            def run(self) -> Any:
                command = handlers.replace_python_executable(self.full_command, sys.executable)
                return _status(tasks.run(self.image, command, self.env_vars))

        with _replaced(handlers, "SubprocessTaskHandler", Handler):
            yield local.SubprocessRunner(use_venv=False)

    def execute(self, image: str, command: Sequence[str], env: Mapping[str, str], task: Task) -> int:
        """See `Tasks.execute`."""
        with open(task.log, "w") as file:
            process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT)
            with self._alive(task, process.terminate):
                return process.wait()


class Containers(Tasks):
    """Each task in a container of the compiled image, as this user, on this machine's network."""

    @contextlib.contextmanager
    def watched(self) -> Iterator[Any]:
        """See `Tasks.watched`.

        Raises:
            UnreachableError: there is no engine.
        """
        from kfp import local
        from kfp.local import docker_task_handler as handlers

        tasks = self
        engine().close()
        for folder, writes in self.folders.items():
            if writes:
                folder.mkdir(parents=True, exist_ok=True)

        class Handler(handlers.DockerTaskHandler):
            def run(self) -> Any:
                tasks.root = Path(self.pipeline_root)
                return _status(tasks.run(self.image, self.full_command, self.env_vars))

        with _replaced(handlers, "DockerTaskHandler", Handler):
            yield local.DockerRunner()

    root = Path()
    """kfp's folder of artifacts"""

    def execute(self, image: str, command: Sequence[str], env: Mapping[str, str], task: Task) -> int:
        """See `Tasks.execute`."""
        passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED)}
        mounts = {str(path): writes for path, writes in {**self.folders, self.root: True}.items()}
        with contextlib.closing(engine()) as client:
            container = client.containers.create(
                present(client, image),
                list(command),
                environment={**passed, **env},
                volumes={path: {"bind": path, "mode": "rw" if writes else "ro"} for path, writes in mounts.items()},
                network_mode="host",
                shm_size="2g",
                user=f"{os.getuid()}:{os.getgid()}",  # what it writes belongs to who runs this
            )
            try:
                container.start()
                with open(task.log, "wb") as file, self._alive(task, container.kill):
                    for part in container.logs(stream=True, follow=True):
                        file.write(part)
                        file.flush()
                return int(container.wait()["StatusCode"])
            finally:
                container.remove(force=True)


def engine() -> "docker.DockerClient":
    """Connect to the container engine that DOCKER_HOST names, or the usual one.

    Raises:
        UnreachableError: there is none.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise UnreachableError(
            "no container engine", where=os.environ.get("DOCKER_HOST", "the usual socket"), got=str(error)[:200],
            todo="start docker or `podman system service`, and set DOCKER_HOST",
        ) from error  # fmt: skip
    return client


def present(client: "docker.DockerClient", image: str) -> str:
    """Give an image's name with its tag; fetch it where the engine does not have it.

    Raises:
        ArtifactError: it is nowhere.
    """
    import docker

    last = image.rpartition("/")[2]
    full = image if ":" in last or "@" in last else f"{image}:latest"
    try:
        client.images.get(full)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(full)
        except docker.errors.APIError as error:
            got = (error.explanation or str(error))[:200]
            todo = "build it with `make image`, and name it with `aupair pipeline compile --image`"
            raise ArtifactError("no such image", where=full, got=got, todo=todo) from error
    return full


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module's name stand for something else for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _status(succeeded: bool) -> Any:
    """Say it in kfp's words."""
    from kfp.local import status

    return status.Status.SUCCESS if succeeded else status.Status.FAILURE

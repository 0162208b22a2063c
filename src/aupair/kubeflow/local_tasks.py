"""The tasks of a local run, each in a subprocess or a container and with its own log file.

kfp 2.17 reports a failed container as a success if the container was removed before its exit code was read
(kubeflow/pipelines#13332); here the exit code is read first.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from aupair.errors import ArtifactError, UnreachableError
from aupair.log import Log

if TYPE_CHECKING:
    import docker

_PASSED = ("AWS_", "MLFLOW_", "AUPAIR_", "OMP_NUM_THREADS", "http_proxy", "https_proxy", "no_proxy")
"""Prefixes of the variables that are passed from this machine to containers; subprocesses get all variables."""


@dataclass
class _Task:
    """One attempt at one task.

    Attributes:
        name: the component's name, with hyphens.
        item: its trial or shard, such as `trial 1`; empty outside of loops.
        code: the exit code; None while it runs.
        kill: ends the task; None if it does not run.
    """

    name: str
    item: str
    log: Path
    code: int | None = None
    kill: Callable[[], object] | None = None

    @property
    def title(self) -> str:
        """Return the name with the trial or shard: `train-mapping (trial 1)`."""
        return f"{self.name} ({self.item})" if self.item else self.name

    def traceback(self) -> str:
        """Return the last traceback in the log; empty if there is none."""
        text = self.log.read_text(errors="replace")
        _, head, body = text.rpartition("Traceback (most recent call last):")
        return (head + body).rstrip() if head else ""

    def cause(self) -> str:
        """Return the message of the exception that ended the task, else the last line of the log."""
        lines = [line.strip() for line in (self.traceback() or self.log.read_text(errors="replace")).splitlines()]
        exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
        last = (exceptions or [line for line in lines if line] or [""])[-1]
        return re.sub(r"^aupair\.errors\.\w+: ", "", last)


class LocalTasks:
    """The tasks of a local run: kfp schedules them, and this object executes them.

    Args:
        logs: folder of the tasks' logs.
        environment: variables that every task gets in addition.
        folders: folders of this machine that tasks use, and whether they write there.
        log: receives a line when a task starts and when it ends.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], folders: Mapping[Path, bool], log: Log) -> None:
        self._logs, self._environment, self._folders, self._log = logs, environment, folders, log
        self._tasks: list[_Task] = []
        self._stopped = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def kfp_runner(self, containers: bool) -> Iterator[Any]:
        """Yield kfp's runner for subprocesses or containers, which inside the block executes tasks with this object.

        Raises:
            UnreachableError: containers are required, and there is no container engine.
        """
        from kfp import local
        from kfp.local import docker_task_handler, subprocess_task_handler

        if containers:
            _connect_engine().close()
            for folder, writes in self._folders.items():
                if writes:
                    folder.mkdir(parents=True, exist_ok=True)
        with (
            mock.patch.object(subprocess_task_handler, "run_local_subprocess", self._run_subprocess),
            mock.patch.object(docker_task_handler, "run_docker_container", self._run_container),
        ):
            yield local.DockerRunner() if containers else local.SubprocessRunner(use_venv=False)

    def first_failed(self) -> _Task | None:
        """Return the first task whose last attempt failed; None if there is none."""
        last = {task.title: task for task in self._tasks}
        return next((task for task in last.values() if task.code), None)

    def stop(self) -> None:
        """Kill the running tasks and start no more; kfp itself would wait until they end."""
        self._stopped = True
        for task in self._tasks:
            if task.kill:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    task.kill()

    def _run_subprocess(self, full_command: Sequence[str], env_vars: Mapping[str, str]) -> int:
        """Run a task in a subprocess with this Python environment, and return its exit code, as kfp's function does."""

        def execute(task: _Task) -> int:
            variables = {**os.environ, **env_vars, **self._environment}
            with open(task.log, "w") as file:
                process = subprocess.Popen(
                    full_command, env=variables, stdout=file, stderr=subprocess.STDOUT, process_group=0
                )
            task.kill = lambda: os.killpg(process.pid, signal.SIGTERM)  # kfp's command is a shell with a child
            if self._stopped:
                task.kill()
            return process.wait()

        return self._run(full_command, execute)

    def _run_container(
        self,
        client: "docker.DockerClient",
        image: str,
        command: Sequence[str],
        volumes: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a task in a container, as this user and on this machine's network; return its exit code."""

        def execute(task: _Task) -> int:
            passed = {key: value for key, value in os.environ.items() if key.startswith(_PASSED)}
            mounts = {str(path): {"bind": str(path), "mode": "rw" if w else "ro"} for path, w in self._folders.items()}
            container = client.containers.create(
                _find_image(client, image),
                list(command),
                environment={**passed, **(environment or {}), **self._environment},
                volumes={**volumes, **mounts},
                network_mode="host",
                shm_size="2g",
                user=f"{os.getuid()}:{os.getgid()}",  # so that its files belong to the user
            )
            try:
                container.start()
                task.kill = container.kill
                if self._stopped:
                    container.kill()
                with open(task.log, "wb", buffering=0) as file:
                    for part in container.logs(stream=True, follow=True):
                        file.write(part)
                task.kill = None  # the container has ended
                return int(container.wait()["StatusCode"])
            finally:
                container.remove(force=True)

        return self._run(command, execute)

    def _run(self, command: Sequence[str], execute: Callable[[_Task], int]) -> int:
        """Run one task and log its start and its end."""
        if self._stopped:
            return 1
        task, start = self._add(command), time.monotonic()
        self._log.line(f"  > {task.title}: {task.log}")
        try:
            task.code = execute(task)
        except BaseException:
            task.code = -1
            raise
        finally:
            task.kill = None
            result = "ok" if task.code == 0 else "stopped" if self._stopped else f"FAILED with exit code {task.code}"
            self._log.line(f"  < {task.title}: {result}, {time.monotonic() - start:.1f} s")
            if task.code and not self._stopped:
                self._log.line(f"    {task.cause()}")
        return task.code

    def _add(self, command: Sequence[str]) -> _Task:
        """Add and return a new task; its name and trial or shard are read from its command, where kfp puts them as JSON."""
        options = dict(itertools.pairwise(command))
        name = options["--function_to_execute"].replace("_", "-")
        arguments = json.loads(options["--executor_input"]).get("inputs", {}).get("parameterValues", {})
        item = next((f"{key} {int(arguments[key])}" for key in ("trial", "shard") if key in arguments), "")
        with self._lock:
            tries = sum((task.name, task.item) == (name, item) for task in self._tasks)
            stem = "-".join([name, *item.split()[1:], *([f"try{tries + 1}"] if tries else [])])
            task = _Task(name, item, self._logs / f"{len(self._tasks):02d}-{stem}.log")
            task.log.touch()
            self._tasks.append(task)
        return task


def _connect_engine() -> "docker.DockerClient":
    """Return a client of the container engine at DOCKER_HOST, or at the default socket.

    Raises:
        UnreachableError: no container engine answers.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        todo = "start docker or `podman system service`, and set DOCKER_HOST"
        raise UnreachableError("no container engine", where=where, got=str(error)[:200], todo=todo) from error
    return client


def _find_image(client: "docker.DockerClient", image: str) -> str:
    """Return an image's name with its tag; pull it if the engine does not have it.

    Raises:
        ArtifactError: the image cannot be pulled.
    """
    import docker

    last = image.rpartition("/")[2]
    name = image if ":" in last or "@" in last else f"{image}:latest"
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(name)
        except docker.errors.APIError as error:
            got = (error.explanation or str(error))[:200]
            todo = "build it with `make image`, and name it with `aupair pipeline compile --image`"
            raise ArtifactError("no such image", where=name, got=got, todo=todo) from error
    return name

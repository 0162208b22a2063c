"""The folder below work/ in which variants of the flow run: a separate DVC repository with the cache of the user's project.

Outputs that an earlier run on this machine computed from the same inputs and settings are taken from that cache. Variants
thus share stages with equal settings, and an interrupted command continues where it stopped. The user's params, work and
reports are not changed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from aupair import store
from aupair.errors import ArtifactError, RunFailedError
from aupair.extras import require
from aupair.log import Log
from aupair.params import Params
from aupair.pool import count_cores
from aupair.registry import dvc_logging

FOLDER = Path("work") / "variants"
TARGET = "evaluate"
"""The last stage of a variant; register-model is left out."""
CONFIG = """\
[core]
    no_scm = true
    analytics = false
[cache]
    dir = "{cache}"
    type = "reflink,hardlink,copy"
"""


@dataclass(frozen=True)
class Workspace:
    """The workspace of a project.

    Attributes:
        home: the user's project.
    """

    home: Path

    @property
    def root(self) -> Path:
        """Return the folder with the layout of the project: dvc.yaml, params.yaml, data, work and reports."""
        return self.home / FOLDER / "checkout"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the workspace for the block, in which SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

        Raises:
            ArtifactError: another process uses the workspace.
        """
        path = self.home / FOLDER / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            todo = "wait for it, or stop it"
            raise ArtifactError("`aupair ablate` or `distill` is running here", where=path, todo=todo) from error
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            lock.release()

    def prepare(self, params: Params) -> None:
        """Create the repository if needed, and check out the data and the outputs of the user's last run.

        Raises:
            ArtifactError: the project is not a DVC repository, or its data is not tracked or not in the cache.
        """
        require("dvc")
        for name, todo in (
            ("dvc.yaml", "run it in the project's folder"),
            ("data.dvc", "dvc add data"),
            (".dvc", "dvc init"),
        ):
            if not (self.home / name).exists():
                raise ArtifactError("variants of the flow need DVC", where=self.home / name, got="nothing", todo=todo)
        cache = (self.home / _dvc(self.home, "cache", "dir").strip()).resolve()
        config = self.root / ".dvc" / "config"
        store.write_text(config, CONFIG.format(cache=cache))
        # A killed DVC can leave a damaged lock file; no other process uses this repository.
        (config.parent / "tmp" / "rwlock").unlink(missing_ok=True)
        for name in ("dvc.yaml", "data.dvc", "dvc.lock"):
            if (self.home / name).exists():
                shutil.copyfile(self.home / name, self.root / name)
        self._write_params(params)
        _dvc(self.root, "checkout", "--force", "data.dvc", todo="dvc pull data.dvc")
        _dvc(self.root, "checkout", "--force", "--allow-missing")

    def run(self, params: Params, name: str, log: Log) -> None:
        """Run the flow up to evaluate with these params, and write the output of DVC and the stages to logs/NAME.txt.

        Raises:
            RunFailedError: a stage failed.
        """
        self._write_params(params)
        for folder in (self.root / "work" / "f").glob("*"):
            if folder.name not in map(str, params.trials):
                shutil.rmtree(folder)  # stages depend on the whole of work/f; the cache still has the deleted trial
        output = self.home / FOLDER / "logs" / f"{name}.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(output, "w") as file,
            subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", TARGET],
                cwd=self.root,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            ) as child,
        ):
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    file.write(line)
                    file.flush()
                    if line.startswith("Running stage"):
                        log.line("  " + line.strip().rstrip(":").lower())
            except KeyboardInterrupt:
                os.killpg(child.pid, signal.SIGTERM)  # to DVC and its stage; a training stage then saves a checkpoint
                raise
        if child.returncode:
            raise RunFailedError(
                f"the variant {name} failed",
                where=output,
                got=_last_message(output),
                todo="read that file",
            )

    def _write_params(self, params: Params) -> None:
        """Write params.yaml with every key, since dvc.yaml refers to them."""
        store.write_text(self.root / "params.yaml", yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))


def _dvc(folder: Path, *arguments: str, todo: str = "check whether `dvc status` works there") -> str:
    """Run DVC in a folder and return its output.

    Raises:
        ArtifactError: it failed.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    if process.returncode:
        message = (process.stderr.strip() or process.stdout.strip() or "no message").splitlines()[0]
        raise ArtifactError(f"dvc {' '.join(arguments)} failed", where=folder, got=message, todo=todo)
    return process.stdout


def _environment() -> dict[str, str]:
    """Return the environment for DVC and its stages, with the programs of this Python environment first on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    settings = {"DVC_NO_ANALYTICS": "true", "OMP_NUM_THREADS": str(count_threads()), dvc_logging.OFF: "off"}
    return {**os.environ, "PATH": path, **settings}


def count_threads() -> int:
    """Return the number of threads of each stage; it is fixed, since it changes the order of sums, and thus f."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdecimal() else count_cores()


def _last_message(path: Path) -> str:
    """Return the last line of a log file, preferably an error of a stage (`aupair: ...`)."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("aupair: ")]
    return (errors or lines or ["no message"])[-1].removeprefix("aupair: ")

"""Where rows are run: a DVC repository of its own below work/, with the cache of the user's.

DVC shares what two rows have in common: an output that any run on this machine made from the same inputs and settings
is taken from the cache. The user's own params, work and reports are not touched.
"""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aupair import store
from aupair.errors import ArtifactError, RunFailedError
from aupair.log import Log
from aupair.params import Params

TARGET = "evaluate"
"""The stage that a row needs; register-model is left out."""


@dataclass(frozen=True)
class Workspace:
    """A folder with its own dvc.yaml, params.yaml, data and work.

    Attributes:
        home: the user's checkout.
        root: the folder.
    """

    home: Path
    root: Path

    def prepare(self, params: Params) -> None:
        """Make the repository, and bring what the user's last run left: data, and the outputs in dvc.lock.

        Raises:
            ArtifactError: the checkout is no DVC repository, or its data is not tracked or not in the cache.
        """
        for name, todo in (("dvc.yaml", "run it in the checkout"), ("data.dvc", "dvc add data"), (".dvc", "dvc init")):
            if not (self.home / name).exists():
                raise ArtifactError("the ablation runs by DVC", where=self.home / name, got="nothing", todo=todo)
        cache = _dvc(self.home, "cache", "dir").strip()
        if not (self.root / ".dvc").exists():
            self.root.mkdir(parents=True, exist_ok=True)
            _dvc(self.root, "init", "--no-scm")
        (self.root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)  # a kill may have cut it; nobody else is here
        _dvc(self.root, "config", "core.analytics", "false")
        _dvc(self.root, "config", "cache.type", "reflink,hardlink,copy")
        _dvc(self.root, "cache", "dir", str((self.home / cache).resolve()))
        for name in ("dvc.yaml", "data.dvc", "dvc.lock"):
            if (self.home / name).exists():
                shutil.copyfile(self.home / name, self.root / name)
        self._write(params)
        _dvc(self.root, "checkout", "--force", "data.dvc", todo="dvc pull data.dvc")
        _dvc(self.root, "checkout", "--force", "--allow-missing")

    def run(self, params: Params, log: Log, heard: Path) -> None:
        """Bring the flow up to evaluate with these params; the stages' own words go to the file `heard`.

        Raises:
            RunFailedError: a stage failed.
        """
        self._write(params)
        heard.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dvc", "repro", TARGET]
        with (
            open(heard, "w") as file,
            subprocess.Popen(
                command,
                cwd=self.root,
                env=environment(),
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
                os.killpg(child.pid, signal.SIGTERM)  # DVC and its stage: a training stage saves its state at that
                raise
        if child.returncode:
            raise RunFailedError("a row's run", where=heard, got=_last_line(heard), todo="the file says more")

    def _write(self, params: Params) -> None:
        """Write params.yaml; without it DVC cannot read dvc.yaml."""
        store.write_text(self.root / "params.yaml", yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))


def _dvc(folder: Path, *arguments: str, todo: str = "look whether `dvc status` works there") -> str:
    """Run DVC in a folder and give what it printed.

    Raises:
        ArtifactError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[0]
        raise ArtifactError(f"dvc {' '.join(arguments)}", where=folder, got=said, todo=todo)
    return done.stdout


def environment() -> dict[str, Any]:
    """Give the variables for DVC and the stages that it starts: this environment's programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "true"}


def _last_line(path: Path) -> str:
    """Give the last line that a stage or DVC said, `aupair: ...` before all others."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("aupair: ")]
    return (own or lines or ["no word"])[-1].removeprefix("aupair: ")

"""Shared by tests of the whole flow: a tiny corpus, settings that take seconds, a finished flow, the command line."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from services.clock import FakeClock

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell that runs tests in the background makes them, and what they start, ignore Ctrl-C: undo that."""

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
"""The folder of the environment's programs: `aupair`, `dvc`, `lint-imports`."""

NETWORK = {"width": 0.05, "batch_norm": True, "weights": "none", "frozen_convolutions": 0, "dropout": 0.1}
OPTIMISER = {"name": "adamw", "learning_rate": 0.003, "steps": 3, "fold_steps": 2, "batch": 12, "evaluate_every": 2}
TINY: dict[str, Any] = {
    "trials": [0, 1],
    "preprocess_faces": {"size": 32, "workers": 2},
    "sample_pairs": {"frames": 6, "groups": 4, "valid_pairs": 60, "folds": 2},
    "train_pseudo_intensity": {"network": NETWORK, "optimiser": OPTIMISER, "device": "cpu"},
    "train_uncertainty": {"network": NETWORK, "optimiser": OPTIMISER, "device": "cpu"},
    "extract_features": {"windows": [1.0], "context": 0.5, "context_points": 2},
    "train_mapping": {"width": 8, "draws": 64, "epochs": 2, "learning_rate": 0.01, "device": "cpu"},
    "evaluate": {"bootstrap": 50},
}
"""Networks that learn nothing, on eight people: every stage in a second or two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with slow tests first, so that no worker waits at the end for one that is in a long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """Return the only line on standard error, without the program's name."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("aupair: "), self.err
        return lines[0].removeprefix("aupair: ")


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The tiny settings as Params."""
    from aupair.params import parse_params

    return parse_params(TINY)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of eight people, 30 frames each; every AU is active in every split. Tests must not change it."""
    from aupair.synth.corpus import SynthParams, synthesise

    with _once(tmp_path_factory, "corpus") as folder:
        if not folder.exists():
            synthesise(folder, SynthParams(subjects=8, seconds=5, fps=6, workers=2))
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny: Any) -> Path:
    """A folder in which the flow has run up to evaluate, see `run_flow`. Tests must not change it."""
    from aupair import store

    with _once(tmp_path_factory, "finished") as folder:
        if not folder.exists():
            with store.atomic(folder) as root:
                run_flow(root, corpus, tiny)
    return folder


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test use the MLflow store of its folder: MLflow leaves the address of the last one in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that the variable is restored after the test
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def copied_tables(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Create MLflow's tables once, and copy them into each new store of this process: MLflow takes seconds for them."""
    from aupair import store
    from aupair.registry import mlflow_store

    create = mlflow_store._create_tables

    def copy(uri: str) -> None:
        with _once(tmp_path_factory, "tables.db") as tables:
            if not tables.exists():
                with store.atomic(tables) as temporary:
                    create(f"sqlite:///{temporary}")
        shutil.copyfile(tables, uri.removeprefix("sqlite:///"))

    monkeypatch.setattr(mlflow_store, "_create_tables", copy)


@pytest.fixture(autouse=True)
def no_answer_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test be the first that speaks to a service, as a process is."""
    monkeypatch.setattr("aupair.retry._answered", set())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A clock of aupair.retry on which time passes by sleeping alone."""
    fake = FakeClock()
    monkeypatch.setattr("aupair.retry.time", fake)
    return fake


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished flow, as the current folder."""
    folder = Path(shutil.copytree(finished, tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fresh(corpus: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and params.yaml in which no stage has run, as the current folder."""
    root = tmp_path / "fresh"
    shutil.copytree(corpus, root / "data")
    (root / "params.yaml").write_text(as_yaml(tiny))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def aupair(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in this process; the output of native code is captured as well."""
    from aupair.cli import main as cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["aupair", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copy the working tree, with uncommitted and without ignored files, into a new git repository."""

    def make(name: str) -> Path:
        target = tmp_path_factory.mktemp(name) / "aupair"
        listed = _git(REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for path in filter(None, listed):
            if (REPOSITORY / path).is_file():
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / path, target / path)
        _git(target, "init", "-q")
        _git(target, "add", "-A")
        _git(target, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "--no-verify", "-m", "all")
        return target

    return make


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for commands in a clone: this environment's programs, and no settings or caches of the user."""
    own = tmp_path_factory.mktemp("settings")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "GIT_"))},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DVC_GLOBAL_CONFIG_DIR": str(own),
        "DVC_SYSTEM_CONFIG_DIR": str(own),
        "DVC_SITE_CACHE_DIR": str(own / "cache"),
        "DVC_NO_ANALYTICS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }


def run_flow(root: Path, corpus: Path, params: Any) -> None:
    """Run the flow up to evaluate in a new folder; it then has data, work, reports, params.yaml and mlflow."""
    from aupair import stages, store

    shutil.copytree(corpus, root / "data")
    shutil.copytree(REPOSITORY / "mlflow", root / "mlflow")
    store.write_text(root / "params.yaml", as_yaml(params))
    for stage in stages.FLOW[:-1]:
        stages.run_stage(stage.name, params, root=root)


def artifact(root: Path, name: str, trial: int = 0) -> Path:
    """Return the path of an artifact below a working folder."""
    from aupair.stage import ARTIFACTS

    return root / ARTIFACTS[name].format(trial=trial)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, or of the file itself, by its name."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files_below(folder: Path) -> dict[str, int]:
    """Return every file below a folder with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def as_yaml(params: Any) -> str:
    """Return Params as the text of a params.yaml."""
    import yaml

    return str(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))


@contextmanager
def _once(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Yield a folder that all workers of this run share, to one of them at a time."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / f"{name}.lock"):
        yield shared / name


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout

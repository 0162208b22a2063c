"""Commands that are killed at a random moment of their whole duration, and what must hold after the next run."""

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attack.sandbox import kill_after, run
from conftest import contents
from services.racers import GATE

NAME = "raced"


@dataclass(frozen=True)
class Killed:
    """A command that is killed.

    Attributes:
        start: the call that is killed; it runs in its folder.
        outputs: what it writes; after the last call they have the bytes of a run that nobody killed.
        end: the call that follows the kills; None: the same.
        check: raises if the folder is not as it must be afterwards.
        template: the folder in which it runs: flow (a finished flow and its bundle), frozen (one whose f has a frozen trunk), store
            (a registry) or empty.
        quick: whether it is in the small dose of `make test`; the others take seconds of a core.
    """

    start: Callable[[], object]
    outputs: tuple[str, ...] = ()
    end: Callable[[], object] | None = None
    check: Callable[[], object] = int
    template: str = "flow"
    quick: bool = False


class Victim:
    """A command in a folder, which is killed, run again, and compared with a run that nobody killed."""

    def __init__(self, command: Killed, template: Path, folder: Path) -> None:
        self._command, self._template, self._folder = command, template, folder
        reset(folder, template, command.outputs)
        start = time.monotonic()
        self._run(command.start)
        self._seconds = time.monotonic() - start
        self._run(command.end or command.start)
        self._run(command.check)
        self._expected = read_outputs(folder, command.outputs)

    def attack(self, rng: random.Random) -> int:
        """Kill the command one to three times, and let it end; return how many kills came before its end.

        Raises:
            AssertionError: an output differs, something temporary was left, or a check fails.
        """
        reset(self._folder, self._template, self._command.outputs)
        call = partial(in_folder, self._folder, self._command.start)
        moments = [rng.uniform(0, self._seconds) for _ in range(rng.randint(1, 3))]
        hits = sum(kill_after(moment, call) for moment in moments)
        at = "killed after " + ", ".join(f"{moment:.3f}" for moment in moments) + f" of {self._seconds:.3f} s"
        self._run(self._command.end or self._command.start, at)
        self._run(self._command.check, at)
        left = [path for path in self._folder.rglob(".*") if path.name.endswith((".tmp", "-in-progress"))]
        assert not left, f"{at}: left {left[:3]}"
        outputs = read_outputs(self._folder, self._command.outputs)
        differing = [name for name in {**outputs, **self._expected} if outputs.get(name) != self._expected.get(name)]
        assert not differing, f"{at}: other bytes in {sorted(differing)[:5]}"
        return hits

    def _run(self, call: Callable[[], object], at: str = "never killed") -> None:
        verdict = run(in_folder, self._folder, call)
        assert verdict.kind == "accepted", f"{at}: {verdict.kind}: {verdict.detail}"


def reset(folder: Path, template: Path, outputs: Sequence[str]) -> None:
    """Make a folder a copy of another one, without some outputs."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    for name in outputs:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_outputs(folder: Path, outputs: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of each file of some outputs."""
    return {f"{name}/{inner}": data for name in outputs for inner, data in contents(folder / name).items()}


def in_folder(folder: Path, call: Callable[[], object]) -> None:
    """Make a call in a folder."""
    os.chdir(folder)
    call()


def run_stage(name: str) -> None:
    """Run a stage on all trials."""
    from aupair import stages
    from aupair.params import load_params

    stages.run_stage(name, load_params(Path("params.yaml")))


def preprocess_two() -> None:
    """Find and align the faces of two videos, so that a run is short."""
    from aupair.data.layout import list_video_jobs
    from aupair.faces.folder import preprocess
    from aupair.params import load_params

    jobs = list_video_jobs(Path("data"), Path("work/labels.parquet"))[:2]
    preprocess(jobs, Path("work/faces"), load_params(Path("params.yaml")).preprocess_faces)


def synthesise() -> None:
    """Write a small corpus."""
    from aupair.synth.corpus import SynthParams, synthesise

    synthesise(Path("new"), SynthParams(subjects=4, seconds=1, fps=5, workers=1))


def synthesise_again() -> None:
    """Write the corpus unless it is there."""
    if not Path("new").exists():
        synthesise()


def predict() -> None:
    """Predict two videos, and continue where an earlier run was killed."""
    from aupair.api import Recognizer
    from aupair.inference.output import claim_output, describe_settings
    from aupair.inference.predict import predict_videos

    out, recognizer = Path("predictions"), Recognizer.load("bundle", "cpu")
    settings = describe_settings("bundle", recognizer.sha256, recognizer.aus, None, None)
    videos = sorted(Path("data/videos").iterdir())[:2]
    predict_videos(videos, recognizer, out, None, earlier=claim_output(out, settings))


def create_store() -> None:
    """Make an MLflow store if there is none, and ask it something."""
    from aupair.registry.mlflow_store import open_mlflow

    assert open_mlflow(create=True).search_registered_models() is not None


def check_tables() -> None:
    """Check that the store is whole and that nothing temporary is left beside it."""
    with sqlite3.connect("mlflow.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not list(Path().glob(".mlflow.db.*"))


def check_one_version() -> None:
    """Check that one version is registered, is the challenger, and can be loaded."""
    from aupair.registry import versions

    (version,) = versions.list_versions("aupair")
    assert (version.number, version.aliases) == (1, ("challenger",)), version
    assert versions.resolve_bundle("models:/aupair/1").is_dir()


def promote(number: int) -> None:
    """Promote a version."""
    from aupair.registry.promotion import promote_version

    promote_version(number, gate=GATE, name=NAME)


def roll_back() -> None:
    """Roll back."""
    from aupair.registry.promotion import roll_back

    roll_back(NAME)


def check_aliases(allowed: Sequence[dict[str, int]]) -> None:
    """Check that the aliases are those of one of some histories, and no change is open."""
    from aupair.registry import mlflow_store, moves

    aliases = moves.read_aliases(mlflow_store.open_mlflow(), NAME)
    assert dict(aliases.versions) in allowed, aliases.versions
    assert {move.state for move in aliases.moves} <= {"done"}, aliases.moves


COMMANDS: dict[str, Killed] = {
    "check-data": Killed(partial(run_stage, "check-data"), ("work/labels.parquet", "work/data.json", "reports/data_docs")),
    "preprocess-faces": Killed(preprocess_two, ("work/faces",)),
    "sample-pairs": Killed(partial(run_stage, "sample-pairs"), ("work/pairs",), quick=True),
    "embed-faces": Killed(partial(run_stage, "embed-faces"), ("work/embeddings",), template="frozen", quick=True),
    "train-pseudo-intensity": Killed(partial(run_stage, "train-pseudo-intensity"), ("work/f",)),
    "train-uncertainty": Killed(partial(run_stage, "train-uncertainty"), ("work/h",)),
    "extract-features": Killed(partial(run_stage, "extract-features"), ("work/features",), quick=True),
    "train-mapping": Killed(partial(run_stage, "train-mapping"), ("work/mapping",), quick=True),
    "evaluate": Killed(
        partial(run_stage, "evaluate"),
        ("work/selection.json", "reports/metrics.json", "reports/summary.json", "reports/draws.json", "reports/table.md",
         "reports/report.html", "reports/plots"),
    ),
    "register-model": Killed(partial(run_stage, "register-model"), check=check_one_version),
    "promote": Killed(
        partial(promote, 2), end=partial(promote, 2), check=partial(check_aliases, [{"champion": 2, "previous": 3}]),
        template="store",
        quick=True,
    ),
    "rollback": Killed(
        roll_back,
        end=partial(promote, 2),
        check=partial(check_aliases, [{"champion": 2, "previous": 3}, {"champion": 2, "previous": 1}]),
        template="store",
        quick=True,
    ),
    "predict": Killed(predict, ("predictions",)),
    "synth": Killed(synthesise, ("new",), end=synthesise_again, template="empty", quick=True),
    "the making of a store": Killed(create_store, check=check_tables, template="empty", quick=True),
}  # fmt: skip
"""Every stage, and every other command that changes something; a store is sqlite's."""


def write_templates(base: Path, finished: Path) -> None:
    """Write the folders flow, frozen, store and empty below a folder."""
    from aupair.inference.bundle import write_bundle
    from aupair.params import load_params
    from aupair.registry.mlflow_store import open_mlflow
    from bundle_parts import parts_of_flow

    flow = base / "flow"
    shutil.copytree(finished, flow)
    params = load_params(flow / "params.yaml")
    write_bundle(flow / "bundle", parts_of_flow(flow, params), params)
    _write_frozen(base / "frozen", flow)
    (base / "empty").mkdir()
    (base / "store").mkdir()
    shutil.copytree(finished / "mlflow", base / "store" / "mlflow")
    os.chdir(base / "store")
    open_mlflow(create=True)
    shutil.copyfile("mlflow.db", flow / "mlflow.db")  # register-model need not make one each time
    register_three()


def _write_frozen(folder: Path, flow: Path) -> None:
    """Copy a flow, with the features of a frozen trunk."""
    from aupair import store
    from aupair.params import load_params

    params = load_params(flow / "params.yaml", ["train_pseudo_intensity.network.frozen=true", "embed_faces.copies=1"])
    shutil.copytree(flow, folder)
    store.write_json(folder / "params.yaml", params.model_dump(mode="json"))  # JSON is YAML
    os.chdir(folder)
    run_stage("embed-faces")


def register_three() -> None:
    """Register three versions, the third of which is the champion, after the first."""
    from aupair.aus import AFFWILD2
    from aupair.registry.mlflow_store import open_mlflow

    client = open_mlflow(create=True)
    client.create_registered_model(NAME)
    for score in (0.6, 0.7, 0.65):
        tags = {f"selection.{au}": "P1" for au in AFFWILD2} | {"score.p2": f"{score:.6f}", "data.md5": "a"}
        client.create_model_version(NAME, "s3://nowhere/model", tags=tags)
    set_aliases()


def set_aliases() -> None:
    """Make version 3 the champion, after version 1, and delete the records of changes."""
    from aupair.registry.mlflow_store import open_mlflow

    client = open_mlflow()
    for key in client.get_registered_model(NAME).tags:
        client.delete_registered_model_tag(NAME, key)
    for alias, number in (("champion", 3), ("previous", 1)):
        client.set_registered_model_alias(NAME, alias, str(number))

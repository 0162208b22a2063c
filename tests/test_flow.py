"""The whole flow in this process, on a tiny corpus: what it leaves, that it repeats, the registry, prediction."""

import csv
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.scores import read_sigma, read_y_hat

Command = Callable[..., Any]
ROWS = ("all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2")
INTERVALS = ("f1", "accuracy", "score")

RETRAIN = """
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

allowed = {"aupair"}
waiting = ["torch", "torchvision", "numpy", "pyarrow", "opencv-python", "pydantic", "pyyaml", "safetensors"]
while waiting:
    name = waiting.pop().lower().replace("_", "-")
    if name not in allowed:
        allowed.add(name)
        try:
            waiting += [Requirement(text).name for text in requires(name) or () if "extra" not in text]
        except PackageNotFoundError:
            pass
owners = packages_distributions()
refused = {"dlib"} | {m for m, names in owners.items() if not {n.lower().replace("_", "-") for n in names} & allowed}
assert {"mlflow", "pandas", "matplotlib", "great_expectations", "scipy", "dlib", "rich", "typer", "dvc"} <= refused


class Refuse:
    # Lets libraries look whether a module is there, and refuses to load it.

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in refused else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"the training path must not import {spec.name}", name=spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Refuse())
for name in [name for name in sys.modules if name.partition(".")[0] in refused]:
    del sys.modules[name]
from pathlib import Path
from aupair import stages
from aupair.params import load

for name in ("train-pseudo-intensity", "train-uncertainty", "extract-features", "train-mapping"):
    stages.run(name, load(Path("params.yaml")), trial=1)
"""


def artifact(root: Path, name: str, trial: int = 0) -> Path:
    return root / stages.ARTIFACTS[name].format(trial=trial)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder (or the file itself) by its name."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_stage_leaves_what_the_flow_says_and_nothing_else(finished: Path, tiny: Params) -> None:
    written = {artifact(finished, name, t) for s in stages.FLOW[:-1] for name in s.writes for t in tiny.trials}
    for path in written:
        assert contents(path), path
    for folder in ("work", "reports"):
        for path in (finished / folder).rglob("*"):
            assert path.is_dir() or any(path == w or w in path.parents for w in written), path


def test_a_row_for_every_frame_all_the_way(finished: Path, tiny: Params) -> None:
    frames = load_frames(artifact(finished, "labels"), artifact(finished, "faces"))
    assert len(frames) == 8 * 30
    assert [int(frames.of_split(split).sum()) for split in SPLITS] == [120, 60, 60]
    assert frames.ok.mean() > 0.9
    for trial in tiny.trials:
        for values in (
            read_y_hat(artifact(finished, "f", trial), len(frames)),
            read_sigma(artifact(finished, "h", trial), len(frames)),
        ):
            np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(frames.ok[:, None], values.shape))


def test_trials_differ(finished: Path) -> None:
    for name in ("f", "h", "features", "mapping"):
        assert contents(artifact(finished, name, 0)) != contents(artifact(finished, name, 1)), name


def test_metrics_have_the_keys_that_others_rely_on(finished: Path) -> None:
    metrics = store.read_json(artifact(finished, "metrics"))
    assert {(row["name"], row["split"]) for row in metrics["rows"]} == {
        (name, split) for name in ROWS for split in ("select", "validation")
    }
    for row in metrics["rows"]:
        assert all(0 <= row[key] <= 1 for key in ("f1", "accuracy", "exact_match", "score"))
        assert row["score"] == pytest.approx((row["f1"] + row["accuracy"]) / 2)
        assert all(len(row["intervals"][key]) == 2 for key in INTERVALS)
        assert set(row["per_au"]) == set(AUS)
    numbers = {
        "pair_accuracy": ("clear", "mean"),
        "uncertainty.pair_nll": ("h", "constant"),
        "uncertainty.auroc_correct": ("margin", "margin_over_sigma"),
        "uncertainty.gain_at_80": ("sigma", "random", "cover"),
        "uncertainty.spearman_misorder": ("mean",),
        "uncertainty.auroc_own_region": ("mean",),
    }
    for path, keys in numbers.items():
        tree = metrics
        for part in path.split("."):
            tree = tree[part]
        for key in keys:
            assert isinstance(tree[key], float), f"{path}.{key}"
            assert math.isfinite(tree[key]), f"{path}.{key}"


def test_the_selection_names_a_mapping_and_its_evidence_for_each_au(finished: Path, tiny: Params) -> None:
    selection = store.read_json(artifact(finished, "selection"))
    assert selection["trial"] in tiny.trials
    for au in AUS:
        assert selection[au]["variant"] in ("P1", "P2")
        assert {"threshold", "difference", "difference_interval", "probability_with_better"} <= set(selection[au])
        chosen = "P1" if selection[au]["difference"] > selection["tie"] else "P2"
        assert selection[au]["variant"] == chosen, au


def test_the_reports_can_be_opened(finished: Path) -> None:
    table = artifact(finished, "table").read_text()
    assert "Synthetic faces" in table
    assert "not accuracy on people" in table
    pictures = sorted(path.name for path in artifact(finished, "plots").iterdir())
    assert pictures == ["f1.png", "reliability.png", "risk_coverage.png", "timelines.png"]
    assert all(cv2.imread(str(artifact(finished, "plots") / name)) is not None for name in pictures)
    assert (artifact(finished, "data_docs") / "index.html").exists()


def test_training_repeats_to_the_byte_with_nothing_but_its_own_libraries(home: Path) -> None:
    names = ("f", "h", "features", "mapping")
    before = {name: contents(artifact(home, name, 1)) for name in names}
    for name in names:
        shutil.rmtree(artifact(home, name, 1))
    done = subprocess.run([sys.executable, "-c", RETRAIN], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert contents(artifact(home, name, 1)) == before[name], name


def test_no_stage_before_evaluate_can_read_the_conditions(home: Path, tiny: Params) -> None:
    readers = [stage.name for stage in stages.FLOW if "data" in stage.reads]
    assert readers == ["check-data", "preprocess-faces", "evaluate"], "all others do not get the folder at all"
    before = {name: contents(artifact(home, name)) for name in ("labels", "faces")}
    (home / "data" / "conditions.csv").unlink()
    shutil.rmtree(artifact(home, "faces"))
    for name in readers[:2]:
        stages.run(name, tiny, root=home)
    assert {name: contents(artifact(home, name)) for name in before} == before


def test_evaluate_goes_by_the_list_of_trials_and_not_by_what_lies_there(home: Path, tiny: Params) -> None:
    only = tiny.model_copy(update={"trials": (1,)})
    stages.run("evaluate", only, root=home)
    assert store.read_json(artifact(home, "selection"))["trial"] == 1
    shutil.rmtree(home / "work" / "trials" / "0")
    stages.run("evaluate", only, root=home)
    with pytest.raises(ArtifactError, match=r"^missing input: in .*trials/0/f; run train-pseudo-intensity first$"):
        stages.run("evaluate", tiny, root=home)


def test_without_conditions_the_flow_ends_too(home: Path, tiny: Params) -> None:
    (home / "data" / "conditions.csv").unlink()
    stages.run("evaluate", tiny, root=home)
    metrics = store.read_json(artifact(home, "metrics"))
    assert metrics["pair_accuracy"]["clear"] is None
    assert metrics["uncertainty"]["gain_at_80"]["cover"] is None
    assert "Synthetic" not in artifact(home, "table").read_text()


def blank(path: Path, frames: int = 7) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for _ in range(frames):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_from_registered_to_champion_to_predictions_and_back(home: Path, aupair: Command) -> None:
    """One story, since each step needs the one before."""
    video = home / "data" / "videos" / "s003c0.mp4"
    early = aupair("predict", video, "--out", "early")
    assert early.code == 5
    assert early.line.startswith("no MLflow store yet")
    assert not (home / "early").exists()

    first = _register(home, aupair)
    assert (first["version"], first["created"]) == (1, True)
    _check_version(home)
    runs = _runs()
    again = _register(home, aupair)
    assert (again["version"], again["created"], again["sha256"]) == (1, False, first["sha256"])
    assert (_runs(), len(_versions())) == (runs, 1), "nothing new"

    early = aupair("predict", video, "--out", "early")
    assert early.code == 5
    assert "has no champion yet" in early.line
    assert "aupair registry promote VERSION" in early.line
    assert aupair("registry", "promote", 1).code == 0
    _check_predictions(home, aupair, video)

    second = _register(home, aupair, "--set", "check_data.few_positives=7")
    assert (second["version"], second["created"]) == (2, True)
    assert aupair("registry", "promote", 2).code == 0
    assert _champion() == 2
    shown = aupair("registry", "list")
    assert shown.code == 0
    assert all(text in shown.out for text in ("champion", "previous"))
    assert aupair("registry", "rollback").code == 0
    assert _champion() == 1
    assert aupair("registry", "rollback").line.startswith("nothing to roll back to")


def test_what_is_served_is_what_was_trained(home: Path, aupair: Command) -> None:
    """A frame that predict decodes itself gets the very scores that the flow gave it, and so the same decisions."""
    _register(home, aupair)
    assert aupair("predict", "data/videos/s003c0.mp4", "--model", "models:/aupair/1", "--out", "out").code == 0
    trial = store.read_json(artifact(home, "selection"))["trial"]
    frames = load_frames(artifact(home, "labels"), artifact(home, "faces"))
    mine = frames.video == frames.videos.index("s003c0")
    found = rows(home / "out" / "s003c0.csv")
    for column, values in (
        ("pseudo_intensity", read_y_hat(artifact(home, "f", trial), len(frames))),
        ("uncertainty", read_sigma(artifact(home, "h", trial), len(frames))),
    ):
        served = np.array([[float(row[f"{au}_{column}"] or "nan") for au in AUS] for row in found])
        stored = values[mine]
        np.testing.assert_allclose(served, stored, rtol=0, atol=1e-5, err_msg=column)  # NaN where there is no face


def _register(home: Path, aupair: Command, *more: str) -> dict[str, Any]:
    """Run register-model and give what it wrote."""
    outcome = aupair("run", "register-model", *more)
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = store.read_json(artifact(home, "registered"))
    return found


def _versions() -> list[Any]:
    from aupair.registry.versions import versions

    return versions()


def _champion() -> int:
    return next(version.number for version in _versions() if "champion" in version.aliases)


def _runs() -> set[str]:
    """The ids of all runs."""
    from aupair.registry import tracking

    client = tracking.connect()
    return {run.info.run_id for run in client.search_runs([tracking.experiment_id(client, "aupair")])}


def _check_version(home: Path) -> None:
    """The version says what the files say; its flow has a run for each stage and trial, with curves and reports."""
    from aupair.registry import tracking

    (version,) = _versions()
    selection, metrics = store.read_json(artifact(home, "selection")), store.read_json(artifact(home, "metrics"))
    assert version.aliases == ("challenger",)
    assert {au: version.tags[f"selection.{au}"] for au in AUS} == {au: selection[au]["variant"] for au in AUS}
    assert version.tags["data.md5"] == store.read_json(artifact(home, "info"))["md5"]
    select = {row["name"]: row["score"] for row in metrics["rows"] if row["split"] == "select"}
    assert float(version.tags["score.p1"]) == pytest.approx(select["P1"], abs=1e-6)
    assert float(version.tags["score.p2"]) == pytest.approx(select["P2"], abs=1e-6)
    client = tracking.connect()
    nested = client.search_runs(
        [tracking.experiment_id(client, "aupair")], f"tags.mlflow.parentRunId = '{version.run_id}'"
    )
    assert sorted(run.info.run_name for run in nested) == sorted(
        name for s in stages.FLOW[:-1] for name in ([f"{s.name}-{t}" for t in (0, 1)] if s.per_trial else [s.name])
    )
    kept = {entry.path for entry in client.list_artifacts(version.run_id)}
    assert {"table.md", "plots", "metrics.json"} <= kept
    trained = next(run for run in nested if run.info.run_name == "train-pseudo-intensity-0")
    steps = {m.step for m in client.get_metric_history(trained.info.run_id, "f.final/train_loss")}
    assert steps == {row["step"] for row in _curves(home) if row["network"] == "f.final"}


def _curves(home: Path) -> list[dict[str, Any]]:
    return store.read_jsonl(artifact(home, "f") / "curves.jsonl")


def _check_predictions(home: Path, aupair: Command, video: Path) -> None:
    """Two videos with faces, one without, one that is none: a row for every frame, a summary, exit code 0."""
    other = home / "data" / "videos" / "s000c0.mp4"
    blank(home / "blank.mp4")
    (home / "broken.mp4").write_bytes(b"no video")
    done = aupair("predict", video, other, "blank.mp4", "broken.mp4", "--out", "predictions")
    assert done.code == 0, done.err
    out = home / "predictions"
    summary = {Path(row["video"]).name: (row["status"], row["frames"]) for row in rows(out / "summary.csv")}
    assert summary == {
        "s003c0.mp4": ("ok", "30"), "s000c0.mp4": ("ok", "30"), "blank.mp4": ("no_face", "7"),
        "broken.mp4": ("unreadable", "0"),
    }  # fmt: skip
    for name, count in (("s003c0", 30), ("s000c0", 30), ("blank", 7)):
        table = rows(out / f"{name}.csv")
        assert [int(row["frame"]) for row in table] == list(range(count))
        assert list(table[0])[:8] == [
            "frame", "time_s", "status", "AU1", "AU1_raw", "AU1_pseudo_intensity", "AU1_uncertainty", "AU1_confidence",
        ]  # fmt: skip
        for row in table:
            assert all((row[au] in ("0", "1")) == (row["status"] == "ok") for au in AUS)
            assert all(0 <= float(row[f"{au}_confidence"]) <= 1 for au in AUS if row["status"] == "ok")
        assert cv2.imread(str(out / f"{name}.png")) is not None
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["summary.csv", *(f"{name}.{kind}" for name in ("s003c0", "s000c0", "blank") for kind in ("csv", "png"))]
    )
    none = aupair("predict", "broken.mp4", "--out", "nothing")
    assert none.code == 3
    assert "no video could be read" in none.err.splitlines()[-1]
    assert _champion() == 1

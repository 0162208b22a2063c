"""From the flow's outputs to a registered model, the champion, and predictions; by the command line."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.data.frames import load_frames
from aupair.evaluation.selection import MAPPINGS
from aupair.ranking.ensemble import load_ensemble
from aupair.ranking.scores import read_sigma
from conftest import Command, artifact, rows_of
from videos import write_grey_video


@pytest.mark.slow
def test_from_registered_to_champion_to_predictions_and_back(home: Path, aupair: Command) -> None:
    """One story, since each step needs the one before."""
    video = home / "data" / "videos" / "s003c0.mp4"
    early = aupair("predict", video, "--out", "early")
    assert early.code == 5
    assert early.line.startswith("no MLflow store yet")
    assert not (home / "early").exists()

    first = _register(home, aupair)
    assert first["version"] == 1
    _check_version(home)
    runs = _runs()
    again = _register(home, aupair)
    assert again == first, "the file is the same, so that DVC's lock is"
    assert (_runs(), len(_versions())) == (runs, 1), "nothing new"

    early = aupair("predict", video, "--out", "early")
    assert early.code == 5
    assert "has no champion yet" in early.line
    assert "aupair registry promote VERSION" in early.line
    assert aupair("registry", "promote", 1).code == 0
    _check_predictions(home, aupair, video)

    second = _register(home, aupair, "--set", "check_data.few_positives=7")
    assert second["version"] == 2
    assert aupair("registry", "promote", 2).code == 0
    assert _champion() == 2
    shown = aupair("registry", "list")
    assert shown.code == 0
    assert all(text in shown.out for text in ("champion", "previous"))
    assert aupair("registry", "rollback").code == 0
    assert _champion() == 1
    assert aupair("registry", "rollback").line.startswith("no version to roll back to")


def test_what_is_served_is_what_was_trained(home: Path, aupair: Command) -> None:
    """A frame that predict decodes itself gets the very scores that the flow gave it, and so the same decisions."""
    _register(home, aupair)
    assert aupair("predict", "data/videos/s003c0.mp4", "--model", "models:/aupair/1", "--out", "out").code == 0
    frames = load_frames(artifact(home, "labels"), artifact(home, "faces"))
    of_video = frames.video == frames.videos.index("s003c0")
    lines = rows_of(home / "out" / "s003c0.csv")
    for column, values in (
        ("pseudo_intensity", load_ensemble([artifact(home, "f", k) for k in (0, 1)], len(frames), "all").y_hat),
        ("uncertainty", read_sigma(artifact(home, "h"), len(frames))),
    ):
        served = np.array([[float(row[f"{au}_{column}"] or "nan") for au in AFFWILD2] for row in lines])
        stored = values[of_video]
        np.testing.assert_allclose(served, stored, rtol=0, atol=1e-5, err_msg=column)  # NaN where there is no face


@pytest.mark.parametrize("model", ["work/bundle", "models:/aupair/1"])
def test_the_python_interface_returns_the_table_that_the_command_writes(
    home: Path, aupair: Command, model: str
) -> None:
    from aupair import Recognizer

    _register(home, aupair)
    assert aupair("predict", "data/videos/s003c0.mp4", "--model", model, "--out", "out").code == 0
    table = Recognizer.load(model).predict("data/videos/s003c0.mp4")
    written = pd.read_csv(home / "out" / "s003c0.csv", dtype=dict.fromkeys(AFFWILD2, "Int8"))
    pd.testing.assert_frame_equal(table, written, check_dtype=False, atol=1e-5)


def _register(home: Path, aupair: Command, *more: str) -> dict[str, Any]:
    """Run register-model and return what it wrote."""
    outcome = aupair("run", "register-model", *more)
    assert outcome.code == 0, outcome.err
    registered: dict[str, Any] = store.read_json(artifact(home, "registered"))
    return registered


def _versions() -> list[Any]:
    from aupair.registry.versions import list_versions

    return list_versions()


def _champion() -> int:
    return next(version.number for version in _versions() if "champion" in version.aliases)


def _runs() -> set[str]:
    """Return the ids of all runs."""
    from aupair.registry import mlflow_store

    client = mlflow_store.open_mlflow()
    return {run.info.run_id for run in client.search_runs([mlflow_store.get_or_create_experiment(client, "aupair")])}


def _check_version(home: Path) -> None:
    """Check the version's tags against the files, and that its flow has a run for each stage and trial."""
    from aupair.registry import mlflow_store

    (version,) = _versions()
    selection, metrics = store.read_json(artifact(home, "selection")), store.read_json(artifact(home, "metrics"))
    assert version.aliases == ("challenger",)
    assert {au: MAPPINGS[version.tags[f"selection.{au}"] == "P1"] for au in AFFWILD2} == {
        au: selection[au]["mapping"] for au in AFFWILD2
    }
    assert version.tags["data.md5"] == store.read_json(artifact(home, "info"))["md5"]
    select = {row["name"]: row["score"] for row in metrics["rows"] if row["split"] == "select"}
    assert float(version.tags["score.p1"]) == pytest.approx(select["P1"], abs=1e-6)
    assert float(version.tags["score.p2"]) == pytest.approx(select["P2"], abs=1e-6)
    client = mlflow_store.open_mlflow()
    nested = client.search_runs(
        [mlflow_store.get_or_create_experiment(client, "aupair")], f"tags.mlflow.parentRunId = '{version.run_id}'"
    )
    assert sorted(run.info.run_name for run in nested) == sorted(
        name for s in stages.FLOW[:-1] for name in ([f"{s.name}-{t}" for t in (0, 1)] if s.per_trial else [s.name])
    )
    logged = {entry.path for entry in client.list_artifacts(version.run_id)}
    assert {"table.md", "plots", "metrics.json"} <= logged
    trained = next(run for run in nested if run.info.run_name == "train-pseudo-intensity-0")
    steps = {m.step for m in client.get_metric_history(trained.info.run_id, "f.final/train_loss")}
    assert steps == {row["step"] for row in _curves(home) if row["network"] == "f.final"}


def _curves(home: Path) -> list[dict[str, Any]]:
    return store.read_jsonl(artifact(home, "f") / "curves.jsonl")


def _check_predictions(home: Path, aupair: Command, video: Path) -> None:
    """Predict two videos with faces, one without and a broken one: a row for every frame, a summary, exit code 0."""
    other = home / "data" / "videos" / "s000c0.mp4"
    write_grey_video(home / "blank.mp4", *[90] * 7)
    (home / "broken.mp4").write_bytes(b"no video")
    done = aupair("predict", video, other, "blank.mp4", "broken.mp4", "--out", "predictions")
    assert done.code == 0, done.err
    out = home / "predictions"
    summary = {Path(row["video"]).name: (row["status"], row["frames"]) for row in rows_of(out / "summary.csv")}
    assert summary == {
        "s003c0.mp4": ("ok", "30"), "s000c0.mp4": ("ok", "30"), "blank.mp4": ("no_face", "7"),
        "broken.mp4": ("unreadable", "0"),
    }  # fmt: skip
    for name, count in (("s003c0", 30), ("s000c0", 30), ("blank", 7)):
        table = rows_of(out / f"{name}.csv")
        assert [int(row["frame"]) for row in table] == list(range(count))
        assert list(table[0])[:6] == ["frame", "time_s", "status", "calibrated", "AU1", "AU1_raw"]
        for row in table:
            assert all((row[au] in ("0", "1")) == (row["status"] == "ok") for au in AFFWILD2)
            assert all(0 <= float(row[f"{au}_confidence"]) <= 1 for au in AFFWILD2 if row["status"] == "ok")
        assert cv2.imread(str(out / f"{name}.png")) is not None
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            "predict.json",
            "summary.csv",
            *(f"{name}.{kind}" for name in ("s003c0", "s000c0", "blank") for kind in ("csv", "png")),
        ]
    )
    assert store.read_json(out / "predict.json")["model"] == "models:/aupair/1", "the version, since the alias may move"
    none = aupair("predict", "broken.mp4", "--out", "nothing")
    assert none.code == 3
    assert "no video could be read" in none.err.splitlines()[-1]
    assert _champion() == 1

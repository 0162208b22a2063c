"""The whole flow with other AUs than Aff-Wild2's twelve, and with labels that are missing AU by AU."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.data.frames import load_frames
from aupair.data.layout import read_layout
from aupair.data.sheets import read_sheets
from aupair.params import Params, parse_params
from aupair.registry import mlflow_store
from conftest import Command, artifact, rows_of, run_flow

AUS_2020 = ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25")
"""The AUs of Aff-Wild2's release of 2020."""
TWENTY = ("AU9", "AU12L", "AU12R", "smile", "Head-nod", *(f"X{k}" for k in range(15)))

CASES = {
    "one AU": (("AU43",), 0.0),
    "the eight of 2020": (AUS_2020, 0.0),
    "three AUs, labelled in half of the frames": (("AU9", "AU12L", "nod"), 0.5),
    "twenty AUs, of which each video has some": (TWENTY, 0.0),
}


def rename(corpus: Path, data: Path, aus: tuple[str, ...], missing: float) -> None:
    """Write a corpus in the general layout under other names: AU k is column k modulo 12, some labels are left out."""
    shutil.copytree(corpus, data)
    labels = read_sheets(read_layout(corpus).annotations, np.int16)
    shutil.rmtree(data / "annotations")
    (data / "conditions.csv").unlink()
    rng = np.random.default_rng(0)
    for k, annotation in enumerate(labels.annotations):
        values = labels.values[labels.video == k][:, [au % len(AFFWILD2) for au in range(len(aus))]]
        values = np.where(rng.random(values.shape) < missing, -1, values)
        if len(aus) == len(TWENTY):
            values[:, k % 4 :: 4] = -1  # each video is coded for three quarters of the AUs
        lines = [",".join("" if cell < 0 else str(cell) for cell in row) for row in values]
        store.write_text(
            data / "annotations" / "occurrence" / f"{annotation.video}.csv", "\n".join([",".join(aus), *lines, ""])
        )


@pytest.fixture(scope="module")
def settings(tiny: Params) -> Params:
    """The tiny settings, one trial."""
    return parse_params(tiny.model_dump(mode="json") | {"trials": [0]})


@pytest.fixture(scope="module", params=CASES)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: Path, settings: Params
) -> tuple[Path, tuple[str, ...], float]:
    """A folder in which the flow has run up to evaluate, its AUs, and the share of missing labels."""
    aus, missing = CASES[request.param]
    root = tmp_path_factory.mktemp("any") / "home"
    rename(corpus, root / "renamed", aus, missing)
    run_flow(root, root / "renamed", settings)
    shutil.rmtree(root / "renamed")
    return root, aus, missing


@pytest.mark.slow
def test_every_artifact_report_tag_and_column_has_these_aus(
    finished: tuple[Path, tuple[str, ...], float], settings: Params, aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, aus, _ = finished
    monkeypatch.chdir(root)
    assert load_frames(artifact(root, "labels"), artifact(root, "faces")).aus == aus
    for name in ("f", "h", "mapping"):
        assert store.read_json(artifact(root, name) / "about.json")["aus"] == list(aus)
    selection, metrics = (store.read_json(artifact(root, name)) for name in ("selection", "metrics"))
    assert selection["aus"] == list(aus)
    assert set(aus) <= set(selection)
    assert all(list(row["per_au"]) == list(aus) for row in metrics["rows"])
    report = artifact(root, "report").read_text()
    assert all(au in report for au in aus)
    assert not any(f"{au} " in report for au in set(AFFWILD2) - set(aus)), "no AU that nobody labelled"

    stages.run_stage("register-model", settings)
    (version,) = mlflow_store.open_mlflow().search_model_versions("name = 'aupair'")
    assert {key for key in version.tags if key.startswith("f1.")} <= {"f1.p1", "f1.p2", *(f"f1.{au}" for au in aus)}
    assert {f"selection.{au}" for au in aus} <= set(version.tags)
    video = next(path for path in sorted((root / "data" / "videos").iterdir()))
    outcome = aupair("predict", video, "--model", "models:/aupair@challenger", "--out", "predictions")
    assert outcome.code == 0, outcome.err
    (row, *_) = rows_of(root / "predictions" / f"{video.stem}.csv")
    kinds = ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence", "_smoothed", "_smoothed_sd")
    assert list(row) == ["frame", "time_s", "status", "calibrated", *(f"{au}{kind}" for au in aus for kind in kinds)]


@pytest.mark.slow
def test_figures_over_all_aus_are_given_for_complete_frames_alone(
    finished: tuple[Path, tuple[str, ...], float],
) -> None:
    root, aus, _ = finished
    frames = load_frames(artifact(root, "labels"), artifact(root, "faces"))
    rows: list[dict[str, Any]] = store.read_json(artifact(root, "metrics"))["rows"]
    for row in rows:
        complete = frames.labelled[frames.of_split(row["split"])].all(axis=1)
        assert (row["score"] is None) == (row["exact_match"] is None) == (not complete.any())
        assert row["f1"] is not None
        for k, au in enumerate(aus):
            labels = frames.labels[frames.of_split(row["split"]), k]
            share = row["per_au"][au]["positives"]
            if (labels >= 0).any():
                assert share == pytest.approx(labels[labels >= 0].mean())
            else:
                assert share is row["per_au"][au]["f1"] is None

"""The whole flow on labels of one's own: three AUs that are none of Aff-Wild2's, each labelled on some of the frames.

Two of them come as events, one as rows with empty cells.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AFFWILD2, NOT_ANNOTATED
from aupair.data.frames import Frames, load_frames
from aupair.importing.csv_options import CsvOptions
from aupair.importing.recordings import Notes
from aupair.importing.tabular import read_csv_labels
from aupair.importing.writer import WriteOptions, write_data
from aupair.kubeflow.cluster import load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.log import SILENT
from aupair.params import Params, parse_params
from aupair.ranking.samples import load_samples
from aupair.synth.corpus import SynthParams, synthesise
from aupair.synth.labels import write_tables
from conftest import REPOSITORY, Command, artifact, rows_of, run_flow

pytestmark = pytest.mark.slow
AUS = ("AU19", "AU33", "AU43")
COLUMNS = ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence", "_smoothed", "_smoothed_sd")
CORPUS = SynthParams(subjects=8, seconds=6, fps=6, aus=AUS, workers=2)


@pytest.fixture(scope="module")
def settings(tiny: Params) -> Params:
    """The tiny settings with one trial."""
    return parse_params(tiny.model_dump(mode="json") | {"trials": [0]})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with all labels."""
    folder = tmp_path_factory.mktemp("full") / "data"
    synthesise(folder, CORPUS)
    return folder


@pytest.fixture(scope="module")
def corpus(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same movies with two fifths of the labels, imported from tables."""
    root = tmp_path_factory.mktemp("own")
    tables, out, notes = root / "tables", root / "data", Notes()
    write_tables(full, tables, 0.4, ("AU33", "AU43"), CORPUS.fps)
    options = CsvOptions(videos=full / "videos", subjects=full / "subjects.csv", coded=tables / "coded.csv")
    write_data("csv", tables, read_csv_labels(tables, options, out, notes), notes, WriteOptions(out), SILENT)
    assert not notes.lines()
    shutil.copyfile(full / "splits.csv", out / "splits.csv")
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, settings: Params) -> Path:
    """A folder in which the flow has run up to evaluate; `home` is a copy of it. Tests must not change it."""
    root = tmp_path_factory.mktemp("own") / "home"
    run_flow(root, corpus, settings)
    return root


@pytest.fixture(scope="module")
def frames(finished: Path) -> Frames:
    return load_frames(artifact(finished, "labels"), artifact(finished, "faces"))


def test_each_au_has_its_own_labels_and_they_are_the_true_ones(frames: Frames, full: Path) -> None:
    assert frames.aus == AUS
    assert frames.labelled.mean(axis=0) == pytest.approx(0.4, abs=0.1)
    assert not np.array_equal(frames.labelled[:, 0], frames.labelled[:, 1])
    for rows, video in zip(frames.slices(), frames.videos):
        truth = np.loadtxt(full / "annotations" / "occurrence" / f"{video}.csv", int, delimiter=",", skiprows=1)
        labels = frames.labels[rows]
        assert np.array_equal(labels, np.where(labels == NOT_ANNOTATED, NOT_ANNOTATED, truth))


def test_pairs_and_groups_are_of_labelled_frames(finished: Path, frames: Frames) -> None:
    samples = load_samples(artifact(finished, "pairs"), frames)
    for split, pairs in samples.pairs.items():
        assert set(pairs.au.tolist()) == {0, 1, 2}, split
        levels = frames.labels[pairs.i, pairs.au].astype(int), frames.labels[pairs.j, pairs.au].astype(int)
        assert NOT_ANNOTATED not in (levels[0].min(), levels[1].min())
        assert np.array_equal(np.sign(levels[0] - levels[1]), pairs.r)


def test_every_file_names_the_three_aus_and_no_other(finished: Path) -> None:
    for name in ("f", "h", "mapping"):
        assert tuple(store.read_json(artifact(finished, name) / "about.json")["aus"]) == AUS, name
    selection, metrics = (
        store.read_json(artifact(finished, "selection")),
        store.read_json(artifact(finished, "metrics")),
    )
    assert tuple(selection["aus"]) == AUS
    assert all(selection[au]["mapping"] for au in AUS)
    assert {tuple(row["per_au"]) for row in metrics["rows"]} == {AUS}
    others = re.compile(rf"\b({'|'.join(AFFWILD2)})\b")
    for name in ("metrics", "selection", "table", "report"):
        text = artifact(finished, name).read_text()
        assert all(au in text for au in AUS), name
        assert others.findall(text) == [], name


def test_figures_of_an_au_go_over_its_own_labelled_frames(finished: Path, frames: Frames) -> None:
    rows = store.read_json(artifact(finished, "metrics"))["rows"]
    for split in ("select", "validation"):
        (row,) = [row for row in rows if (row["name"], row["split"]) == ("all-one", split)]
        for k, au in enumerate(AUS):
            labels = frames.labels[frames.of_split(split), k]
            active, labelled = (labels == 1).sum(), (labels != NOT_ANNOTATED).sum()
            assert row["per_au"][au]["f1"] == pytest.approx(2 * active / (active + labelled))


def test_a_version_and_its_predictions_have_the_three_aus(home: Path, aupair: Command) -> None:
    from aupair.registry.versions import list_versions

    done = aupair("run", "register-model")
    assert done.code == 0, done.err
    (version,) = list_versions()
    chosen = {key for key in version.tags if re.fullmatch(r"selection\.AU\d+", key)}
    assert (version.tags["aus"], chosen) == (",".join(AUS), {f"selection.{au}" for au in AUS})
    card = (home / "work" / "bundle" / "MODEL_CARD.md").read_text()
    assert all(au in card for au in AUS)
    assert aupair("registry", "promote", 1).code == 0
    done = aupair("predict", "data/videos/s003c0.mp4", "--out", "out")
    assert done.code == 0, done.err
    table = rows_of(home / "out" / "s003c0.csv")
    assert list(table[0]) == [
        *("frame", "time_s", "status", "calibrated"),
        *(f"{au}{column}" for au in AUS for column in COLUMNS),
    ]
    assert len(table) == 36
    assert all((row[au] in ("0", "1")) == (row["status"] == "ok") for row in table for au in AUS)


def test_kubeflow_gives_the_same(
    finished: Path, corpus: Path, settings: Params, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "data").symlink_to(corpus)
    compile_pipeline("train", settings, load_cluster(None, ()), tmp_path / "train.yaml", REPOSITORY)
    command = ["aupair", "pipeline", "run", "train.yaml", "--local"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (artifacts,) = next((tmp_path / "work" / "pipeline").glob("local-*/artifacts")).iterdir()
    for name in ("metrics", "selection", "table"):
        assert (artifacts / "evaluate" / name).read_bytes() == artifact(finished, name).read_bytes(), name
    registered: dict[str, Any] = store.read_json(artifacts / "register-model" / "registered")
    assert registered["version"] is None, "a run on this machine is a rehearsal"
    assert {stage.name for stage in stages.FLOW if not stage.per_trial} <= {path.name for path in artifacts.iterdir()}

"""Labels of a corpus in the form of each kind, imported, split and checked: labels.parquet holds what they were."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.data.layout import read_layout, read_movie_header
from aupair.data.sheets import read_sheets
from conftest import Command, as_yaml
from importing.eaf import write_eaf
from importing.folders import frame_table, text

Labels = Mapping[str, np.ndarray]
"""(N, A) by video: 0, 1, or -1 where not labelled."""


@pytest.fixture
def labels(corpus: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The labels of the corpus, without an AU in each video, and without another one in a part of it.

    Its movies are in the folder movies of the current folder.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(as_yaml(tiny))
    sheets = read_sheets(read_layout(corpus).annotations, np.int16)
    result = {}
    for k, annotation in enumerate(sheets.annotations):
        values = sheets.values[sheets.edges[k] : sheets.edges[k + 1]].copy()
        values[:, k % 12] = values[10:20, (k + 5) % 12] = -1
        result[annotation.video] = values
        link(corpus / "videos" / f"{annotation.video}.mp4", Path("movies") / f"{annotation.video}.mp4")
    return result


@pytest.fixture
def aus(corpus: Path) -> tuple[str, ...]:
    return read_sheets(read_layout(corpus).annotations, np.int16).aus


def link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)


def runs(values: np.ndarray, *wanted: int) -> Iterator[tuple[int, int]]:
    """Yield the first frame of each run of wanted values, and the frame after its last."""
    start = 0
    for value, group in groupby(np.isin(values, wanted).tolist()):
        length = len(list(group))
        if value:
            yield start, start + length
        start += length


def write_rows(labels: Labels, aus: tuple[str, ...]) -> Labels:
    frame_table(Path("source/labels.csv"), labels, aus)
    return labels


def write_events(labels: Labels, aus: tuple[str, ...]) -> Labels:
    for name, header, wanted in (("events", "video,start,end,au", (1,)), ("coded", "video,start,end,au", (0, 1))):
        rows = []
        for video, values in labels.items():
            fps = fps_of(video)
            for k, au in enumerate(aus):
                rows += [f"{video},{i / fps:.4f},{j / fps:.4f},{au}" for i, j in runs(values[:, k], *wanted)]
        text(Path("source" if name == "events" else ".") / f"{name}.csv", header, *rows)
    return labels


def write_elan(labels: Labels, aus: tuple[str, ...]) -> Labels:
    """ELAN has no way to say that an AU is coded in a part of the video: it is inactive there."""
    complete = {}
    for video, values in labels.items():
        fps, coded = fps_of(video), [k for k in range(len(aus)) if (values[:, k] >= 0).any()]
        tiers = {
            aus[k]: [(round(1000 * i / fps), round(1000 * j / fps), "") for i, j in runs(values[:, k], 1)]
            for k in coded
        }
        write_eaf(Path("source") / f"{video}.eaf", tiers)
        complete[video] = values.copy()
        complete[video][:, coded] = np.maximum(values[:, coded], 0)
    return complete


def write_disfa(labels: Labels, aus: tuple[str, ...]) -> Labels:
    result = {}
    for number, (video, values) in enumerate(labels.items(), start=1):
        subject = f"SN{number:03}"
        link(Path("movies") / f"{video}.mp4", Path("source/Videos_LeftCamera") / f"LeftVideo{subject}_comp.mp4")
        for k, au in enumerate(aus):
            rows = [f"{row + 1},{3 * value}" for row, value in enumerate(values[:, k]) if value >= 0]
            if rows:
                text(Path("source/ActionUnit_Labels") / subject / f"{subject}_{au.lower()}.txt", *rows)
        result[subject] = values
    return result


def write_bp4d(labels: Labels, aus: tuple[str, ...]) -> Labels:
    result = {}
    for number, (video, values) in enumerate(labels.items(), start=1):
        name = f"F{number:03}_T1"
        link(Path("movies") / f"{video}.mp4", Path("source/2D") / f"{name}.mp4")
        rows = [f"{row + 1}," + ",".join(map(str, cells)) for row, cells in enumerate(np.where(values < 0, 9, values))]
        text(Path("source/AUCoding/AU_OCC") / f"{name}.csv", "0," + ",".join(au[2:] for au in aus), *rows)
        result[name] = values
    return result


def write_affwild2(labels: Labels, aus: tuple[str, ...]) -> Labels:
    """A row with any -1 is not annotated: here the rows of a part of each video."""
    result = {}
    for number, (video, values) in enumerate(labels.items()):
        whole = np.maximum(values, 0)
        whole[10:15, 3] = -1
        part = "Train_Set" if number % 4 else "Validation_Set"
        text(
            Path("source/annotations/AU_Set") / part / f"{video}.txt",
            ",".join(aus),
            *(",".join(map(str, r)) for r in whole),
        )
        link(Path("movies") / f"{video}.mp4", Path("source/videos") / f"{video}.mp4")
        result[video] = whole
        result[video][10:15] = -1
    return result


def fps_of(video: str) -> float:
    header = read_movie_header(Path("movies") / f"{video}.mp4")
    assert header
    return header.fps


Write = Callable[[Labels, tuple[str, ...]], Labels]
KINDS: dict[str, tuple[str, Write, list[str]]] = {
    "rows": ("csv", write_rows, ["--videos", "movies"]),
    "events": ("csv", write_events, ["--videos", "movies", "--coded", "coded.csv"]),
    "elan": ("elan", write_elan, ["--videos", "movies"]),
    "disfa": ("disfa", write_disfa, ["--allow-missing"]),
    "bp4d": ("bp4d", write_bp4d, []),
    "affwild2": ("affwild2", write_affwild2, []),
}


@pytest.mark.parametrize("name", KINDS)
def test_labels_survive(labels: dict[str, np.ndarray], aus: tuple[str, ...], aupair: Command, name: str) -> None:
    kind, write, options = KINDS[name]
    expected = write(labels, aus)
    outcome = aupair("import", kind, "source", *options)
    assert outcome.code == 0, outcome.err
    assert aupair("split", "data").code == 0
    outcome = aupair("run", "check-data")
    assert outcome.code == 0, outcome.err
    table = store.read_table(Path("work/labels.parquet"))
    assert table.column_names[5:] == list(aus)
    videos, frames = table["video"].to_numpy(), table["frame"].to_numpy()
    values = np.stack([table[au].to_numpy() for au in aus], axis=1)
    assert set(videos) == set(expected)
    for video, original in expected.items():
        rows = values[videos == video]
        np.testing.assert_array_equal(frames[videos == video], np.arange(len(rows)))
        np.testing.assert_array_equal(rows, original[: len(rows)])
        assert (original[len(rows) :] == -1).all()
    assert len(set(zip(table["subject"].to_pylist(), table["split"].to_pylist()))) == len(labels)

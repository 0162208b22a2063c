"""The coder's tables about a corpus are what `aupair import csv` reads."""

import csv
from pathlib import Path

import numpy as np
import pytest

from aupair.aus import NOT_ANNOTATED
from aupair.synth.corpus import SynthParams, synthesise
from aupair.synth.labels import write_tables
from conftest import Command, rows_of

AUS = ("AU19", "AU33", "AU43")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "data"
    synthesise(root, SynthParams(subjects=4, seconds=5, fps=6, aus=AUS, workers=1))
    return root


def labels(data: Path, video: str) -> tuple[list[str], np.ndarray]:
    with open(data / "annotations" / "occurrence" / f"{video}.csv", newline="") as file:
        aus, *rows = csv.reader(file)
    return aus, np.array(rows, dtype=int)


@pytest.mark.parametrize("by_event", [(), AUS, ("AU33", "AU43")], ids=len)
def test_tables_of_all_labels_become_the_same_labels(
    by_event: tuple[str, ...], corpus: Path, tmp_path: Path, aupair: Command
) -> None:
    write_tables(corpus, tmp_path / "tables", 1.0, by_event, 6)
    import_tables(corpus, tmp_path, aupair)
    for row in rows_of(corpus / "splits.csv"):
        aus, values = labels(tmp_path / "data", row["video"])
        truth = labels(corpus, row["video"])[1]
        assert np.array_equal(values, truth[:, [AUS.index(au) for au in aus]])


def test_a_share_is_a_share_of_each_au(corpus: Path, tmp_path: Path, aupair: Command) -> None:
    write_tables(corpus, tmp_path / "tables", 0.4, ("AU33",), 6)
    import_tables(corpus, tmp_path, aupair)
    known = []
    for row in rows_of(corpus / "splits.csv"):
        aus, values = labels(tmp_path / "data", row["video"])
        truth = labels(corpus, row["video"])[1][:, [AUS.index(au) for au in aus]]
        assert np.array_equal(values, np.where(values == NOT_ANNOTATED, NOT_ANNOTATED, truth))
        known.append(values != NOT_ANNOTATED)
    assert np.concatenate(known).mean(0) == pytest.approx(0.4, abs=0.12)
    assert not np.array_equal(*np.concatenate(known).T[:2])


def import_tables(corpus: Path, folder: Path, aupair: Command) -> None:
    """Import the tables of a folder as its data."""
    tables = folder / "tables"
    command = ["import", "csv", tables, "--videos", corpus / "videos", "--subjects", corpus / "subjects.csv"]
    if (tables / "coded.csv").exists():
        command += ["--coded", tables / "coded.csv"]
    outcome = aupair(*command, "--out", folder / "data")
    assert outcome.code == 0, outcome.err

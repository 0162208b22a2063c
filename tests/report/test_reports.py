"""The table, the plots and the files that evaluate writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AUS
from aupair.errors import AupairError
from aupair.evaluation.evaluate import Evaluation, evaluate
from aupair.report.plots import SECONDS, timelines, video_to_show
from aupair.report.reports import Places, write_reports
from aupair.report.table import terminal
from evaluation.worlds import QUICK, world

PLOTS = ["f1", "reliability", "risk_coverage", "timelines"]
ROWS = ["all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2"]


@pytest.fixture(scope="module")
def found() -> Evaluation:
    frames, trial, pairs, conditions = world()
    return evaluate(frames, [trial], pairs, conditions, QUICK)


def write(found: Evaluation, folder: Path, note: str = "") -> None:
    """Write all reports into one folder."""
    pairs = [["AU", "fit", "select", "validation"], ["AU1", "500 of 1,234", "5 of 6", "0 of 0"]]
    places = Places(folder / "metrics.json", folder / "table.md", folder / "plots", folder / "report.html")
    write_reports(found, world()[0], places, pairs, note)


def test_reports_are_written_whole(found: Evaluation, tmp_path: Path) -> None:
    for _ in range(2):
        write(found, tmp_path / "reports", note="**Synthetic.**")
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == [
        "metrics.json",
        "plots",
        "report.html",
        "table.md",
    ]
    assert sorted(p.stem for p in (tmp_path / "reports" / "plots").iterdir()) == PLOTS
    for name in PLOTS:
        assert (tmp_path / "reports" / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    table = (tmp_path / "reports" / "table.md").read_text()
    assert "**Synthetic.**" in table
    p2 = next(r for r in metrics["rows"] if (r["name"], r["split"]) == ("P2", "validation"))
    assert f"{p2['score']:.3f}" in next(line for line in table.splitlines() if line.startswith("| P2"))
    assert "chosen on validation" not in table
    assert table.endswith("| AU1 | 500 of 1,234 | 5 of 6 | 0 of 0 |\n"), "the counts of pairs are the last table"
    assert all(f"| {au} " in table for au in AUS)
    for name in ("P2 - best-constant", "confidence-ungrouped", "certainty", "random", "80.0 %"):
        assert f"| {name}" in table
    gain = metrics["decisions"]["selective"]["gain_at_80"]["f1"]["difference"]
    assert f"{gain:.3f}" in next(
        line for line in table.splitlines() if line.startswith("| confidence less random, mean")
    )
    assert terminal(found.metrics).row_count == len(ROWS)


def test_an_unwritable_folder_is_one_line(found: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AupairError, match="cannot write"):
        write(found, tmp_path / "file" / "reports")


def test_the_video_shown_is_the_one_with_most_to_see() -> None:
    frames, *_ = world()
    labels = frames.labels.copy()
    labels[(frames.video == 7) & (labels[:, 0] >= 0)] = 1  # always active: nothing to see
    labels[(frames.video == 6) & (labels[:, 0] >= 0), :8] = 0
    assert video_to_show(replace(frames, labels=labels)) == 8


def test_of_a_long_video_the_stretch_with_most_changes_is_shown() -> None:
    frames, trial, *_ = world(n=300)
    labels = np.zeros_like(frames.labels)
    labels[2600:2650:2] = 1
    slow = replace(frames, time=frames.frame / 2.5, labels=labels, ok=np.ones(len(frames), bool))
    arrays = (np.nan_to_num(trial.y_hat), np.nan_to_num(trial.sigma, nan=1), labels > 0)
    axis = timelines(slow, *arrays).axes[0]
    start, end = axis.get_xlim()
    assert start <= 80 < 99 <= end
    assert end - start < SECONDS + 2

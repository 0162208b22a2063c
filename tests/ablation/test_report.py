"""The report of the ablation, and the comparison of two corpora."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.ablation import report
from aupair.aus import AFFWILD2
from aupair.evaluation.metrics import Counts

EVIDENCE = {"pair_accuracy": 0.9, "pair_nll": 0.17, "pair_nll_constant": 0.19, "ece_order": 0.03}


def scored(name: str, group: str, right: int) -> dict[str, Any]:
    """Return a row of 20 videos in which about `right` of 40 positives and of 40 negatives are right."""
    noise = np.random.default_rng(0).integers(-2, 3, (20, 12))
    cells = np.stack([right + noise, 40 - right - noise, 40 - right - noise, right + noise], axis=-1)
    counts = Counts(cells, cells, np.full(20, right // 2), np.full(20, 80))
    return {
        "name": name, "group": group, "text": name, "rule": "P2", "settings": {"a.b": right}, "state": "scored",
        "aus": AFFWILD2, "frames": {"validation": {"annotated": 1600, "complete": 1600}},
        "counts": {"select": counts, "validation": counts}, "evidence": {"select": EVIDENCE, "validation": EVIDENCE},
        "cost": {"parameters": 2e6, "gmac_per_frame": 0.5, "passes": 3},
    }  # fmt: skip


FAILED = {
    "name": "per-au", "group": "pairs", "text": "wide", "rule": "P2", "settings": {}, "state": "failed", "why": "no memory",
}  # fmt: skip


def tree(**rights: int) -> dict[str, Any]:
    rows = [scored("P2", "ours", 30), *(scored(name, "features", right) for name, right in rights.items()), FAILED]
    return report.build_report(rows, {"note": "Synthetic.", "data": "abc"}, 200, 0)


def test_the_files_hold_every_row(tmp_path: Path) -> None:
    content = tree(half=25)
    report.write_report(tmp_path, content)
    rows = store.read_json(tmp_path / "ablation.json")["rows"]
    assert [row["name"] for row in rows] == ["P2", "half", "per-au"]
    assert "counts" not in rows[0]
    text = (tmp_path / "ablation.md").read_text()
    assert "Synthetic." in text
    assert "| per-au | wide | no memory |" in text
    assert text.count("| half |") == 3, "scores, AUs, settings"
    header, row = (next(line for line in text.splitlines() if start in line) for start in ("| mean F1 |", "| half |"))
    assert header.count("|") == row.count("|"), "a cell for each head"
    page = (tmp_path / "ablation.html").read_text()
    assert page.count("<svg") == 1
    assert "http://" not in page
    report.write_report(tmp_path, content)
    assert (tmp_path / "ablation.html").read_text() == page, "equal rows give equal bytes"


def test_a_row_that_trained_f_again_is_marked(tmp_path: Path) -> None:
    content = tree(half=25)
    content["rows"][1]["another_f"] = True
    report.write_report(tmp_path, {**content, "threads": 2})
    text = (tmp_path / "ablation.md").read_text()
    assert text.count("(another f)") == 1
    assert "| half (another f) |" in text
    assert "Each stage used 2 threads." in text


def test_a_worse_row_is_below_the_reference_with_its_interval_and_probability() -> None:
    difference = tree(half=25)["rows"][1]["validation"]["less_reference"]["f1"]
    assert difference["difference"] == pytest.approx(-5 / 40, abs=1e-9)
    assert difference["interval"][1] < 0
    assert difference["probability"] == 0


def test_two_corpora_in_the_same_and_in_another_order(tmp_path: Path) -> None:
    here = tree(half=25, none=20)
    assert report.compare_corpora(here, tree(half=26, none=21))["spearman"] == pytest.approx(1)
    other = report.compare_corpora(here, tree(half=20, none=26, other=9))
    assert other["spearman"] == pytest.approx(0.5)
    assert set(other["f1"]) == {"P2", "half", "none"}
    report.write_report(tmp_path, {**here, "beside": other})
    assert "Rank correlation of the rows' mean F1: 0.50." in (tmp_path / "ablation.md").read_text()


def test_the_report_says_over_how_many_complete_frames_exact_figures_go(tmp_path: Path) -> None:
    content = tree(half=25)
    for name, frames in (("all", 1600), ("some", 40)):
        for row in content["rows"][:2]:
            row["frames"]["validation"]["complete"] = frames
        report.write_report(tmp_path / name, content)
    sentence = "all AUs are labelled: 40 of the 1,600 annotated frames of validation."
    assert sentence in (tmp_path / "some" / "ablation.md").read_text()
    assert "all AUs are labelled" not in (tmp_path / "all" / "ablation.md").read_text()

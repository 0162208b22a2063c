"""The report: every judged row once, the left ones with their reason, and the comparison of two corpora."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.ablation import report
from aupair.evaluation.metrics import Counts

EVIDENCE = {"pair_accuracy": 0.9, "pair_nll": 0.17, "pair_nll_constant": 0.19, "ece_order": 0.03}


def scored(name: str, group: str, right: int, text: str = "") -> dict[str, Any]:
    """A row of 20 videos in which `right` of 40 positives and of 40 negatives are right, more or less."""
    wiggle = np.random.default_rng(0).integers(-2, 3, (20, 12))
    cells = np.stack([right + wiggle, 40 - right - wiggle, 40 - right - wiggle, right + wiggle], axis=-1)
    counts = Counts(cells, np.full(20, right // 2), np.full(20, 80))
    return {
        "name": name, "group": group, "text": text or name, "rule": "P2", "settings": {"a.b": right},
        "state": "scored", "counts": {"select": counts, "validation": counts}, "chosen": {},
        "evidence": {"select": EVIDENCE, "validation": EVIDENCE},
        "cost": {"parameters": 2e6, "gmac_per_frame": 0.5},
    }  # fmt: skip


FAILED = {
    "name": "per-au",
    "group": "pairs",
    "text": "wide",
    "rule": "P2",
    "settings": {},
    "state": "failed",
    "why": "no memory",
}


def tree(**rights: int) -> dict[str, Any]:
    rows = [scored("P2", "ours", 30), *(scored(name, "features", right) for name, right in rights.items()), FAILED]
    return report.make(rows, {"note": "Synthetic.", "data": "abc"}, 200, 0)


def test_the_files_hold_every_row(tmp_path: Path) -> None:
    made = tree(half=25)
    report.write(tmp_path, made)
    again = store.read_json(tmp_path / "ablation.json")
    assert [row["name"] for row in again["rows"]] == ["P2", "half", "per-au"]
    assert "counts" not in again["rows"][0]
    text = (tmp_path / "ablation.md").read_text()
    assert "Synthetic." in text
    assert "| per-au | wide | no memory |" in text
    assert text.count("| half |") == 3, "scores, AUs, settings"
    page = (tmp_path / "ablation.html").read_text()
    assert page.count("<svg") == 1
    assert "http://" not in page
    report.write(tmp_path, made)
    assert (tmp_path / "ablation.html").read_text() == page, "equal rows give equal bytes"


def test_a_worse_row_is_below_the_reference_and_says_how_sure_that_is() -> None:
    row = tree(half=25)["rows"][1]["validation"]["less_reference"]["f1"]
    assert row["difference"] == pytest.approx(-5 / 40, abs=1e-9)
    assert row["interval"][1] < 0
    assert row["probability"] == 0


def test_a_line_has_a_cell_for_each_head() -> None:
    for line in report.scores(tree(half=25)).rows:
        assert len(line) == len(report.HEAD)


def test_two_corpora_in_the_same_and_in_another_order() -> None:
    here = tree(half=25, none=20)
    same = report.beside(here, tree(half=26, none=21))
    assert same["spearman"] == pytest.approx(1)
    assert same["swapped"] == []
    other = report.beside(here, tree(half=20, none=26))
    assert other["spearman"] < 1
    assert other["swapped"] == [["half", "none"]]
    here["beside"] = other
    assert "half and none" in str(report.sections(here))

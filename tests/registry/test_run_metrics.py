"""The metrics of an evaluation that MLflow shows."""

import math
from pathlib import Path

from aupair import store
from aupair.registry.run_metrics import evaluation_metrics, headline_metrics
from conftest import artifact

FIGURES = {
    "score": 0.1,
    "f1": 0.2,
    "accuracy": 0.3,
    "exact_match": 0.4,
    "per_au": {"AU1": {"f1": 0.5}, "AU2": {"f1": None}},
}
METRICS = {
    "rows": [
        {"name": name, "split": split, **FIGURES}
        for name in ("all-zero", "best-constant", "no-uncertainty", "P1", "P2")
        for split in ("select", "validation")
    ],
    "pair_accuracy": {"clear": None, "mean": 0.6, "per_au": {"AU1": 0.6}},
    "uncertainty": {"pair_nll": {"h": 1, "constant": math.nan}, "ece": 5},
    "decisions": {"confidence_ece": 0.7, "risk_coverage": {"confidence": {"risk": [0.1, 0.2]}}},
}


def test_the_run_of_evaluate_has_groups_and_the_rows_that_matter() -> None:
    numbers = evaluation_metrics(METRICS)
    suffixes = ("", "_p1", "_no_uncertainty", "_best_constant")
    rows = {
        f"{split}/{key}{suffix}": FIGURES[key]
        for split in ("select", "validation")
        for key in ("f1", "accuracy", "score")
        for suffix in suffixes
    }
    others = {"pairs/accuracy": 0.6, "pairs/nll": 1, "pairs/ece": 5, "confidence/ece": 0.7}
    assert numbers == {**rows, "f1_of_each_au/AU1": 0.5, **others}, "neither undefined ones nor lists"


def test_flows_are_compared_by_fewer_and_by_f1_on_select() -> None:
    numbers = headline_metrics(METRICS)
    assert {"select/f1", "validation/f1", "validation/f1_p1", "pairs/accuracy"} <= set(numbers)
    assert [name for name in numbers if name.startswith("select/")] == ["select/f1"]
    assert not [name for name in numbers if "best_constant" in name or "each_au" in name]
    assert numbers.items() <= evaluation_metrics(METRICS).items()


def test_an_intensity_model_has_its_figures_too() -> None:
    row = {"name": "P2", "split": "validation", "icc": 0.4, "mae": 0.6}
    numbers = evaluation_metrics(METRICS | {"intensity_rows": [row, {**row, "name": "fit-mean", "icc": None}]})
    assert (numbers["validation/icc"], numbers["validation/mae"]) == (0.4, 0.6)
    assert (numbers["validation/mae_fit_mean"], "validation/icc_fit_mean" in numbers) == (0.6, False)


def test_a_real_evaluation_has_some_fifty(finished: Path) -> None:
    metrics = store.read_json(artifact(finished, "metrics"))
    numbers = evaluation_metrics(metrics)
    assert 40 <= len(numbers) <= 60
    assert 15 <= len(headline_metrics(metrics)) <= 30
    assert all("/" in name for name in numbers)

"""What is judged of a run: evaluate's own rows come out again, and y_hat against a threshold is what it says."""

from pathlib import Path

import numpy as np
import pytest

from aupair.ablation.judge import Run, as_tree, counted, figures, from_tree, person_percentile
from aupair.aus import AUS
from aupair.evaluation.metrics import Counts
from aupair.evaluation.selection import annotated_cells
from aupair.params import Params


@pytest.fixture(scope="module")
def run(finished: Path, tiny: Params) -> Run:
    return Run.read(finished, tiny)


@pytest.mark.parametrize("name", ["all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2"])
def test_evaluates_rows_come_out_again(run: Run, name: str) -> None:
    counts, _ = counted(run, name)
    for split, mine in counts.items():
        (there,) = [row for row in run.metrics["rows"] if (row["name"], row["split"]) == (name, split)]
        found = figures(mine, None, 10, (0,))
        for key in ("f1", "accuracy", "exact_match", "score"):
            assert found[key] == pytest.approx(there[key], abs=1e-12), (split, key)
        assert found["per_au"]["AU12"]["f1"] == pytest.approx(there["per_au"]["AU12"]["f1"], abs=1e-12)


def test_a_persons_percentile_is_over_all_its_clips(run: Run) -> None:
    frames, values = run.frames, run.trial.y_hat.astype(np.float64)
    found = person_percentile(values, frames, 20)
    for subject in range(len(frames.subjects)):
        mine = [v for v, s, ok in zip(values[:, 3], frames.subject, frames.ok) if s == subject and ok]
        assert found[frames.subject == subject, 3] == pytest.approx(np.percentile(mine, 20))


def test_y_hat_less_the_median_is_blind_to_a_persons_offset_and_y_hat_locked_is_not(run: Run) -> None:
    frames = run.frames
    shifted = run.trial.y_hat + 50.0 * frames.subject[:, None]
    other = Run(
        frames, type(run.trial)(0, shifted.astype(np.float64), *[run.trial.sigma] * 3), run.selection, run.metrics
    )
    for judged, same in (("value-median", True), ("value-lowest", True), ("value", False)):
        a, b = run.decide(judged)[0], other.decide(judged)[0]
        assert np.array_equal(a, b) is same or (same and (a == b).mean() > 0.99), judged


def test_the_threshold_of_y_hat_is_chosen_on_select_locked(run: Run) -> None:
    hidden = run.frames.of_split("validation")
    labels = run.frames.labels.copy()
    labels[hidden] = 1 - labels[hidden]
    frames = type(run.frames)(**{**vars(run.frames), "labels": labels})
    other = Run(frames, run.trial, run.selection, run.metrics)
    for judged in ("value", "value-median", "value-lowest"):
        np.testing.assert_array_equal(run.decide(judged)[0], other.decide(judged)[0])


def test_counts_survive_a_file(run: Run) -> None:
    counts, chosen = counted(run, "value-lowest")
    back = from_tree(as_tree(counts))
    for split, part in counts.items():
        for key, value in vars(part).items():
            np.testing.assert_array_equal(value, getattr(back[split], key))
    assert set(chosen["percentile"]) == set(AUS)
    assert len(counts["validation"].frames) == len(np.unique(annotated_cells(run.frames, "validation").video))


def test_the_difference_is_of_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(20, 40, (30, 12))
    cells = np.stack([right, 40 - right, 40 - right, right], axis=-1)
    counts = Counts(cells, np.zeros(30, np.int64), np.full(30, 80))
    better = Counts(cells + np.array([3, 0, 0, 3]), np.zeros(30, np.int64), np.full(30, 86))
    same, more = (
        figures(counts, counts, 500, (0,))["less_reference"]["f1"],
        figures(better, counts, 500, (0,))["less_reference"]["f1"],
    )
    assert (same["difference"], same["interval"], same["probability"]) == (0, [0, 0], 0.5)
    assert 0 < more["interval"][0] < more["difference"] < more["interval"][1]  # its own interval is far wider
    assert more["probability"] == 1
    alone = figures(better, counts, 500, (0,))["intervals"]["f1"]
    assert alone[1] - alone[0] > 3 * (more["interval"][1] - more["interval"][0])

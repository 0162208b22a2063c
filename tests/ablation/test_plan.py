"""The plan: shared stages are counted once, unknown costs scaled from the reference's, what comes first fits first."""

from pathlib import Path

import pytest

from aupair import stages, store
from aupair.ablation.plan import Times, cost, plan, whole_seconds, work
from aupair.ablation.rows import ROWS, Row, pick
from aupair.params import load_params

BASE = load_params(Path(__file__).parents[2] / "params.yaml")
SECONDS = {
    "check-data": 10.0, "preprocess-faces": 20.0, "sample-pairs": 5.0, "train-pseudo-intensity": 200.0,
    "train-uncertainty": 40.0, "extract-features": 10.0, "train-mapping": 12.0, "evaluate": 15.0,
}  # fmt: skip


def row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


@pytest.fixture
def times() -> Times:
    """The reference was run, nothing else."""
    return Times({(stage, stages.lineage(stage, BASE)): seconds for stage, seconds in SECONDS.items()})


def test_what_the_reference_made_is_shared(times: Times) -> None:
    printed, reference = plan([row("printed"), row("P2")], BASE, times, None)
    assert reference.seconds == 0
    assert printed.seconds == pytest.approx(40 + 10 + 12 + 15)


def test_two_rows_that_share_a_new_stage_pay_for_it_once(times: Times) -> None:
    rows = [Row("a", "ours", "", "P1", {"train_uncertainty.loss": "printed"}),
            Row("b", "ours", "", "P1", {"train_uncertainty.loss": "printed", "train_mapping.epochs": 3})]  # fmt: skip
    first, second = plan(rows, BASE, times, None)
    assert first.seconds == pytest.approx(77)
    assert second.seconds == pytest.approx(12 + 15)


def test_training_is_scaled_by_its_multiplications(times: Times) -> None:
    wide = {"train_pseudo_intensity.network.width": 0.5}
    found = times.seconds("train-pseudo-intensity", Row("w", "pairs", "", "P1", wide).params(BASE), BASE)
    assert found is not None
    assert 3 < found / 200 < 4  # twice the channels, nearly four times the products
    longer = Row("l", "pairs", "", "P1", {"train_pseudo_intensity.optimiser.steps": 2600}).params(BASE)
    assert work("train-pseudo-intensity", longer) > 3 * work("train-pseudo-intensity", BASE)
    folds = row("in-sample").params(BASE)
    ratio = work("train-pseudo-intensity", folds) / work("train-pseudo-intensity", BASE)
    assert 0.3 < ratio < 0.4  # one network of three


def test_a_budget_takes_what_comes_first_and_goes_on_to_what_still_fits(times: Times) -> None:
    rows = pick(["printed", "per-au", "min-max"])
    fits = {one.rows[0].name: one.fits for one in plan(rows, BASE, times, 150.0)}
    assert fits == {"P2": True, "printed": True, "min-max": True, "per-au": False}
    none = {one.rows[0].name: one.fits for one in plan(rows, BASE, times, 0.0)}
    assert none == {"P2": True, "printed": False, "min-max": False, "per-au": False}  # P2 is made already


def test_judged_rows_cost_nothing(times: Times) -> None:
    (done,) = plan([row("printed")], BASE, times, 0.0, done=["printed"])
    assert done.fits
    assert done.seconds == 0


def test_without_a_measurement_nothing_is_claimed() -> None:
    (one,) = plan([row("P2")], BASE, Times({}), 60.0)
    assert one.seconds is None
    assert one.fits


def test_times_are_read_by_stage_and_settings_and_the_mean_of_trials(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    path = tmp_path / stages.TIMES
    for trial, seconds, data in ((0, 99.0, "d"), (0, 2.0, "d"), (1, 3.0, "d"), (1, 50.0, "others")):
        row = {"stage": "train-mapping", "trial": trial, "seconds": seconds, "lineage": "x", "data": data}
        store.append_jsonl(path, row)
    assert Times.read([tmp_path, tmp_path / "nowhere"], "d").measured == {("train-mapping", "x"): 2.5}


def test_a_way_to_decide_pays_for_what_it_needs(times: Times) -> None:
    def seconds(judged: str) -> float | None:
        return whole_seconds(judged, BASE, BASE, times)

    assert seconds("P1") == pytest.approx(sum(SECONDS.values()))
    assert seconds("no-uncertainty") == pytest.approx(sum(SECONDS.values()) - 40)
    assert seconds("value") == pytest.approx(235)
    assert seconds("all-zero") == pytest.approx(10)
    of_value, of_all, of_none = (cost(judged, BASE) for judged in ("value", "P1", "all-zero"))
    assert of_none == {"parameters": 0, "gmac_per_frame": 0}
    assert 0 < of_value["gmac_per_frame"] < cost("no-uncertainty", BASE)["gmac_per_frame"] < of_all["gmac_per_frame"]

"""Rows: each changes what it says and nothing else, and fits the demo's and the paper's params."""

from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from aupair import stages
from aupair.ablation.ablate import changed
from aupair.ablation.rows import GROUPS, REFERENCE, ROWS, pick
from aupair.errors import ParamsError
from aupair.params import Params, load_params

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["params.yaml", "params/affwild2.yaml"])
def base(request: pytest.FixtureRequest) -> Params:
    return load_params(REPOSITORY / request.param)


def test_names_are_one_each_and_groups_are_known() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.group for row in ROWS} == set(GROUPS)
    assert not {row.name for row in ROWS} & set(GROUPS)


def parsed(base: Params) -> dict[str, Params]:
    """The params of the rows that have some: the paper's weights are of one width."""
    found = {}
    for row in ROWS:
        with suppress(ParamsError):
            found[row.name] = row.params(base)
    assert set(found) >= {row.name for row in ROWS} - {"wide", "per-au-narrow"}
    return found


def test_a_row_changes_the_keys_that_it_names_and_no_other(base: Params) -> None:
    settings = {row.name: row.settings for row in ROWS}
    for name, params in parsed(base).items():
        for key in changed(base, params):
            try:
                reduce(getitem, key.split("."), base.model_dump())
            except KeyError:  # a key of a new kind has that kind's default
                continue
            assert any(key == own or key.startswith(f"{own}.") for own in settings[name]), (name, key)


def test_rows_of_the_same_settings_share_a_run_and_others_do_not(base: Params) -> None:
    runs = {name: stages.lineage("evaluate", params) for name, params in parsed(base).items()}
    assert runs["all-zero"] == runs["P1"] == runs["value-median"] == runs[REFERENCE]
    assert runs["single"] == runs["single-G"] != runs[REFERENCE]
    of_h = [runs[name] for name in ("nll_margin", "misorder", "printed")]
    assert len({*of_h, runs[REFERENCE]}) == 4


def test_a_loss_of_h_leaves_the_stages_before_h_as_they_are(base: Params) -> None:
    printed = next(row for row in ROWS if row.name == "printed").params(base)
    same = [s.name for s in stages.FLOW if stages.lineage(s.name, printed) == stages.lineage(s.name, base)]
    assert same == ["check-data", "preprocess-faces", "sample-pairs", "train-pseudo-intensity"]


def test_explicit_pairs_see_as_many_images_a_step(base: Params) -> None:
    row = next(row for row in ROWS if row.name == "explicit")
    if base.sample_pairs.mode == "reference":
        assert row.unfit(base) == "params.yaml says so already"
    else:
        assert row.unfit(base) == ""
        assert row.params(base).train_pseudo_intensity.optimiser == base.train_pseudo_intensity.optimiser


def test_a_row_that_changes_nothing_or_does_not_fit_says_so(base: Params) -> None:
    unfit = {row.name for row in ROWS if row.unfit(base)}
    paper = {"explicit", "half", "network", "wide", "per-au-narrow"}
    assert unfit == (set() if base.sample_pairs.mode == "groups" else paper)
    integrated = parsed(base)["integrated"]
    found = {row.name: row.unfit(integrated) for row in ROWS}
    assert found["integrated"] == "params.yaml says so already"
    assert "kind: integrated together with" in found["network"]
    assert "no effect with kind: integrated" in found["printed"]


def test_pick_takes_names_and_groups_and_always_the_reference() -> None:
    assert [row.name for row in pick(["printed", "no-pairs"])] == [
        "P2", "single", "single-median", "single-lowest", "single-G", "printed", "single-spread",
    ]  # fmt: skip
    assert pick([]) == list(ROWS)
    with pytest.raises(ParamsError, match="no such row or group, got printd; did you mean printed"):
        pick(["printd"])

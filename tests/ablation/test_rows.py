"""Rows: each changes what it says and nothing else, and fits the demo's and the paper's params."""

from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from aupair.ablation.ablate import changed_settings
from aupair.ablation.rows import GROUPS, REFERENCE, ROWS, select_rows
from aupair.errors import ParamsError
from aupair.params import Params, load_params

REPOSITORY = Path(__file__).parents[2]


UNFIT = {
    "params.yaml": set(),
    "params/affwild2.yaml": {"wide", "per-au-narrow"},
    "params/paper.yaml": {
        "explicit", "half", "in-sample", "min-max", "no-windows", "nll_margin", "short-window", "long-window", "wide",
        "per-au-narrow", "smoother-none", "ensemble-final", "one-seed", "no-guard",
    },
}  # fmt: skip
"""The rows of each params file that change nothing, or whose width ImageNet's weights do not have."""


@pytest.fixture(scope="module", params=UNFIT)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def base(name: str) -> Params:
    return load_params(REPOSITORY / name)


def test_names_are_one_each_and_groups_are_known() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.group for row in ROWS} == set(GROUPS)
    assert not {row.name for row in ROWS} & set(GROUPS)


def parsed(base: Params) -> dict[str, Params]:
    """The params of the rows that have some: the paper's weights are of one width."""
    params_of_rows = {}
    for row in ROWS:
        with suppress(ParamsError):
            params_of_rows[row.name] = row.params(base, 12)
    assert set(params_of_rows) >= {row.name for row in ROWS} - {"wide", "per-au-narrow"}
    return params_of_rows


def test_a_row_changes_the_keys_that_it_names_and_no_other(base: Params) -> None:
    settings = {row.name: row.settings for row in ROWS}
    for name, params in parsed(base).items():
        for key in changed_settings(base, params):
            try:
                reduce(getitem, key.split("."), base.model_dump())
            except KeyError:  # a key of a new kind has that kind's default
                continue
            assert any(key == own or key.startswith(f"{own}.") for own in settings[name]), (name, key)


def test_rows_of_the_same_settings_share_a_run_and_others_do_not(base: Params, name: str) -> None:
    runs = parsed(base)
    assert runs["all-zero"] == runs["P1"] == runs["value-median"] == runs[REFERENCE] == base
    assert runs["single"] == runs["single-G"] != base
    assert len({base, *(runs[name] for name in ("nll_margin", "misorder", "printed"))}) == 4 - (
        "nll_margin" in UNFIT[name]
    )


def test_explicit_pairs_see_as_many_images_a_step(base: Params) -> None:
    row = next(row for row in ROWS if row.name == "explicit")
    if base.sample_pairs.mode == "reference":
        assert row.why_unfit(base, 12) == "params.yaml has these settings already"
    else:
        assert row.why_unfit(base, 12) == ""
        assert row.params(base, 12).train_pseudo_intensity.optimiser == base.train_pseudo_intensity.optimiser


def test_a_row_that_changes_nothing_or_does_not_fit_says_so(base: Params, name: str) -> None:
    assert {row.name for row in ROWS if row.why_unfit(base, 12)} == UNFIT[name]
    integrated = parsed(base)["integrated"]
    reasons = {row.name: row.why_unfit(integrated, 12) for row in ROWS}
    assert reasons["integrated"] == "params.yaml has these settings already"
    assert "`integrated` in both" in reasons["network"]
    assert "no effect with kind: integrated" in reasons["printed"]


@pytest.mark.parametrize("aus", [1, 3, 12, 20])
def test_narrow_networks_for_each_au_cost_about_as_much_as_the_shared_one(aus: int) -> None:
    base = load_params(REPOSITORY / "params.yaml")
    row = next(row for row in ROWS if row.name == "per-au-narrow")
    width = row.params(base, aus).train_pseudo_intensity.network.width
    assert aus * width**2 == pytest.approx(base.train_pseudo_intensity.network.width**2)


def test_select_rows_takes_names_and_groups_and_always_the_reference() -> None:
    assert [row.name for row in select_rows(["printed", "no-pairs"])] == [
        "P2", "single", "single-median", "single-lowest", "single-G", "printed", "single-spread",
    ]  # fmt: skip
    assert select_rows([]) == list(ROWS)
    with pytest.raises(ParamsError, match="no such row or group, got printd; did you mean printed"):
        select_rows(["printd"])


def test_rows_are_marked_that_train_f_again(base: Params) -> None:
    again = {row.name for row in ROWS if row.name in parsed(base) and row.trains_f(base, 12)}
    assert {"single", "in-sample", "explicit", "integrated"} - again <= {"explicit", "in-sample"}, "the paper's own"
    assert not again & {
        "P1",
        "smoother-none",
        "smoother-sigma",
        "ensemble-final",
        "one-seed",
        "no-guard",
        "printed",
        "2020",
    }

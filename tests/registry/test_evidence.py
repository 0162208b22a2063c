"""The paired comparison of two versions, and what the gate, the commands and the record make of it."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aupair.errors import RegistryError
from aupair.evaluation.bootstrap import draw_resamples
from aupair.evaluation.metrics import Counts, f1, mean_over_aus
from aupair.params import parse_params
from aupair.registry import evidence, versions
from aupair.registry.evidence import Difference, Evidence, compare_versions
from aupair.registry.gate import Gate, list_refusals
from aupair.registry.register import register_bundle
from aupair.registry.versions import Version
from bundle_parts import write_parts
from services.racers import GATE

PEOPLE, FRAMES = 24, 60


def draws_tree(right: float, seed: int = 0, people: int = PEOPLE, resamples: int = 0, aus: int = 12) -> dict[str, Any]:
    """Return a draws.json of a model that decides that share of frames right.

    People differ in difficulty, which two models have in common.
    """
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    active = shared.integers(10, 40, (people, aus))
    shares = np.clip(right + shared.normal(0, 0.1, (people, 1)), 0, 1)
    tp, tn = rng.binomial(active, shares), rng.binomial(FRAMES - active, shares)
    mine = np.stack([tp, FRAMES - active - tn, active - tp, tn], axis=-1)
    everything = np.stack([active, FRAMES - active, 0 * active, 0 * active], axis=-1)
    weights = draw_resamples(people, 200, (resamples,))
    rows = {}
    for name, cells in (("P2", mine), ("all-one", everything)):
        drawn = Counts(cells, cells, np.zeros(people), np.zeros(people)).weighted(weights)
        values = np.round(mean_over_aus(f1(drawn)), 6).tolist()
        rows[name] = {"counts": cells.reshape(people, -1).tolist(), "draws": values}
    return {"people": {"names": [f"s{k}" for k in range(people)], "rows": rows}}


class Runs:
    """The part of a client that reads artifacts of runs, from trees of draws.json."""

    def __init__(self, **trees: Any) -> None:
        self._trees = trees

    def list_artifacts(self, run_id: str) -> list[Any]:
        return [SimpleNamespace(path=evidence.FILE)] if run_id in self._trees else []

    def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
        target = Path(folder) / path
        target.write_text(json.dumps(self._trees[run_id]))
        return str(target)


def compare(own: Any, champion: Any, **tags: str) -> Evidence | str:
    """Return the comparison of versions with these draws; None: no file."""
    trees = {run: tree for run, tree in (("b", own), ("a", champion)) if tree is not None}
    client: Any = Runs(**trees)
    now = datetime.now(UTC)
    return compare_versions(client, Version(2, (), tags, "b", now), Version(1, ("champion",), {}, "a", now))


def test_the_interval_is_paired() -> None:
    """People make both models' F1 vary alike, so that the difference varies much less than each."""
    better, champion = draws_tree(0.80, 1), draws_tree(0.77, 2)
    found = compare(better, champion)
    assert isinstance(found, Evidence)
    assert found.people == PEOPLE
    assert 0 < found.f1.low < found.f1.value < found.f1.high
    own = np.quantile(better["people"]["rows"]["P2"]["draws"], [0.025, 0.975])
    assert found.f1.high - found.f1.low < 0.7 * np.ptp(own)
    back = compare(champion, better)
    assert isinstance(back, Evidence)
    assert (back.f1.value, back.f1.high) == pytest.approx((-found.f1.value, -found.f1.low))


@pytest.mark.parametrize(
    ("own", "champion", "reason"),
    [
        (None, draws_tree(0.8), "version 2 has no draws.json"),
        (draws_tree(0.8), None, "version 1 has no draws.json"),
        (draws_tree(0.8, people=23), draws_tree(0.8), "other people (23 and 24)"),
        (draws_tree(0.8, resamples=1), draws_tree(0.8), "other labels, or another evaluate.bootstrap or evaluate.seed"),
    ],
)
def test_what_is_not_paired_has_no_interval(own: Any, champion: Any, reason: str) -> None:
    assert compare(own, champion) == reason


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, r"^malformed: in draws.json of version 2, got people: Field required"),
        ({"people": {"names": ["a"], "rows": {}}}, r"got row P2, expected 48 counts for each of 1 people; register it"),
        (draws_tree(0.8, aus=3), r"got row P2, expected 48 counts for each of 24 people"),
    ],
)
def test_a_malformed_file_is_one_line(tree: Any, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        compare(tree, draws_tree(0.8))


def test_an_altered_file_is_one_line() -> None:
    with pytest.raises(RegistryError, match=r"^not the file that was registered: in draws.json of version 2"):
        compare(draws_tree(0.8), draws_tree(0.8), **{evidence.DRAWS_TAG: "0" * 64})


def paired(low: float, value: float, high: float, **per_au: tuple[float, float, float]) -> Evidence:
    numbers = {au: Difference(own[1], own[0], own[2]) for au, own in per_au.items()}
    return Evidence(1, Difference(value, low, high), numbers, PEOPLE)


@pytest.mark.parametrize(
    ("comparison", "refusals"),
    [
        (paired(-0.020, -0.005, 0.010), []),
        (
            paired(-0.020, -0.005, -0.001),
            ["mean F1 on validation -0.005 [-0.020, -0.001] against version 1 on the same"],
        ),
        (paired(-0.020, 0.0, 0.010, AU1=(-0.2, -0.1, -0.03)), ["F1 of AU1 on validation -0.100 [-0.200, -0.030]"]),
        (paired(-0.020, 0.0, 0.010, AU1=(-0.2, -0.1, 0.01)), []),
        (paired(-0.020, 0.0, 0.010, AU1=(-0.06, -0.04, -0.03)), []),
    ],
    ids=["chance", "worse", "an AU is worse", "an AU by chance", "an AU within the margin"],
)
def test_only_what_is_worse_beyond_chance_is_refused(comparison: Evidence, refusals: list[str]) -> None:
    """The tags alone would refuse all of them: .834 against .839."""
    version, champion = {"score.p2": "0.834", "data.md5": "a"}, {"score.p2": "0.839", "data.md5": "a"}
    reasons = list_refusals(Gate(), version, champion, comparison)
    assert len(reasons) == len(refusals)
    assert all(reason.startswith(start) for reason, start in zip(reasons, refusals))
    assert list_refusals(Gate(), version, champion, "other people") == ["score.p2 0.834 against 0.839"]
    refused = list_refusals(Gate(without_interval="refuse"), version, champion, "other people")
    assert refused == ["no paired interval: other people"]


def test_a_promotion_is_recorded_and_versions_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aupair: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow").mkdir()
    shutil.copy(GATE, tmp_path / "mlflow")
    for score, right, margin in ((0.839, 0.80, 1.0), (0.834, 0.80, 0.5), (0.9, 0.6, 0.5)):
        (tmp_path / "draws.json").write_text(json.dumps(draws_tree(right, int(1000 * score))))
        params = parse_params({"train_pseudo_intensity": {"margin": margin}})
        register_bundle(
            tmp_path / "bundle", write_parts(tmp_path / "work", score), (), [tmp_path / "draws.json"], params
        )
    assert aupair("registry", "promote", 1).out == "version 1 is the champion\n"
    second = aupair("registry", "promote", 2, "--reason", "[b]more\n people[/]")
    assert second.out.startswith("version 2 is the champion: mean F1 on validation "), second.err
    assert "against version 1 on the same 24 people; `aupair registry rollback` undoes this" in second.out
    third = aupair("registry", "promote", 3)
    assert third.line.startswith("the gate refuses: in version 3, got mean F1 on validation -0."), "whatever its score"
    assert aupair("registry", "rollback", "--reason", "a test").code == 0
    history = " ".join(aupair("registry", "history").out.split())
    for text in ("promote 1", "promote 2", "rollback 1", "[b]more people[/]", "a test", "there was no champion"):
        assert text in history, text
    assert "promote 3" not in history
    tags = versions.get_version(2).tags
    assert tags["promotion.reason"] == "[b]more people[/]"
    assert tags["promotion.evidence"].startswith("mean F1 on validation ")
    compared = aupair("registry", "diff", 1, 2).out
    for text in ("train_pseudo_intensity.margin", "score.p2", "0.839000", "0.834000", "version 2: mean F1 on"):
        assert text in compared, text
    assert "seed" not in compared, "what does not differ"
    assert aupair("registry", "diff", 1, 1).line.startswith("a version does not differ from itself")

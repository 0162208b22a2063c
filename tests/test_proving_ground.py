"""Tests of benchmarks/proving_ground.py: its sums equal naive loops, people stay whole, finished steps are not run again."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from aupair import stages
from aupair.data.frames import Frames
from aupair.errors import ParamsError
from aupair.evaluation.bootstrap import draw_resamples
from aupair.evaluation.uncertainty import pair_nll
from aupair.params import Params
from aupair.ranking.pairs import Pairs, all_pairs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
AUS, PEOPLE, VIDEOS, FRAMES = ("AU1", "AU12", "AU25"), 4, 6, 12


@pytest.fixture(scope="module")
def benchmark() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: importlib.import_module(name) for name in ("ground_statistics", "ground_report", "proving_ground")}


@pytest.fixture(scope="module")
def world() -> tuple[Frames, Pairs, np.ndarray, np.ndarray]:
    """Four people of validation, two with two videos each; y_hat that follows the labels, and sigma."""
    rng = np.random.default_rng(0)
    subject = np.repeat([0, 1, 2, 2, 3, 3], FRAMES).astype(np.int32)
    video, n = np.repeat(np.arange(VIDEOS, dtype=np.int32), FRAMES), VIDEOS * FRAMES
    labels = (rng.random((n, len(AUS))) < 0.4).astype(np.int8)
    frame = np.tile(np.arange(FRAMES, dtype=np.int32), VIDEOS)
    names = tuple(f"v{k}" for k in range(VIDEOS)), tuple(f"p{k}" for k in range(PEOPLE))
    frames = Frames(AUS, *names, video, subject, np.full(n, 2, np.int8), frame, frame / 10, np.ones(n, bool), labels)
    sigma = rng.uniform(0.3, 2, labels.shape)
    y_hat = labels + sigma * rng.standard_normal(labels.shape)
    return frames, all_pairs(labels, video), y_hat, sigma


def test_sums_of_people_equal_a_count_of_the_drawn_pairs(
    benchmark: dict[str, ModuleType], world: tuple[Frames, Pairs, np.ndarray, np.ndarray]
) -> None:
    frames, pairs, y_hat, sigma = world
    sums = benchmark["ground_statistics"].sum_orders(frames, "validation", pairs, y_hat, sigma)
    weights = draw_resamples(PEOPLE, 5, (1,))
    for drawn, *figures in zip(weights, sums.pair_nll(weights), sums.auroc(weights), sums.ece(weights)):
        # the pairs of a person as often as the person was drawn
        rows = np.repeat(np.arange(len(pairs)), drawn[frames.subject[pairs.i]])
        expected = np.mean([naive(pairs[rows][pairs[rows].au == au], y_hat, sigma) for au in range(len(AUS))], 0)
        assert figures == pytest.approx(expected)
    everybody = np.ones(PEOPLE)
    assert float(sums.pair_nll(everybody)) == pytest.approx(pair_nll(y_hat, sigma, pairs).mean())


def naive(pairs: Pairs, y_hat: np.ndarray, sigma: np.ndarray) -> tuple[float, float, float]:
    """Return pair NLL, AUROC and ECE of one AU's pairs."""
    loss, score, right = [], [], []
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        d = r * (y_hat[i, au] - y_hat[j, au])
        s = np.sqrt(sigma[i, au] ** 2 + sigma[j, au] ** 2 + 1e-6)
        loss.append(-norm.logcdf(d / s))
        score.append(abs(d) / s)
        right.append(d > 0)
    claimed, ece = norm.cdf(score), 0.0
    for k in range(15):
        inside = [n for n, p in enumerate(claimed) if 0.5 + k / 30 <= p < 0.5 + (k + 1) / 30 or (k == 14 and p == 1)]
        if inside:
            ece += abs(sum(claimed[n] - right[n] for n in inside)) / len(claimed)
    return float(np.mean(loss)), float(roc_auc_score(right, score)), ece


def test_a_constant_sigma_ranks_as_the_distance_does(
    benchmark: dict[str, ModuleType], world: tuple[Frames, Pairs, np.ndarray, np.ndarray]
) -> None:
    frames, pairs, y_hat, sigma = world
    sums = [
        benchmark["ground_statistics"].sum_orders(frames, "validation", pairs, y_hat, np.full(y_hat.shape, value))
        for value in (0.5, 3.0)
    ]
    assert np.array_equal(sums[0].ahead, sums[1].ahead)
    of_h = benchmark["ground_statistics"].sum_orders(frames, "validation", pairs, y_hat, sigma)
    assert of_h.auroc(np.ones(PEOPLE)) > sums[0].auroc(np.ones(PEOPLE))  # y_hat is off by sigma


def test_an_interval_contains_both_people_and_trainings(benchmark: dict[str, ModuleType]) -> None:
    draws = benchmark["ground_statistics"].TrainingDraws(3, 4000, (0,))
    still = [np.full(4000, value) for value in (0.1, 0.2, 0.3)]
    figure = draws.combine([0.1, 0.2, 0.3], still)
    assert figure.value == pytest.approx(0.2)
    assert figure.draws.std() == pytest.approx(0.0816 / np.sqrt(3), rel=0.05)  # the mean of three of three numbers
    people = np.random.default_rng(0).normal(0, 0.05, 4000)
    both = draws.combine([0.1, 0.2, 0.3], [values + people for values in still])
    assert both.draws.std() == pytest.approx(np.hypot(0.0816 / np.sqrt(3), 0.05), rel=0.05)
    other = draws.combine([0.0, 0.1, 0.2], [values + people - 0.1 for values in still])
    assert (both - other).interval == pytest.approx([0.1, 0.1])  # paired in people and trainings


def test_corpora_are_independent(benchmark: dict[str, ModuleType]) -> None:
    statistics, people = benchmark["ground_statistics"], np.random.default_rng(0).normal(0, 1, 4000)
    one, other = (statistics.TrainingDraws(1, 4000, (0, k)).combine([0.0], [people]) for k in range(2))
    assert abs(np.corrcoef(one.draws, other.draws)[0, 1]) < 0.06
    assert statistics.mean_of([one, other]).draws.std() == pytest.approx(np.sqrt(0.5), rel=0.05)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, benchmark: dict[str, ModuleType]) -> list[str]:
    """What is run instead of stages and of synthesise: only the names are noted."""
    names: list[str] = []

    def run_stage(name: str, params: Params, root: Path, log: Any) -> None:
        names.append(f"{root.name} {name}" + (f" {params.seed}" if name == "train-pseudo-intensity" else ""))

    monkeypatch.setattr(stages, "run_stage", run_stage)
    monkeypatch.setattr(benchmark["proving_ground"], "synthesise", lambda data, *_: names.append(f"synth {data.name}"))
    return names


def test_finished_steps_are_not_run_again(
    benchmark: dict[str, ModuleType], calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark["proving_ground"]
    ground, corpus = module.Ground(tmp_path), module.Corpus(stands_for="", synth={"subjects": 8})

    def run(params: Params, corpus: Any = corpus, seeds: int = 2) -> list[str]:
        calls.clear()
        ground.run("one", corpus, params, seeds)
        return calls

    first = list(run(Params()))
    assert first[:3] == ["synth data", "one check-data", "one preprocess-faces"]
    training = [
        "sample-pairs",
        "train-pseudo-intensity {}",
        "train-uncertainty",
        "extract-features",
        "train-mapping",
        "evaluate",
    ]
    assert first[3:] == [f"seed{seed} {name}".format(seed) for seed in (0, 1) for name in training]
    assert (tmp_path / "one" / "seed1" / "work" / "faces").resolve() == tmp_path / "one" / "work" / "faces"
    assert run(Params()) == []
    assert [name for name in run(Params(), seeds=3) if "seed2" not in name] == []
    other = Params(train_mapping={"width": 8})
    assert run(other) == [f"seed{seed} {name}" for seed in (0, 1) for name in training[-2:]]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_stage", interrupted("train-mapping"))
        with pytest.raises(KeyboardInterrupt):
            ground.run("one", corpus, Params(seed=0, sample_pairs={"frames": 7}), 2)
    assert run(Params(sample_pairs={"frames": 7}))[0] == "seed0 train-mapping"
    assert run(Params(), module.Corpus(stands_for="", synth={"subjects": 8, "seed": 5})) == first
    assert ground.cost("one", 2)["cpu_seconds"].keys() == {
        "synth",
        "check-data",
        "preprocess-faces",
        *(n.split()[0] for n in training),
    }


def interrupted(stage: str) -> Any:
    """Return a function that runs nothing and is stopped at a stage."""

    def run_stage(name: str, *_: Any, **__: Any) -> None:
        if name == stage:
            raise KeyboardInterrupt

    return run_stage


def test_the_committed_corpora_are_of_the_size_that_was_agreed(benchmark: dict[str, ModuleType]) -> None:
    module = benchmark["proving_ground"]
    corpora = module.load_corpora(BENCHMARKS / "proving_ground.yaml")
    assert len(corpora) == 4
    assert len({corpus.synth.seed for corpus in corpora.values()} - {0, 1}) == 4
    for corpus in corpora.values():
        assert 3500 <= corpus.synth.subjects * corpus.synth.clips * corpus.synth.seconds * corpus.synth.fps <= 24000
    assert list(module.load_corpora(BENCHMARKS / "proving_ground.yaml", ["cameras"])) == ["cameras"]
    with pytest.raises(ParamsError, match=r"no such corpus: in .*got nowhere, expected some of demo-like"):
        module.load_corpora(BENCHMARKS / "proving_ground.yaml", ["nowhere"])


def figures_of(benchmark: dict[str, ModuleType], name: str, p1: float, nll: float) -> Any:
    """Return the figures of a corpus where P1's gain and h's pair NLL are as given, with little spread."""
    statistics, module = benchmark["ground_statistics"], benchmark["proving_ground"]

    def figure(value: float) -> Any:
        return statistics.Figure(value, value + np.random.default_rng(0).normal(0, 0.001, 200))

    f1 = {"all-one": figure(0.3), "no-uncertainty": figure(0.6), "constant-noise": figure(0.6), "P1": figure(0.6 + p1)}
    orders = {"h pair_nll": figure(nll), "constant pair_nll": figure(0.5), "h auroc": figure(0.8)}
    orders |= {"constant auroc": figure(0.79), "h ece": figure(0.02), "constant ece": figure(0.03)}
    corpus = module.Corpus(stands_for="a test", synth={"subjects": 8})
    return benchmark["ground_report"].CorpusFigures(
        name, corpus.stands_for, corpus.synth, 2, {**f1, "P2": figure(0.6 + p1)}, orders, {"mean": 0.9, "clear": 0.95}
    )


@pytest.mark.parametrize(
    ("gains", "nll", "missed"), [((0.02, 0.03), 0.4, 0), ((0.02, -0.05), 0.4, 5), ((0.02, 0.03), 0.6, 2)]
)
def test_goals_are_met_or_missed(
    benchmark: dict[str, ModuleType], gains: tuple[float, float], nll: float, missed: int
) -> None:
    report = benchmark["ground_report"]
    corpora = [figures_of(benchmark, name, gain, nll) for name, gain in zip(("one", "two"), gains)]
    about = {
        "trainings": 3,
        "params": "params.yaml",
        "commit": "1234567",
        "cores": 2,
        "cost": {key: {"seconds": {"synth": 60}, "cpu_seconds": {"synth": 120}} for key in ("one", "two")},
    }
    tree = report.as_json(corpora, 0.01, about)
    assert [goal["met"] for goal in tree["goals"]].count(False) == missed
    assert tree["differences"]["mean"]["P1 - no-uncertainty"]["value"] == pytest.approx(np.mean(gains))
    page = report.format_page(json.loads(json.dumps(tree)))
    assert page.count("**missed**") == missed
    assert "| all-one | .300 [.2" in page
    assert "| one | a test | 8 (2) | 8 | 520 | 1 (2) |" in page

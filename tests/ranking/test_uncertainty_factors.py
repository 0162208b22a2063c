"""An h that reads f's trunks: no label of a person reaches that person's sigma, and what it reads is out of sample."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking import heads
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.factors import fit_weights
from aupair.ranking.heads import draw_training_pairs, plan_heads
from aupair.ranking.losses import PairBatch, nll
from aupair.ranking.networks import AUNetwork, build_network
from aupair.ranking.pairs import Pairs, draw_folds, draw_groups
from aupair.ranking.samples import TrainingSet
from aupair.ranking.signals import Signals
from aupair.ranking.uncertainty import Uncertainty, train_h
from aupair.training_params import Network, UncertaintyFactors
from frame_sets import make_frames
from training_sets import NARROW, SIZE, Faces, draw_fixed_pairs

SPLIT = (0,) * 8 + (1, 1, 2)
LENGTH = 24
NAMES = ("final", "fold0", "fold1")
ALL = tuple(Member(0, name) for name in NAMES)


def make_params(**changes: Any) -> Params:
    section = {"kind": "factors", "factors": 8, "priors": [0.1, 1.0], "inner_folds": 2, "device": "cpu", **changes}
    return Params.model_validate({"train_uncertainty": section})


def load_f(member: Member) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    """Return a network of f, another one for each member, with its own batch statistics, and center and scale."""
    f = build_network(Network.model_validate(NARROW), SIZE, 7 * member.trial + NAMES.index(member.name), 12)
    images = np.random.default_rng(7).integers(0, 256, (16, 3, SIZE, SIZE)).astype(np.float32)
    for _ in range(20):
        f.train()(torch.from_numpy(images))
    return f.eval(), np.zeros(12), np.ones(12)


def make_data(folds: int = 2) -> tuple[TrainingSet, Ensemble, np.ndarray]:
    """Return a training set, y_hat that is noise in every third frame, whose faces are bright, and unknown quality."""
    rng, n = np.random.default_rng(0), len(SPLIT) * LENGTH
    labels, ok = (rng.random((n, 12)) < 0.4).astype(np.int8), np.arange(n) % 11 != 0
    frames = make_frames(SPLIT, labels, ok=ok)
    noisy = np.arange(n) % 3 == 0
    y = np.where(noisy[:, None], 0.0, 2.0 * labels) + (0.5 + 1.5 * noisy[:, None]) * rng.normal(size=(n, 12))
    y_hat = np.where(ok[:, None], y, np.nan).astype(np.float32)
    pixels = rng.integers(20, 60, (n, SIZE, SIZE, 3)) + 160 * noisy[:, None, None, None]
    groups, of_folds = draw_groups(frames, 8, 6, (0, 1)), draw_folds(frames, folds, (0, 3))
    data = TrainingSet(frames, Faces(pixels), groups, draw_fixed_pairs(frames, 60), of_folds)
    members = ALL if folds > 1 else ALL[:1]
    return data, Ensemble((0,), members, y_hat, None), np.full((n, 3), np.nan, np.float32)


def train(data: TrainingSet, ensemble: Ensemble, quality: np.ndarray, **changes: Any) -> Uncertainty:
    return train_h(data, ensemble, quality, load_f, make_params(**changes), 0)


@pytest.fixture(scope="module")
def trained() -> tuple[TrainingSet, Ensemble, np.ndarray, Uncertainty]:
    data, ensemble, quality = make_data()
    return data, ensemble, quality, train(data, ensemble, quality)


def noisy_of(data: TrainingSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the noisy and the other frames of a split that have a face."""
    rows = np.flatnonzero(data.frames.ok & data.frames.of_split(split))
    return rows[rows % 3 == 0], rows[rows % 3 != 0]


def test_h_learns_which_faces_are_noise(trained: Any) -> None:
    data, _, _, result = trained
    for split in ("fit", "select", "validation"):
        noisy, clear = noisy_of(data, split)
        assert result.sigma[noisy].mean() > 1.3 * result.sigma[clear].mean(), split
        assert result.unguarded[noisy].mean() > 1.3 * result.unguarded[clear].mean(), split
    assert (np.isnan(result.sigma).any(axis=1) == ~data.frames.ok).all()
    assert np.nanmin(result.sigma) >= 0.05


def test_labels_of_a_person_do_not_reach_his_sigma(trained: Any) -> None:
    data, ensemble, quality, _ = trained
    person = 2
    own = data.frames.subject == person
    labels = data.frames.labels.copy()
    labels[own] = 1 - labels[own]
    flipped = {
        name: Pairs(p.i, p.j, p.au, np.where(own[p.i], -p.r, p.r).astype(np.int8)) for name, p in data.pairs.items()
    }
    other = train(
        replace(data, frames=replace(data.frames, labels=labels), pairs=flipped),
        ensemble,
        quality,
        priors=[0.1],
        guard=False,
    )
    before = train(data, ensemble, quality, priors=[0.1], guard=False)
    np.testing.assert_array_equal(before.sigma[own], other.sigma[own])
    others = data.frames.of_split("fit") & ~own & data.frames.ok
    assert (before.sigma[others] != other.sigma[others]).any()


def test_validation_leaves_no_trace_and_a_seed_repeats(trained: Any) -> None:
    data, ensemble, quality, result = trained
    hidden = data.frames.of_split("validation")
    y_hat, altered = ensemble.y_hat.copy(), Faces(data.images.pixels.copy())
    y_hat[hidden] *= -3
    altered.pixels[hidden] = 255 - altered.pixels[hidden]
    other = train(replace(data, images=altered), replace(ensemble, y_hat=y_hat), quality)
    np.testing.assert_array_equal(result.sigma[~hidden], other.sigma[~hidden])
    assert result.curves == other.curves


def test_heads_learn_from_the_people_of_the_fold_whom_its_trunk_never_saw() -> None:
    data, ensemble, _ = make_data()
    heads = plan_heads(data, ensemble, 2, 0)
    fit, seen = data.frames.of_split("fit"), data.training_masks()
    assert [head.member.name for head in heads] == ["fold0", "fold0", "fold1", "fold1"]
    for head in heads:
        assert not (head.trained & seen[head.member.name]).any()
        people = data.frames.subject
        assert set(people[head.trained]).isdisjoint(people[head.scored])
        assert head.deployed
    np.testing.assert_array_equal(sum(head.scored.astype(int) for head in heads), fit)


def test_final_alone_is_read_in_sample_and_folds_score_fit() -> None:
    data, ensemble, quality = make_data()
    alone = replace(ensemble, members=ALL[:1])
    heads = plan_heads(data, alone, 2, 0)
    assert [(head.member.name, head.deployed) for head in heads] == [
        ("final", True),
        ("fold0", False),
        ("fold1", False),
    ]
    np.testing.assert_array_equal(sum(head.scored.astype(int) for head in heads), data.frames.of_split("fit"))
    result = train(data, alone, quality)
    assert list(result.model.readers) == [Member(0, "final")]
    assert list(result.folds) == ["fold0", "fold1"]
    noisy, clear = noisy_of(data, "validation")
    assert result.sigma[noisy].mean() > 1.2 * result.sigma[clear].mean()


def test_without_cross_fitting_people_are_held_out_from_h_alone() -> None:
    data, ensemble, quality = make_data(folds=1)
    heads = plan_heads(data, ensemble, 2, 0)
    assert [head.member.name for head in heads] == ["final", "final"]
    np.testing.assert_array_equal(sum(head.scored.astype(int) for head in heads), data.frames.of_split("fit"))
    assert np.isfinite(train(data, ensemble, quality).sigma[data.frames.ok]).all()


def test_trials_are_averaged_and_their_spread_is_a_signal() -> None:
    data, ensemble, quality = make_data()
    members = tuple(Member(trial, name) for trial in (0, 1) for name in NAMES)
    n = len(data.frames)
    spread = np.where(np.arange(n)[:, None] % 3 == 0, 2.0, 0.3) * np.ones((n, 12), np.float32)
    grey = replace(data, images=Faces(np.full_like(data.images.pixels, 90)))  # faces say nothing
    result = train(grey, Ensemble((0, 1), members, ensemble.y_hat, spread), quality)
    assert [tuple(member) for member in result.model.readers] == [
        (0, "fold0"),
        (0, "fold1"),
        (1, "fold0"),
        (1, "fold1"),
    ]
    noisy, clear = noisy_of(data, "validation")
    assert result.sigma[noisy].mean() > 1.2 * result.sigma[clear].mean()


def test_unknown_quality_is_neutral_and_known_quality_counts() -> None:
    data, ensemble, quality = make_data()
    grey = replace(data, images=Faces(np.full_like(data.images.pixels, 90)))
    known = quality.copy()
    noisy = np.arange(len(quality)) % 3 == 0
    known[:, 0] = np.where(noisy, 0.4, 0.1) * np.random.default_rng(0).uniform(0.8, 1.2, len(quality))
    result = train(grey, ensemble, known)
    high, low = noisy_of(data, "validation")
    assert result.sigma[high].mean() > 1.2 * result.sigma[low].mean()
    terms = np.zeros((2, 3, 12))
    center = result.model.signals.center
    values = np.array(
        [[np.nan] * 3, [np.exp(center[0]), center[1], np.exp(center[2])], [9.0, np.nan, np.nan]], np.float32
    )
    sigma = result.model.sigma(terms, values)
    np.testing.assert_allclose(sigma[0], sigma[1], rtol=1e-3)
    assert sigma[2].mean() > sigma[0].mean()


def test_signals_are_standardised_on_fit_and_clipped() -> None:
    rng = np.random.default_rng(0)
    quality = rng.lognormal(size=(400, 3)).astype(np.float32)
    quality[::5] = np.nan
    signals = Signals.fit(quality, None, np.arange(300))
    values = signals(quality)
    known = np.isfinite(quality[:300]).all(axis=1)
    np.testing.assert_allclose(values[:300][known].mean(axis=0), 0, atol=0.05)
    assert (values[::5] == 0).all()
    assert np.abs(values).max() <= 4
    logs = np.log(quality[:300, 0].astype(float))
    np.testing.assert_allclose(signals.center[0], np.nanmean(logs))
    np.testing.assert_allclose(signals.center[1], np.nanmean(quality[:300, 1].astype(float)))


def test_the_fit_minimises_the_likelihood_with_its_prior() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), torch.from_numpy(rng.normal(size=(40, 2)))
    i, j = rng.integers(40, size=(2, 300))
    pairs = PairBatch.from_pairs(
        Pairs(i, j, rng.integers(2, size=300), rng.choice([-1, 1], 300)), np.full(300, 1 / 300, np.float32)
    )
    section, start = UncertaintyFactors(), np.array([0.7, 1.5])
    bias, weight = fit_weights(x, y, pairs, start, 0.01, section)

    def objective(shared: np.ndarray, own: np.ndarray, bias: np.ndarray) -> float:
        log_sigma = bias + x @ (shared + own)
        total = float((nll(pairs.difference(y), pairs.spread(torch.from_numpy(np.exp(log_sigma)))) / 300).sum())
        return (
            total + 0.01 * (shared**2).sum() + 0.01 * (own**2).sum() + 1e-3 * ((log_sigma - np.log(start)) ** 2).mean()
        )

    shared = weight.sum(axis=1, keepdims=True) / 3  # of equal priors, the least sum of squares: w = sum of v_a
    best = objective(shared, weight - shared, bias)
    assert best < objective(np.zeros((3, 1)), np.zeros((3, 2)), np.log(start))
    for _ in range(20):
        moved = objective(
            shared, weight - shared + 0.03 * rng.normal(size=weight.shape), bias + 0.03 * rng.normal(size=2)
        )
        assert moved > best - 1e-6


def test_pairs_to_train_on_are_drawn_for_each_video_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = make_data()[0].frames
    monkeypatch.setattr(heads, "MAX_ROWS_OF_VIDEO", 15)
    monkeypatch.setattr(heads, "MAX_PAIRS", 8 * 12 * 5)
    pairs, labels = draw_training_pairs(frames, 0), frames.labels
    np.testing.assert_array_equal(pairs.r, np.sign(labels[pairs.i, pairs.au] - labels[pairs.j, pairs.au]))
    np.testing.assert_array_equal(frames.video[pairs.i], frames.video[pairs.j])
    assert (frames.of_split("fit") & frames.usable)[np.concatenate([pairs.i, pairs.j])].all()
    cells, counts = np.unique(np.stack([frames.video[pairs.i], pairs.au]), axis=1, return_counts=True)
    assert cells.shape[1] == 8 * 12
    assert (counts == 5).all()
    for video in range(8):
        own = frames.video[pairs.i] == video
        assert len(np.unique(np.concatenate([pairs.i[own], pairs.j[own]]))) <= 15
    changed = labels.copy()
    changed[frames.video == 3] = 1 - changed[frames.video == 3]
    other = draw_training_pairs(replace(frames, labels=changed), 0)
    elsewhere, same = (frames.video[p.i] != 3 for p in (pairs, other))
    for key in ("i", "j", "au", "r"):
        np.testing.assert_array_equal(getattr(pairs, key)[elsewhere], getattr(other, key)[same])


def test_a_f_with_a_network_for_each_au_is_refused() -> None:
    data, ensemble, quality = make_data()
    per_au = build_network(Network.model_validate({**NARROW, "sharing": "per_au"}), SIZE, 0, 12)
    with pytest.raises(ArtifactError, match="no shared trunk"):
        train_h(data, ensemble, quality, lambda member: (per_au, np.zeros(12), np.ones(12)), make_params(), 0)


def test_the_prior_is_that_of_the_lowest_loss_out_of_fold(trained: Any) -> None:
    data, ensemble, quality, result = trained
    assert [row["prior"] for row in result.curves] == [0.1, 1.0]
    best = min(result.curves, key=lambda row: row["loss"])["prior"]
    alone = train(data, ensemble, quality, priors=[best])
    np.testing.assert_array_equal(result.sigma, alone.sigma)

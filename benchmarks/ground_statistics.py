"""Figures of several trainings with intervals over people and trainings.

All sums are kept for each person, so that a resample of people only weights them. In each of B resamples people are drawn
with all their videos, the same ones for every training of a corpus, and then trainings are drawn; a figure's value in a
resample is its mean over the drawn trainings. Corpora are drawn independently of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from aupair.data.frames import Frames
from aupair.evaluation.bootstrap import percentile_interval
from aupair.evaluation.metrics import mean_over_aus
from aupair.ranking.pairs import Pairs

_BINS = 15
_EPSILON = 1e-6
"""added under the root of s, as in the loss"""


@dataclass(frozen=True)
class Figure:
    """A figure, the mean over trainings (and corpora), with its values in B resamples: (B,)."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: "Figure") -> "Figure":
        return Figure(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, other: "Figure") -> "Figure":
        return Figure(self.value / other.value, self.draws / other.draws)

    @property
    def interval(self) -> list[float]:
        """Return the 95 % interval: [low, high]."""
        return percentile_interval(self.draws)


def mean_of(figures: Sequence[Figure]) -> Figure:
    """Return the mean of the figures of several corpora."""
    return Figure(float(np.mean([f.value for f in figures])), np.mean([f.draws for f in figures], axis=0))


class TrainingDraws:
    """The trainings drawn in each resample of a corpus.

    Args:
        trainings: number S of trainings.
        draws: number B of resamples.
        seed: of the corpus.
    """

    def __init__(self, trainings: int, draws: int, seed: Sequence[int]) -> None:
        rng = np.random.default_rng(list(seed))
        self._weights = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size=draws) / trainings
        # The resamples of people have the same seed in every corpus; in another order they are independent.
        self._order = rng.permutation(draws)

    def combine(self, values: Sequence[float], draws: Sequence[np.ndarray]) -> Figure:
        """Return the figure of a corpus from each training's value and its values in resamples of people, (B,) each."""
        drawn = np.stack(draws, axis=1)[self._order]
        return Figure(float(np.mean(values)), (self._weights * drawn).sum(1))


@dataclass(frozen=True)
class OrderSums:
    """Sums over the pairs of each of P people, of the orders that y_hat and sigma predict.

    Attributes:
        loss: (P, A) sum of -log Phi(d / s).
        number: (P, A) pairs.
        ahead: (P, P, A) how many right orders of one person have a higher |d| / s than wrong ones of another, a tie 1/2.
        met: (P, P, A) all such combinations; an order with d = 0 is in none.
        gap: (P, A, 15) sum of claimed P(order) less observed, by bins of P(order).
    """

    loss: np.ndarray
    number: np.ndarray
    ahead: np.ndarray
    met: np.ndarray
    gap: np.ndarray

    def pair_nll(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean pair NLL of each AU, then of AUs, for weights of people (..., P): (...,)."""
        return mean_over_aus(_ratio(weights @ self.loss, weights @ self.number))

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean over AUs of the AUROC of |d| / s for right orders against wrong ones: (...,)."""
        above, below = (np.einsum("...p,pqa,...q->...a", weights, part, weights) for part in (self.ahead, self.met))
        return mean_over_aus(_ratio(above, below))

    def ece(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean over AUs of the expected calibration error of P(order): (...,)."""
        gaps = np.abs(np.tensordot(weights, self.gap, 1)).sum(-1)
        return mean_over_aus(_ratio(gaps, weights @ self.number))


def sum_orders(frames: Frames, split: str, pairs: Pairs, y_hat: np.ndarray, sigma: np.ndarray) -> OrderSums:
    """Sum the orders of a split's pairs for each of its people that have a label.

    With a constant sigma |d| / s ranks as |d| does.

    Args:
        y_hat, sigma: (N, A).
    """
    people = np.unique(frames.subject[frames.of_split(split) & frames.labelled.any(axis=1)])
    person = np.searchsorted(people, frames.subject[pairs.i])
    y, square = y_hat.astype(np.float64), sigma.astype(np.float64) ** 2
    d = pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])
    score = np.abs(d) / np.sqrt(square[pairs.i, pairs.au] + square[pairs.j, pairs.au] + _EPSILON)
    claimed, right = ndtr(score), 0.5 * (np.sign(d) + 1)
    shape = len(people), y_hat.shape[1]
    cell = person * shape[1] + pairs.au
    bins = np.clip(((claimed - 0.5) * 2 * _BINS).astype(int), 0, _BINS - 1)

    def add(index: np.ndarray, values: np.ndarray, *size: int) -> np.ndarray:
        return np.bincount(index, values, int(np.prod(size))).reshape(size)

    ahead, met = np.zeros((2, shape[0], shape[0], shape[1]))
    for au in range(shape[1]):
        own = pairs.au == au
        wins, losses = np.flatnonzero(own & (d > 0)), np.flatnonzero(own & (d < 0))
        higher = np.sign(score[wins][:, None] - score[losses])
        index = (person[wins][:, None] * shape[0] + person[losses]).ravel()
        ahead[..., au] = add(index, 0.5 * (higher.ravel() + 1), shape[0], shape[0])
        met[..., au] = add(index, np.ones(len(index)), shape[0], shape[0])
    return OrderSums(
        loss=add(cell, -log_ndtr(np.sign(d) * score), *shape),
        number=add(cell, np.ones(len(cell)), *shape),
        ahead=ahead,
        met=met,
        gap=add(cell * _BINS + bins, claimed - right, *shape, _BINS),
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)

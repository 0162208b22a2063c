"""Figures of several trainings with intervals over people and trainings.

evaluate draws the people of a corpus, with all their videos, with the same seed for every figure and every training, and
stores each figure's value in every resample. Here trainings are drawn in each resample, too: a figure's value is then its
mean over the drawn trainings. Corpora are drawn independently of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupair.evaluation.bootstrap import percentile_interval


@dataclass(frozen=True)
class Figure:
    """A figure, the mean over trainings (and corpora), with its values in B resamples: (B,)."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: "Figure") -> "Figure":
        return Figure(self.value - other.value, self.draws - other.draws)

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

    def combine(self, values: Sequence[float], draws: Sequence[Sequence[float | None]]) -> Figure:
        """Return the figure of a corpus from each training's value and its B values in resamples of people; None is NaN."""
        drawn = np.array(draws, np.float64).T[self._order]
        return Figure(float(np.mean(values)), (self._weights * drawn).sum(1))

"""Orders of two frames: pair accuracy over all pairs, and how well sigma separates right from wrong orders of fixed pairs.

For a pair of frames i, j whose order is r: d = r (y_hat_i - y_hat_j), s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6), and
P(the order is right) = Phi(d / s).
"""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.evaluation.metrics import auroc, calibration_bins, expected_calibration_error
from aupair.ranking.pairs import Pairs

_EPSILON = 1e-6
"""added under the root of s, as in the loss"""
_SIGMA_RANGE = (1e-2, 1e2)
"""the range of the search for the best constant sigma, in units of the standardised y_hat"""


class Order:
    """Frames sorted once by video and y_hat, so that the pairs of any subset are counted without sorting again.

    A pair is two frames of one video with different levels. It is in the wrong order where the frame with the higher
    level has the lower y_hat; a tie counts 1/2.

    Args:
        y_hat: (N, A) float, finite where the frame is usable.
        within: (N,) bool, the frames of which subsets are counted; a frame without a face or without a label of the AU
            never counts.
    """

    def __init__(self, y_hat: np.ndarray, frames: Frames, within: np.ndarray) -> None:
        rows = np.flatnonzero(within & frames.usable)
        video = frames.video[rows]
        new_video = np.diff(video, prepend=-1) != 0
        self._shape = y_hat.shape
        self._first, self._end = _runs(new_video)
        self._columns = []
        for au in range(y_hat.shape[1]):
            value = y_hat[rows, au]
            order = np.lexsort((value, video))
            tied, beyond = _runs(new_video | (np.diff(value[order], prepend=0) != 0))
            self._columns.append((rows[order], frames.labels[rows[order], au], tied, beyond))

    def accuracy(self, counted: np.ndarray) -> np.ndarray:
        """Return the share of pairs in the right order, pooled over videos: (A,), 0..1; NaN for an AU without a pair.

        Args:
            counted: (N,) or (N, A) bool, the frames that count.
        """
        wrong, pairs = np.zeros((2, self._shape[1]))
        for au, _, wrong_here, pairs_here in self._count(counted):
            wrong[au] += wrong_here.sum()
            pairs[au] += pairs_here.sum()
        return 1 - _share(wrong, pairs)

    def misorder_rate(self, counted: np.ndarray) -> np.ndarray:
        """Return the share of a frame's pairs in the wrong order: (N, A), 0..1; NaN for a frame without a pair.

        Args:
            counted: (N,) or (N, A) bool, the frames that count.
        """
        wrong, pairs = np.zeros((2, *self._shape))
        for au, rows, wrong_here, pairs_here in self._count(counted):
            wrong[rows, au], pairs[rows, au] = wrong_here, pairs_here
        return _share(wrong, pairs)

    def _count(self, counted: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield for each AU and level: AU, rows (n,), and for each row its pairs in the wrong order and all of them."""
        counted = np.broadcast_to(counted if counted.ndim == 2 else counted[:, None], self._shape)
        for au, (rows, level, tied, beyond) in enumerate(self._columns):
            use = counted[rows, au] & (level != NOT_ANNOTATED)
            for own in np.unique(level[use]):
                at = np.flatnonzero(use & (level == own))
                first, end, start, stop = self._first[at], self._end[at], tied[at], beyond[at]
                lower, higher = (np.concatenate([[0], np.cumsum(use & other)]) for other in (level < own, level > own))
                # pairs with frames of a lower level above this one, and of a higher level below it; ties are from start to stop
                wrong = (
                    lower[end] - (lower[stop] + lower[start]) / 2 + (higher[stop] + higher[start]) / 2 - higher[first]
                )
                yield au, rows[at], wrong, lower[end] - lower[first] + higher[end] - higher[first]


def _runs(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each index the start of its run and of the next run, (n,) int32; first: (n,) bool, starts a run."""
    starts = np.flatnonzero(first).astype(np.int32)
    run = np.cumsum(first) - 1
    return starts[run], np.append(starts[1:], np.int32(len(first)))[run]


def _share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return part / total, NaN where the total is 0."""
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def pair_losses(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return -log P(the order is right) of each pair: (M,) float64, lower is better.

    Args:
        y_hat, sigma: (N, A) float.
    """
    return -log_ndtr(_difference(y_hat, pairs) / _scale(sigma, pairs))


def pair_nll(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the mean loss of each AU's pairs: (A,), lower is better; NaN for an AU without pairs."""
    number = np.bincount(pairs.au, minlength=y_hat.shape[1])
    return np.bincount(pairs.au, pair_losses(y_hat, sigma, pairs), y_hat.shape[1]) / np.where(
        number > 0, number, np.nan
    )


def best_constant_sigma(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the one sigma that minimises an AU's pair NLL: (A,), within _SIGMA_RANGE; NaN for an AU without pairs.

    -log Phi(d u) is convex in u = 1/s, so that the minimum over log sigma is the only one.
    """
    d, best = _difference(y_hat, pairs), np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au):
        own = d[pairs.au == au]

        def loss(log_sigma: float, own: np.ndarray = own) -> float:
            return -float(log_ndtr(own / np.sqrt(2 * np.exp(2 * log_sigma) + _EPSILON)).mean())

        best[au] = np.exp(minimize_scalar(loss, bounds=np.log(_SIGMA_RANGE), method="bounded").x)
    return best


def order_margins(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, np.ndarray]:
    """Return |d| and |d| / s of each pair, (M,) each: the margin of their order, without and with sigma."""
    d = np.abs(_difference(y_hat, pairs))
    return {"margin": d, "margin_over_sigma": d / _scale(sigma, pairs)}


def auroc_of_orders(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, np.ndarray]:
    """Return the AUROC of |d| and of |d| / s for right orders against wrong ones: (A,) each; d = 0 is left out."""
    d = _difference(y_hat, pairs)
    untied, result = d != 0, {}
    for name, score in order_margins(y_hat, sigma, pairs).items():
        values = np.full(y_hat.shape[1], np.nan)
        for au in np.unique(pairs.au):
            own = untied & (pairs.au == au)
            values[au] = auroc(score[own], d[own] > 0)
        result[name] = values
    return result


def ece_of_orders(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the expected calibration error of P(order), each pair oriented by its y_hat difference: (A,), 0..1.

    With this orientation P = Phi(|d| / s) is in [.5, 1], which is divided into 15 equal bins; a tie counts as 1/2 right.
    """
    p, right = _oriented(y_hat, sigma, pairs)
    values = np.full(y_hat.shape[1], np.nan)
    for au in np.unique(pairs.au[np.isfinite(p)]):
        own = pairs.au == au
        values[au] = expected_calibration_error(p[own], right[own], low=0.5)
    return values


def mean_in_resamples(
    values: np.ndarray, pairs: Pairs, person: np.ndarray, weights: np.ndarray, aus: int
) -> np.ndarray:
    """Return the mean of each AU's pairs in every resample of the people: (B, A), NaN without a pair.

    Args:
        values: (M,) float.
        person: (M,) int, 0..P-1, the person of both frames of each pair.
        weights: (B, P), how often each person was drawn.
        aus: the number of AUs, A.
    """
    people = weights.shape[1]
    sums, number = (
        np.bincount(person * aus + pairs.au, own, people * aus).reshape(people, aus) for own in (values, None)
    )
    total, drawn = weights @ sums, weights @ number
    return np.where(drawn > 0, total / np.maximum(drawn, 1), np.nan)


def auroc_in_resamples(score: np.ndarray, right: np.ndarray, person: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of one AU's pairs, right orders against wrong ones, in every resample of the people: (B,).

    The pairs of any two people are compared once; a resample weights the comparison by the number of times they were drawn.

    Args:
        score: (m,) float.
        right: (m,) bool, whether the order is right.
        person, weights: see `mean_in_resamples`.
    """
    people = weights.shape[1]
    above = np.zeros((people, people))  # right pairs of a person above wrong pairs of another one, ties half
    for k in np.unique(person[~right]):
        wrong = np.sort(score[~right & (person == k)])
        lower = (np.searchsorted(wrong, score[right], "left") + np.searchsorted(wrong, score[right], "right")) / 2
        above[:, k] = np.bincount(person[right], lower, people)
    both = [weights @ np.bincount(person[side], minlength=people) for side in (right, ~right)]
    compared = both[0] * both[1]
    return np.where(
        compared > 0, np.einsum("bp,pq,bq->b", weights, above, weights, optimize=True) / np.maximum(compared, 1), np.nan
    )


def order_bins(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> dict[str, list[float]]:
    """Return claimed and observed P(order) and the share of pairs in 15 bins of [.5, 1], all AUs' pairs pooled."""
    p, right = _oriented(y_hat, sigma, pairs)
    known = np.isfinite(p)
    return {name: values.tolist() for name, values in calibration_bins(p[known], right[known], low=0.5).items()}


def _difference(y_hat: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return d = r (y_hat_i - y_hat_j): (M,) float64, positive where the order is right."""
    y = y_hat.astype(np.float64)
    return pairs.r * (y[pairs.i, pairs.au] - y[pairs.j, pairs.au])


def _scale(sigma: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return s = sqrt(sigma_i^2 + sigma_j^2 + 1e-6): (M,) float64."""
    square = sigma.astype(np.float64) ** 2
    return np.sqrt(square[pairs.i, pairs.au] + square[pairs.j, pairs.au] + _EPSILON)


def _oriented(y_hat: np.ndarray, sigma: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return P(order) = Phi(|d| / s), (M,) in [.5, 1], and whether that order is right, (M,): 1, 0, or 1/2 for a tie."""
    d, s = _difference(y_hat, pairs), _scale(sigma, pairs)
    return ndtr(np.abs(d) / s), 0.5 * (np.sign(d) + 1)

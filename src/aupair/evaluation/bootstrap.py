"""Bootstrap over people: confidence intervals of figures and of their differences.

Frames of one person are correlated, also between clips. All clips of a person are therefore drawn together.
"""

from collections.abc import Iterable
from typing import Any, SupportsFloat

import numpy as np

DIGITS = 6
"""decimal places of figures in resamples that are stored"""


def draw_resamples(people: int, draws: int, seed: Iterable[int]) -> np.ndarray:
    """Draw the number of times that each person is in each resample: (draws, people) int64; rows sum to `people`."""
    return np.random.default_rng(list(seed)).multinomial(people, np.full(people, 1 / people), size=draws)


def percentile_interval(values: np.ndarray) -> list[float]:
    """Return the 95 % percentile interval of bootstrap values (B,): [low, high].

    Values that are not finite are left out; if there are no others, both ends are NaN.
    """
    known = values[np.isfinite(values)]
    return [float(edge) for edge in np.quantile(known, [0.025, 0.975])] if len(known) else [float("nan")] * 2


def paired_difference(a: SupportsFloat, b: SupportsFloat, draws: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Return the difference of two figures with an interval, by a paired bootstrap over people.

    Args:
        a, b: a number each.
        draws: both in the same resamples, (B,) each; a resample in which one of them is NaN does not count.

    Returns:
        difference, its 95 % interval, and the probability that a is higher: the share of resamples, ties half. All are NaN
        if a or b is.
    """
    difference = float(a) - float(b)
    drawn = draws[0] - draws[1]
    known = drawn[np.isfinite(drawn) & np.isfinite(difference)]
    probability = (known > 0).mean() + 0.5 * (known == 0).mean() if len(known) else np.nan
    return {"difference": difference, "interval": percentile_interval(known), "probability": float(probability)}

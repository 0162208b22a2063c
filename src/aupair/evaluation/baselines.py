"""Constant guesses: on rare AUs they score high, so every table shows them."""

import numpy as np

from aupair.evaluation.metrics import au_score, count


def best_constant(truth: np.ndarray) -> np.ndarray:
    """Guess 0 or 1 for each AU, whichever has the higher 1/2 (F1 + accuracy); 0 on a tie: (A,) bool.

    Args:
        truth: (n, A) bool, active; the annotated frames of `fit`.
    """
    one_video = np.zeros(len(truth), int)
    scores = [au_score(count(np.full_like(truth, guess), truth, one_video).total()) for guess in (False, True)]
    return scores[1] > scores[0]


def constants(fit_truth: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of constant guesses: name -> (A,) bool."""
    width = fit_truth.shape[1]
    return {
        "all-zero": np.zeros(width, bool),
        "all-one": np.ones(width, bool),
        "best-constant": best_constant(fit_truth),
    }

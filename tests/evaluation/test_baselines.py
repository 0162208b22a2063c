"""Constant guesses."""

import numpy as np
from sklearn import metrics as sk

from aupair.evaluation.baselines import best_constant, constants


def test_the_best_constant_maximises_half_f1_plus_accuracy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 12)) < np.linspace(0.1, 0.9, 12)
    for au, guess in enumerate(best_constant(truth)):
        one = 0.5 * (sk.f1_score(truth[:, au], np.ones(400)) + truth[:, au].mean())
        assert guess == (one > 0.5 * (1 - truth[:, au].mean()))
    assert best_constant(truth).any()
    assert not best_constant(truth).all()
    assert not best_constant(np.zeros((5, 12), bool)).any()
    rows = constants(truth)
    assert (rows["all-zero"].any(), rows["all-one"].all()) == (False, True)

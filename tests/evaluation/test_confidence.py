"""The confidence of a decision: the regression against scikit-learn, calibration, direction, shrinkage."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from aupair.aus import AUS
from aupair.evaluation.confidence import TERMS, Confidence, fit_confidence, logistic, terms

A = len(AUS)


def draw(seed: int = 0, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """raw, sigma, thresholds, truth: the truth is raw plus noise of sigma, above the threshold."""
    rng = np.random.default_rng(seed)
    raw, sigma = rng.normal(0.3, 0.5, (n, A)), np.exp(rng.normal(-1, 0.5, (n, A)))
    thresholds = np.linspace(0.2, 0.8, A)
    return raw, sigma, thresholds, raw + sigma * rng.normal(size=(n, A)) >= thresholds


def test_logistic_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    y = (rng.random(500) < expit(x @ [1.0, -2.0, 0.5, 0.0])).astype(float)
    reference = LogisticRegression(C=1 / 3.0, fit_intercept=False, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(logistic(x, y, np.zeros(4), 3.0), reference.coef_[0], atol=1e-4)


def test_logistic_is_drawn_to_its_prior() -> None:
    x, y, prior = np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0]), np.array([-2.0])
    pulled = [logistic(x, y, prior, ridge)[0] for ridge in (1e-6, 1.0, 1e6)]
    assert pulled[0] == pytest.approx(np.log(3), abs=1e-3)
    assert pulled[0] > pulled[1] > pulled[2]
    assert pulled[2] == pytest.approx(-2, abs=1e-3)


def test_terms_are_those_named() -> None:
    raw, sigma = np.array([[0.9, 0.1]]), np.array([[1.0, np.e]])
    np.testing.assert_allclose(terms(raw, sigma, np.array([0.5, 0.5]))[0], [[1, 0.4, 1, 0.4, 0], [1, 0.4, 0, 0, 1]])


def test_it_is_calibrated_on_unseen_frames() -> None:
    raw, sigma, thresholds, truth = draw(0)
    confidence = fit_confidence(raw, sigma, thresholds, truth)
    raw, sigma, thresholds, truth = draw(1)
    p, right = confidence(raw, sigma, thresholds), (raw >= thresholds) == truth
    for low in np.arange(0.5, 1.0, 0.1):
        mine = (p >= low) & (p < low + 0.1)
        assert mine.sum() > 300
        assert p[mine].mean() == pytest.approx(right[mine].mean(), abs=0.04)


def test_it_rises_with_the_margin_and_falls_with_sigma() -> None:
    raw, sigma, thresholds, truth = draw()
    confidence = fit_confidence(raw, sigma, thresholds, truth)
    for side in (1, -1):
        near, far = (confidence(thresholds[None] + side * m, np.full((1, A), 0.4), thresholds) for m in (0.1, 0.6))
        assert (far > near).all()
        blurred = confidence(thresholds[None] + side * 0.6, np.full((1, A), 1.5), thresholds)
        assert (blurred < far).all()


def test_an_au_without_errors_stays_near_the_shared_one_and_below_certainty() -> None:
    raw, sigma, thresholds, truth = draw(n=60)
    truth[:, 3] = raw[:, 3] >= thresholds[3]
    p = fit_confidence(raw, sigma, thresholds, truth)(thresholds[None] + 0.01, np.full((1, A), 0.5), thresholds)
    assert 0.5 < p[0, 3] < 0.99


def test_a_single_kind_of_outcome_and_a_constant_sigma_are_no_obstacle() -> None:
    raw, _, thresholds, _ = draw(n=30)
    confidence = fit_confidence(raw, np.ones_like(raw), thresholds, raw >= thresholds)
    assert (confidence(raw, np.ones_like(raw), thresholds) > 0.9).mean() > 0.9


def test_the_quantiles_turn_a_share_into_a_threshold() -> None:
    raw, sigma, thresholds, truth = draw()
    confidence = fit_confidence(raw, sigma, thresholds, truth)
    assert confidence.quantiles.shape == (101,)
    p = confidence(raw, sigma, thresholds)
    for share in (0.0, 0.2, 0.205, 0.9):
        assert (p < confidence.threshold(share)).mean() == pytest.approx(share, abs=0.003)


def test_it_survives_json() -> None:
    raw, sigma, thresholds, truth = draw(n=200)
    confidence = fit_confidence(raw, sigma, thresholds, truth)
    tree = {au: {"confidence": confidence.of_au(k)} for k, au in enumerate(AUS)}
    again = Confidence.from_json({**tree, "confidence_quantiles": confidence.quantiles.tolist()})
    np.testing.assert_array_equal(again.coefficients, confidence.coefficients)
    assert again.coefficients.shape == (A, len(TERMS))


def test_a_frame_without_a_face_has_none() -> None:
    raw, sigma, thresholds, truth = draw(n=50)
    confidence = fit_confidence(raw, sigma, thresholds, truth)
    assert np.isnan(confidence(np.full((1, A), np.nan), np.full((1, A), np.nan), thresholds)).all()

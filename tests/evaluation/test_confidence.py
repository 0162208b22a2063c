"""The confidence of a decision: the regression against scikit-learn, calibration, direction, shrinkage."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, ParamsError
from aupair.evaluation.calibration import _confidence_quantiles, _fit_confidence, _fit_logistic
from aupair.evaluation.confidence import SIDES, TERMS, Confidence, regression_terms
from evaluation.worlds import held_out

A = len(AFFWILD2)


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
    np.testing.assert_allclose(_fit_logistic(x, y, np.zeros(4), 3.0), reference.coef_[0], atol=1e-4)


def test_logistic_is_drawn_to_its_prior() -> None:
    x, y, prior = np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0]), np.array([-2.0])
    pulled = [_fit_logistic(x, y, prior, ridge)[0] for ridge in (1e-6, 1.0, 1e6)]
    assert pulled[0] == pytest.approx(np.log(3), abs=1e-3)
    assert pulled[0] > pulled[1] > pulled[2]
    assert pulled[2] == pytest.approx(-2, abs=1e-3)


def test_terms_are_those_named() -> None:
    raw, sigma = np.array([[0.9, 0.1]]), np.array([[1.0, np.e]])
    np.testing.assert_allclose(
        regression_terms(raw, sigma, np.array([0.5, 0.5]))[0], [[1, 0.4, 1, 0.4, 0], [1, 0.4, 0, 0, 1]]
    )


def test_it_is_calibrated_on_unseen_frames() -> None:
    raw, sigma, thresholds, truth = draw(0)
    confidence = _fit_confidence(held_out(raw, sigma, thresholds, truth))
    raw, sigma, thresholds, truth = draw(1)
    p, right = confidence(raw, sigma, thresholds), (raw >= thresholds) == truth
    for low in np.arange(0.5, 1.0, 0.1):
        own_rows = (p >= low) & (p < low + 0.1)
        assert own_rows.sum() > 300
        assert p[own_rows].mean() == pytest.approx(right[own_rows].mean(), abs=0.04)


def test_it_rises_with_the_margin_and_falls_with_sigma() -> None:
    raw, sigma, thresholds, truth = draw()
    confidence = _fit_confidence(held_out(raw, sigma, thresholds, truth))
    for side in (1, -1):
        near, far = (confidence(thresholds[None] + side * m, np.full((1, A), 0.4), thresholds) for m in (0.1, 0.6))
        assert (far > near).all()
        blurred = confidence(thresholds[None] + side * 0.6, np.full((1, A), 1.5), thresholds)
        assert (blurred < far).all()


def test_an_au_without_errors_stays_near_the_shared_regression_and_below_1() -> None:
    raw, sigma, thresholds, truth = draw(n=60)
    truth[:, 3] = raw[:, 3] >= thresholds[3]
    p = _fit_confidence(held_out(raw, sigma, thresholds, truth))(
        thresholds[None] + 0.01, np.full((1, A), 0.5), thresholds
    )
    assert 0.5 < p[0, 3] < 0.99


def test_a_single_kind_of_outcome_and_a_constant_sigma_are_no_obstacle() -> None:
    raw, _, thresholds, _ = draw(n=30)
    confidence = _fit_confidence(held_out(raw, np.ones_like(raw), thresholds, raw >= thresholds))
    assert (confidence(raw, np.ones_like(raw), thresholds) > 0.9).mean() > 0.9


def test_the_limits_leave_out_the_same_share_of_each_au_and_decision() -> None:
    raw, sigma, thresholds, truth = draw()
    p, active = _fit_confidence(held_out(raw, sigma, thresholds, truth))(raw, sigma, thresholds), raw >= thresholds
    confidence = Confidence(np.zeros((A, len(TERMS))), _confidence_quantiles(p, active, np.ones_like(active)))
    for share in (0.0, 0.2, 0.205, 0.9, 1.0):
        limits = confidence.limits(share)
        assert limits.shape == (2, A)
        for au in range(A):
            for side in (0, 1):
                own = p[active[:, au] == side, au]
                assert (own < limits[side, au]).mean() == pytest.approx(share, abs=0.003)


def test_an_au_that_was_never_decided_so_has_the_limits_of_the_others() -> None:
    rng = np.random.default_rng(0)
    p, active = rng.random((500, 3)), rng.random((500, 3)) < 0.3
    active[:, 1] = False
    result = _confidence_quantiles(p, active, np.ones_like(active))
    np.testing.assert_allclose(result[:, 1, 1], np.quantile(p[active], np.linspace(0, 1, 101)))
    nobody = _confidence_quantiles(p, np.zeros_like(active), np.ones_like(active))
    np.testing.assert_allclose(nobody[:, 1, 0], np.quantile(p, np.linspace(0, 1, 101)))


BOUNDS = np.concatenate([np.linspace(0.2, 0.05, 51), np.full(50, 0.01)])
"""falls to .05 at one half, and is small, by chance, where hardly any decision is left"""


def promising(bounds: np.ndarray) -> Confidence:
    return Confidence(np.zeros((A, len(TERMS))), None, bounds - 0.01, bounds)


def test_a_risk_takes_the_smallest_share_that_keeps_its_bound() -> None:
    for risk in (0.05, 0.0501, 0.1, 0.17):
        share = promising(BOUNDS).share_for_risk(risk)
        assert BOUNDS[round(100 * share)] <= risk < BOUNDS[round(100 * share) - 1]
    assert promising(BOUNDS).share_for_risk(0.2) == promising(BOUNDS).share_for_risk(1.0) == 0.0


def test_a_share_below_one_that_fails_is_not_tested() -> None:
    bumpy = BOUNDS.copy()
    bumpy[[10, 30]] = 0.06, 0.15  # 10 would do, but 30 does not
    assert promising(bumpy).share_for_risk(0.12) == 0.31


def test_the_error_of_a_risk_that_is_too_low_names_the_lowest_possible() -> None:
    with pytest.raises(
        ParamsError, match=r"got a risk of 0.02, expected 0.05 or more, which keeps 50 % of the decisions$"
    ):
        promising(BOUNDS).share_for_risk(0.02)
    odd = BOUNDS + 0.0004
    with pytest.raises(ParamsError, match=r"expected 0.051 or more") as error:
        promising(odd).share_for_risk(0.05)
    assert "\n" not in str(error.value)
    assert promising(odd).share_for_risk(0.051) == 0.5, "what is said to be possible is"


def test_it_survives_json() -> None:
    raw, sigma, thresholds, truth = draw(n=200)
    fitted = _fit_confidence(held_out(raw, sigma, thresholds, truth))
    quantiles = _confidence_quantiles(fitted(raw, sigma, thresholds), raw >= thresholds, np.ones(raw.shape, bool))
    confidence = Confidence(fitted.coefficients, quantiles, BOUNDS - 0.01, BOUNDS)
    tree = {au: confidence.au_to_json(k) for k, au in enumerate(AFFWILD2)} | confidence.risks_to_json()
    assert set(tree["AU7"]["confidence_quantiles"]) == set(SIDES)
    again = Confidence.from_json(tree)
    for name in ("coefficients", "quantiles", "risks", "bounds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(confidence, name))
    assert again.coefficients.shape == (A, len(TERMS))


def test_a_selection_of_an_older_version_decides_but_cannot_abstain() -> None:
    entry = {"confidence": dict.fromkeys(TERMS, 0.5)}
    old = Confidence.from_json({**dict.fromkeys(AFFWILD2, entry), "confidence_quantiles": [0.0, 1.0]})
    assert old(np.full((1, A), 0.9), np.ones((1, A)), np.full(A, 0.5)).shape == (1, A)
    for ask in (old.limits, old.share_for_risk):
        with pytest.raises(
            ArtifactError, match=r"cannot abstain: .*older version of aupair wrote it; run evaluate and register-model"
        ):
            ask(0.1)


def test_a_frame_without_a_face_has_no_confidence() -> None:
    raw, sigma, thresholds, truth = draw(n=50)
    confidence = _fit_confidence(held_out(raw, sigma, thresholds, truth))
    assert np.isnan(confidence(np.full((1, A), np.nan), np.full((1, A), np.nan), thresholds)).all()

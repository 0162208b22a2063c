"""Parameters that fit no recipe are refused in one line."""

from typing import Any

import pytest

from aupair.errors import ParamsError
from aupair.params import check


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"thresholds": [0, 0.5, 0.25]}, "thresholds: in params, got [0, 0.5, 0.25], expected ascending thresholds"),
        ({"thresholds": [0, 0.5, 0.5]}, "thresholds: in params, got [0, 0.5, 0.5], expected ascending thresholds"),
        (
            {"thresholds": [0, 1.5]},
            "thresholds.1: in params, got 1.5, expected less than or equal to 1",
        ),
        ({"windows": [2.0, 0]}, "windows.1: in params, got 0, expected greater than 0"),
        ({"windows": [-1]}, "windows.0: in params, got -1, expected greater than 0"),
        ({"windows": [float("inf")]}, "windows.0: in params, got inf, expected a finite number"),
        ({"context": 0}, "context: in params, got 0, expected greater than 0"),
    ],
)
def test_features_that_cannot_be_computed(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        check({"extract_features": values})
    assert str(caught.value) == f"parameter extract_features.{said}"


def test_lists_may_be_empty() -> None:
    features = check({"extract_features": {"thresholds": [], "windows": []}}).extract_features
    assert (features.thresholds, features.windows) == ((), ())


def test_imagenets_weights_are_of_one_width() -> None:
    with pytest.raises(
        ParamsError, match=r"network: in params, got .*, expected width: 1 together with weights: imagenet"
    ):
        check({"train_pseudo_intensity": {"network": {"width": 0.5, "weights": "imagenet"}}})

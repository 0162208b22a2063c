"""With a class for each level: loss, expected level, files, and levels that never occur."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aupair import store
from aupair.errors import ArtifactError
from aupair.mapping.fit import Mapping
from aupair.mapping.networks import MappingNetworks
from mapping.toy import FEATURES, FRAMES, PARAMS, PLAIN, F, fit, make

CLASSES = PARAMS.model_copy(update={"loss": "cross_entropy", "epochs": 12})


@pytest.fixture(scope="module")
def fitted() -> tuple[Mapping, list[dict[str, float]]]:
    return fit(FRAMES, FEATURES, CLASSES, 0)


def make_networks(levels: int) -> MappingNetworks:
    torch.manual_seed(0)
    return MappingNetworks(torch.from_numpy(PLAIN), torch.zeros(12, F), torch.ones(12, F), 8, 0.0, levels).eval()


def logits(networks: MappingNetworks, variant: int, au: int, x: torch.Tensor) -> torch.Tensor:
    """Return the logits of one of the 24 networks by plain products: (B, F) -> (B, levels)."""
    x = x * torch.from_numpy(PLAIN).float() if variant else x
    *hidden, last = [(layer.weight[variant * 12 + au], layer.bias[variant * 12 + au]) for layer in networks.layers]
    for weight, bias in hidden:
        x = functional.relu(x @ weight + bias)
    return x @ last[0] + last[1]


@torch.no_grad()
def test_loss_and_expected_level_equal_a_loop() -> None:
    networks = make_networks(6)
    x, y = torch.randn(12, 5, F), torch.randint(0, 6, (12, 5))
    out, loss = networks(x), networks.loss(x, y.float())
    assert out.shape == loss.shape == (2, 12, 5)
    for variant in range(2):
        for au in range(12):
            scores = logits(networks, variant, au, x[au])
            probability = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            expected = sum(k * probability[:, k] for k in range(6))
            torch.testing.assert_close(out[variant, au], expected)
            torch.testing.assert_close(loss[variant, au], -probability[range(5), y[au]].log())


def test_occurrence_is_learned_and_read_off_the_same_way(fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    mapping, curves = fitted
    rows = FRAMES.of_split("validation") & FRAMES.usable
    outs = mapping(FEATURES[rows])
    assert all(out.min() >= 0 and out.max() <= 1 for out in outs)
    right = [((out >= 0.5) == FRAMES.labels[rows]).mean(axis=0) for out in outs]
    assert right[0].min() > 0.9
    assert right[1][0::2].max() < 0.75
    assert curves[-1]["train_loss"] < 0.5 * curves[0]["train_loss"] < 0.5 * 1.2 * np.log(2)
    assert np.isnan(mapping(FEATURES)[0][~FRAMES.ok]).all()


def test_six_levels_of_which_one_never_occurs() -> None:
    frames, features = make(levels=5)
    mapping, _ = fit(frames, features, CLASSES.model_copy(update={"epochs": 20, "width": 32}), 0, levels=6)
    assert mapping.networks.outputs == 6
    rows = frames.of_split("validation") & frames.usable
    out = mapping(features[rows])[0]
    assert np.abs(out - frames.labels[rows]).mean() < 0.5
    assert out.max() > 3.5


def test_round_trip_and_levels_that_do_not_fit(tmp_path: Path, fitted: tuple[Mapping, list[dict[str, float]]]) -> None:
    mapping, curves = fitted
    mapping.save(tmp_path / "mapping", curves)
    about = store.read_json(tmp_path / "mapping" / "about.json")
    assert (about["loss"], about["levels"]) == ("cross_entropy", 2)
    np.testing.assert_array_equal(Mapping.load(tmp_path / "mapping")(FEATURES), mapping(FEATURES))
    store.write_json(tmp_path / "mapping" / "about.json", {**about, "levels": 6})
    with pytest.raises(ArtifactError, match=r"weights do not fit their network: in .*mapping, got size mismatch"):
        Mapping.load(tmp_path / "mapping")


def test_l1_does_not_depend_on_the_number_of_levels() -> None:
    one, two = (fit(FRAMES, FEATURES, PARAMS, 0, levels)[0].networks.state_dict() for levels in (2, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_labels_of_another_target_are_one_line() -> None:
    frames, features = make(levels=4)
    with pytest.raises(
        ArtifactError, match="a level beyond the target's, got 3, expected 0 to 1; run check-data again"
    ):
        fit(frames, features, CLASSES, 0, levels=2)

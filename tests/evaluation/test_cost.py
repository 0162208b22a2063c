"""The cost of a recognizer against sums by hand, and against what lies in the files."""

from pathlib import Path
from typing import Any

import pytest

from aupair import store
from aupair.aus import AFFWILD2
from aupair.evaluation.cost import cost_of, cost_of_files
from aupair.mapping.columns import columns
from aupair.params import Params, parse_params
from aupair.stage import ARTIFACTS

BLOCKS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""VGG16's convolutions, each block ending in a pooling by two"""


def settings(sharing: str = "shared", kind: str = "network", **more: Any) -> Params:
    """Networks of an eighth of VGG16, without batch normalisation."""
    network = {"width": 0.125, "batch_norm": False, "weights": "none"}
    own = {"network": {"network": network}, "factors": {"block": 4}, "integrated": {}}[kind]
    tree = {
        "preprocess_faces": {"size": 64},
        "train_pseudo_intensity": {"network": network | {"sharing": sharing}},
        "train_uncertainty": {"kind": kind, **own},
        "train_mapping": {"width": 10, "seeds": 2},
    }
    return parse_params(tree | more)


def trunk(size: int = 64, blocks: int = 5) -> tuple[int, int, int]:
    """Weights, multiplications and channels of the convolutions, by hand."""
    weights, macs, channels = 0, 0, 3
    for block in BLOCKS[:blocks]:
        for out in (width // 8 for width in block):
            weights += out * (channels * 9 + 1)
            macs += size * size * out * channels * 9
            channels = out
        size //= 2
    return weights, macs, channels


def whole(outputs: int) -> tuple[int, int]:
    """Weights and multiplications of a network: 64 pixels leave a map of 2 x 2, between layers of 512."""
    weights, macs, channels = trunk()
    layers = ((channels * 4, 512), (512, 512), (512, outputs))
    return weights + sum((a + 1) * b for a, b in layers), macs + sum(a * b for a, b in layers)


def test_f_and_a_network_for_h_are_two_passes() -> None:
    cost = cost_of(settings(), 12)
    weights, macs = whole(12)
    assert cost["passes"] == 2
    assert cost["parts"]["f"] == {"parameters": weights, "gmac_per_frame": macs / 1e9, "passes": 1}
    assert cost["parts"]["h"]["parameters"] == weights + len(AFFWILD2), "h has an offset for each AU"
    assert cost["parts"]["h"]["gmac_per_frame"] == macs / 1e9


@pytest.mark.parametrize("smoother", ["both", "none"])
def test_the_mapping_decides_twice_for_each_au_with_two_networks_each_time(smoother: str) -> None:
    more = {"extract_features": {"smoother": smoother}}
    params = settings(**more)
    parameters, macs = 0, 0
    for uncertainty in (False, smoother == "none"):
        features = len(columns(params.extract_features, uncertainty))
        layers = ((features, 10), (10, 10), (10, 1))
        parameters += 24 * sum((a + 1) * b for a, b in layers)
        macs += 24 * sum(a * b for a, b in layers)
    part = cost_of(params, 12)["parts"]["mapping"]
    assert part["parameters"] == parameters
    assert part["gmac_per_frame"] == pytest.approx(macs / 1e9)
    classes = {"width": 10, "seeds": 2, "loss": "cross_entropy"}
    six = cost_of(settings(train_mapping=classes, target="intensity", **more), 12)["parts"]["mapping"]
    assert six["parameters"] == parameters + 48 * 5 * 11, "six levels instead of one"


def test_a_network_for_each_au_costs_twelve_trunks() -> None:
    cost = cost_of(settings(sharing="per_au"), 12)
    weights, macs = whole(1)
    assert cost["parts"]["f"] == {"parameters": 12 * weights, "gmac_per_frame": 12 * macs / 1e9, "passes": 12}
    assert cost["passes"] == 13


def test_an_integrated_sigma_costs_twelve_outputs() -> None:
    cost = cost_of(settings(sharing="integrated", kind="integrated"), 12)
    weights, macs = whole(24)
    assert list(cost["parts"]) == ["f", "mapping"]
    assert cost["parts"]["f"] == {"parameters": weights, "gmac_per_frame": macs / 1e9, "passes": 1}
    assert cost["passes"] == 1


def test_factors_read_the_map_of_f() -> None:
    cost = cost_of(settings(kind="factors"), 12)
    inputs = trunk(blocks=4)[2] * 9
    assert cost["parts"]["h"]["parameters"] == inputs * 12 + 12
    assert cost["parts"]["h"]["gmac_per_frame"] == inputs * 12 / 1e9
    assert cost["passes"] == 1
    totals = {key: sum(part[key] for part in cost["parts"].values()) for key in ("parameters", "gmac_per_frame")}
    assert totals == {key: cost[key] for key in totals}


@pytest.mark.parametrize(("ensemble", "members", "readers"), [("all", 6, 4), ("final", 1, 1)])
def test_all_networks_of_an_ensemble_count(ensemble: str, members: int, readers: int) -> None:
    one = cost_of(settings(kind="factors"), 12)
    folds = {"trials": [0, 1], "sample_pairs": {"folds": 2}, "ensemble": ensemble}
    cost = cost_of(settings(kind="factors", **folds), 12)
    assert cost["passes"] == members
    for key in ("parameters", "gmac_per_frame"):
        assert cost["parts"]["f"][key] == pytest.approx(members * one["parts"]["f"][key])
        assert cost["parts"]["h"][key] == pytest.approx(readers * one["parts"]["h"][key])
    assert cost["parts"]["mapping"] == one["parts"]["mapping"]


@pytest.mark.parametrize("aus", [1, 3, 20])
def test_the_cost_is_that_of_the_number_of_aus(aus: int) -> None:
    shared, per_au, factors = (cost_of(own, aus) for own in (settings(), settings("per_au"), settings(kind="factors")))
    assert shared["parts"]["f"]["parameters"] == whole(aus)[0]
    assert shared["parts"]["h"]["parameters"] == whole(aus)[0] + aus
    assert per_au["parts"]["f"]["parameters"] == aus * whole(1)[0]
    assert per_au["passes"] == aus + 1
    assert (
        shared["parts"]["mapping"]["parameters"] * 12 == cost_of(settings(), 12)["parts"]["mapping"]["parameters"] * aus
    )
    assert factors["parts"]["h"]["gmac_per_frame"] == trunk(blocks=4)[2] * 9 * aus / 1e9


def test_vgg16_has_its_published_cost() -> None:
    cost = cost_of(parse_params({}), 12)["parts"]["f"]
    assert cost["gmac_per_frame"] == pytest.approx(15.47, abs=0.01)
    assert cost["parameters"] == 138357544 - 1000 * 4097 + 12 * 4097


def test_files_cost_what_their_settings_do_and_hold_as_many_numbers(finished: Path, tiny: Params) -> None:
    places = {name: finished / ARTIFACTS[name].format(trial=0) for name in ("f", "h", "mapping")}
    cost = cost_of_files(**places)
    assert cost == cost_of(tiny, 12)
    buffers = ("running_", "num_batches", "center", "scale")
    members = [f"{name}.safetensors" for _, name in store.read_json(places["h"] / "about.json")["ensemble"]]
    files = {
        "f": [places["f"].parent / str(trial) / name for trial in tiny.trials for name in dict.fromkeys(members)],
        "h": sorted(
            set(places["h"].glob("*.safetensors"))
            - {places["h"] / "sigma.safetensors", places["h"] / "signals.safetensors"}
        ),
        "mapping": [places["mapping"] / f"{route}.safetensors" for route in ("raw", "both")],
    }
    for name, paths in files.items():
        arrays = [item for path in paths for item in store.read_arrays(path).items()]
        learned = sum(array.size for key, array in arrays if not any(word in key for word in buffers))
        assert cost["parts"][name]["parameters"] == learned, name

"""Params: values out of range, keys that a kind does not have, and overrides that change a kind."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aupair.errors import ParamsError
from aupair.params import HistogramFeatures, ListedPairs, Params, load_params, parse_params, parse_stored_params
from aupair.training_params import UncertaintyHead, UncertaintyNetwork, parse_network

REPOSITORY = Path(__file__).parents[1]
DEMO = REPOSITORY / "params.yaml"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thresholds": [0, 0.5, 0.25]}, "thresholds: in params, got [0, 0.5, 0.25], expected ascending thresholds"),
        ({"thresholds": [0, 0.5, 0.5]}, "thresholds: in params, got [0, 0.5, 0.5], expected ascending thresholds"),
        ({"thresholds": [0, 1.5]}, "thresholds.1: in params, got 1.5, expected less than or equal to 1"),
        ({"windows": [2.0, 0]}, "windows.1: in params, got 0, expected greater than 0"),
        ({"windows": [-1]}, "windows.0: in params, got -1, expected greater than 0"),
        ({"windows": [float("inf")]}, "windows.0: in params, got inf, expected a finite number"),
        ({"context": 0}, "context: in params, got 0, expected greater than 0"),
        ({"kind": "spectrum"}, "kind: in params, got 'spectrum', expected one of 'distribution', 'histogram'"),
    ],
)
def test_a_value_out_of_range_is_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params({"extract_features": values})
    assert str(caught.value) == f"parameter extract_features.{message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": [0, 1, 0]}, "trials: in params, got [0, 1, 0], expected each trial once"),
        ({"seed": -5}, "seed: in params, got -5, expected greater than or equal to 0"),
        ({"seed": 1e30}, "seed: in params, got 1e+30, expected a smaller integer"),
        ({"evaluate": {"seed": -5}}, "evaluate.seed: in params, got -5, expected greater than or equal to 0"),
    ],
)
def test_a_seed_or_trials_that_cannot_be_trained_are_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(values)
    assert str(caught.value) == f"parameter {message}"


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("extract_features.context_points", 1000),
        ("extract_features.context", 86400),
        ("train_mapping.width", 2**16),
        ("train_mapping.seeds", 1000),
        ("train_pseudo_intensity.optimiser.batch", 2**16),
        ("sample_pairs.folds", 1000),
        ("evaluate.bootstrap", 10**5),
    ],
)
def test_numbers_that_memory_grows_with_have_an_upper_bound(setting: str, limit: int) -> None:
    load_params(DEMO, [f"{setting}={limit}"])
    with pytest.raises(ParamsError, match=rf"^parameter {setting}: in .*, expected less than or equal to {limit}"):
        load_params(DEMO, [f"{setting}={limit + 1}"])


def test_lists_may_be_empty() -> None:
    features = parse_params({"extract_features": {"thresholds": [], "windows": []}}).extract_features
    assert features.kind == "distribution"
    assert (features.thresholds, features.windows) == ((), ())


def test_imagenets_weights_are_of_one_width() -> None:
    with pytest.raises(
        ParamsError, match=r"network: in params, got .*, expected width: 1 together with weights: imagenet"
    ):
        parse_params({"train_pseudo_intensity": {"network": {"width": 0.5, "weights": "imagenet"}}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"train_uncertainty": {"kind": "factors", "augment": 0.5}},
            "train_uncertainty.augment; leave it out, it has no effect with kind: factors, loss: nll",
        ),
        ({"train_uncertainty": {"kind": "factors", "facters": 3}}, "train_uncertainty.facters; did you mean factors?"),
        ({"train_uncertainty": {"facters": 3}}, "train_uncertainty.facters; known: "),
        (
            {"train_uncertainty": {"loss": "nll", "margin": 2.0}},
            "train_uncertainty.margin; leave it out, it has no effect with kind: network, loss: nll",
        ),
        (
            {"sample_pairs": {"train_pairs": 9}},
            "sample_pairs.train_pairs; leave it out, it has no effect with mode: groups",
        ),
        (
            {"train_pseudo_intensity": {"network": {"uncertainty_weight": 1.0}}},
            "train_pseudo_intensity.network.uncertainty_weight; leave it out, it has no effect with "
            "kind: vgg16, sharing: shared|per_au",
        ),
        ({"train_uncertainty": {"network": {"widht": 1.0}}}, "train_uncertainty.network.widht; did you mean width?"),
        ({"trialls": [0]}, "trialls; did you mean trials?"),
    ],
)
def test_an_unknown_key_is_an_error_that_knows_the_kind(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(section)
    assert str(caught.value).startswith(f"unknown parameter: in params, got {message}")


def test_a_section_without_its_tag_is_of_the_default_kind() -> None:
    params = parse_params({"train_uncertainty": {"floor": 0.1}, "sample_pairs": {}})
    assert isinstance(params.train_uncertainty, UncertaintyNetwork)
    assert params.sample_pairs.mode == "groups"


def test_an_override_of_a_kind_drops_the_keys_that_the_new_kind_does_not_have() -> None:
    before = load_params(DEMO)
    listed = load_params(DEMO, ["sample_pairs.mode=reference", "sample_pairs.train_pairs=77"])
    assert listed.sample_pairs == ListedPairs(train_pairs=77, valid_pairs=500, folds=2)
    network = load_params(DEMO, ["train_uncertainty.kind=network"]).train_uncertainty
    assert before.train_uncertainty.kind == "factors"
    assert network.kind == "network"
    changed = load_params(DEMO, ["train_uncertainty.floor=0.2", "train_uncertainty.kind=network"]).train_uncertainty
    assert changed.floor == 0.2, "a key that both kinds have stays"
    assert network.network == UncertaintyNetwork().network, "a key that is new has its default"
    both = ["train_pseudo_intensity.network.sharing=integrated", "train_uncertainty.kind=integrated"]
    assert load_params(DEMO, both).train_uncertainty == UncertaintyHead()
    features = load_params(DEMO, ["extract_features={kind: histogram}"]).extract_features
    assert features == HistogramFeatures()
    assert load_params(DEMO, ["extract_features.kind=distribution"]) == before


def test_an_override_of_a_key_without_effect_is_an_error_whatever_the_order() -> None:
    overrides = ["train_uncertainty.factors=3", "train_uncertainty.kind=network"]
    for texts in (overrides, overrides[::-1]):
        with pytest.raises(ParamsError, match=r"train_uncertainty\.factors; leave it out, it has no effect with kind"):
            load_params(DEMO, texts)


def test_a_file_must_agree_on_integrated_in_both_sections(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    f = {"network": {"sharing": "integrated"}}
    path.write_text(yaml.safe_dump({"train_pseudo_intensity": f}))
    with pytest.raises(ParamsError, match="`integrated` in both"):
        load_params(path)
    assert parse_params({"train_pseudo_intensity": f}), "a task of Kubeflow has one of the two sections"


FORMER = {
    "sample_pairs": {"mode": "groups", "frames": 6, "groups": 4, "train_pairs": 10000, "valid_pairs": 60, "folds": 2},
    "train_pseudo_intensity": {"margin": 2.0, "uncertainty_weight": 1.0, "optimiser": {"videos": 4, "pairs": 32}},
    "train_uncertainty": {"kind": "factors", "factors": 3, "network": {"width": 1.0}, "loss": "nll", "margin": 1.0},
    "extract_features": {"kind": "histogram", "neutral": "person", "windows": [1.0], "batch": 8},
}
"""As a bundle of version 0.1 has them: with the keys of all kinds."""


def test_params_of_a_former_bundle_are_read_without_the_keys_that_had_no_effect() -> None:
    params = parse_stored_params(FORMER, "params.json")
    assert params.extract_features == HistogramFeatures(neutral="person", batch=8)
    assert params.train_uncertainty.kind == "factors"
    assert params.train_uncertainty.factors == 3
    assert params.train_pseudo_intensity.objective == "pairs"
    assert params.train_pseudo_intensity.margin == 2
    with pytest.raises(ParamsError, match="unknown parameter"):
        parse_params(FORMER)
    with pytest.raises(ParamsError, match=r"parameter extract_features\.batch"):
        parse_stored_params({"extract_features": {"batch": 0}}, "params.json")


def test_params_survive_json() -> None:
    for name in ("params.yaml", "params/affwild2.yaml", "params/paper.yaml", "params/laptop.yaml"):
        params = load_params(REPOSITORY / name)
        assert Params.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ({}, "vgg16"),
        ({"width": 0.25, "weights": "none", "frozen": True}, "vgg16, width 0.25, frozen"),
        ({"kind": "efficientnet_b0", "frozen": True}, "efficientnet_b0, frozen"),
        ({"kind": "resnet50", "trained_blocks": 2}, "resnet50, 2 blocks trained"),
        ({"kind": "mine.faces:build"}, "mine.faces:build"),
    ],
)
def test_a_network_is_described_in_a_few_words(network: dict[str, Any], text: str) -> None:
    assert parse_network(network).describe() == text

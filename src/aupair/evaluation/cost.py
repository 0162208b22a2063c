"""What a recognizer costs: its parameters, and the multiplications that a frame takes, counted where they are done.

The networks are built without memory (torch's device `meta`) and forwarded once, so that VGG16 twelve times over is
counted in a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupair import store
from aupair.aus import AUS
from aupair.params import AnyNetwork, Params, TrainUncertainty, parse_network, parse_stored_params

if TYPE_CHECKING:
    from torch import Tensor, nn


class Shape(NamedTuple):
    """What the mapping's networks look like: columns of features, width, numbers that each gives."""

    features: int
    width: int
    outputs: int


def cost_of(params: Params) -> dict[str, Any]:
    """Give what `predict` does for a frame with a face, whose face is found already.

    Returns:
        parameters: of all networks that are kept, a copied trunk counted again; gmac_per_frame: 1e9 multiplications
        with an addition; passes: how often an image goes through a trunk: an h of kind `factors` reads f's map, which
        is there; and `parts`: parameters and gmac of f, h and the mapping, which decides with uncertainty and without.
    """
    from aupair.mapping.extractor import columns

    f, size = params.train_pseudo_intensity.network, params.preprocess_faces.size
    mapping = params.train_mapping
    outputs = 1 if mapping.loss == "l1" else params.levels
    shape = Shape(len(columns(params.extract_features)), mapping.width, outputs)
    return _cost(f, params.train_uncertainty, size, shape)


def cost_of_files(f: Path, h: Path, mapping: Path) -> dict[str, Any]:
    """Give the same for a trial, from what the folders of its networks say of themselves.

    Raises:
        ArtifactError: a folder has no about.json.
    """
    of_f, of_h, of_mapping = (store.read_json(Path(folder) / "about.json") for folder in (f, h, mapping))
    section = parse_stored_params({"train_uncertainty": of_h}, where=str(h)).train_uncertainty
    shape = Shape(of_mapping["features"], of_mapping["width"], of_mapping.get("levels", 1))
    return _cost(parse_network(of_f["network"]), section, of_f["size"], shape)


def _cost(f: AnyNetwork, h: TrainUncertainty, size: int, mapping: Shape) -> dict[str, Any]:
    """Count the parts; an integrated h is f's second head and costs nothing of its own."""
    import numpy as np
    import torch

    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.networks import AUNetwork, build_factors
    from aupair.ranking.uncertainty import Sigma

    def sigma(network: "nn.Module") -> Sigma:
        return Sigma(network, np.ones(len(AUS)), floor=0.05)

    with torch.device("meta"):
        face = torch.empty(1, 3, size, size)
        of_f = AUNetwork(f, size)
        counted = {"f": _count(of_f, face)}
        if h.kind == "network":
            counted["h"] = _count(sigma(AUNetwork(h.network, size)), face)
        elif h.kind == "factors":
            factors = build_factors(of_f, h.block, h.factors, seed=0)
            counted["h"] = _count(sigma(factors), factors.center[None])
        features = torch.empty(len(AUS), mapping.features)
        networks = MappingNetworks(features[0], features, features, mapping.width, 0.0, mapping.outputs)
        counted["mapping"] = _count(networks, features[:, None])
    parts = {name: {"parameters": size, "gmac_per_frame": macs / 1e9} for name, (size, macs, _) in counted.items()}
    totals = {key: sum(part[key] for part in parts.values()) for key in ("parameters", "gmac_per_frame")}
    return {**totals, "passes": sum(passes for *_, passes in counted.values()), "parts": parts}


def _count(network: "nn.Module", x: "Tensor") -> tuple[int, int, int]:
    """Count parameters, multiplications and passes through a trunk of one forward pass."""
    import torch

    tally = {"macs": 0, "passes": 0}
    with torch.no_grad(), _counting(network.eval(), tally):
        network(x)
    return sum(parameter.numel() for parameter in network.parameters()), tally["macs"], tally["passes"]


@contextmanager
def _counting(network: "nn.Module", tally: dict[str, int]) -> Iterator[None]:
    """Add up what the layers do while they do it."""
    from torch import nn

    from aupair.mapping.networks import BatchedLinear
    from aupair.ranking.networks import Factors, Vgg

    def add(layer: "nn.Module", _: Any, out: "Tensor") -> None:
        if isinstance(layer, nn.Conv2d):
            tally["macs"] += out.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear | BatchedLinear):
            tally["macs"] += layer.weight.numel()
        elif isinstance(layer, Factors):
            tally["macs"] += layer.down.numel() + layer.up.numel()
        tally["passes"] += isinstance(layer, Vgg)

    hooks = [layer.register_forward_hook(add) for layer in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

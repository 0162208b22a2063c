"""The cost of a recognizer: parameters, and multiplications for each frame, counted by torch's FlopCounterMode.

The networks are built without allocating weights (torch's device `meta`) and run once, so that even a VGG16 network for each
AU is counted in a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupair import store
from aupair.aus import stored_aus
from aupair.params import Params, parse_stored_params
from aupair.training_params import AnyNetwork, TrainUncertainty, parse_network

if TYPE_CHECKING:
    from torch import Tensor, nn


class _MappingShape(NamedTuple):
    """The sizes of the mappings that decide.

    Attributes:
        aus: number of AUs.
        widths: columns of features and width of the networks, of each route.
        outputs: those of a network.
        seeds: networks for each AU and route.
    """

    aus: int
    widths: tuple[tuple[int, int], ...]
    outputs: int
    seeds: int


def cost_of(params: Params, aus: int) -> dict[str, Any]:
    """Compute the cost of `predict` for a frame with a face, without the detection of the face.

    Args:
        aus: the number of AUs.

    Returns:
        parameters: those of the networks of one member of the ensemble; gmac_per_frame: 1e9
        multiplications with an addition; passes: how often an image goes through a trunk (an h of kind `factors` reads
        the feature map that f has computed); `parts`: parameters and gmac of f, h and the mapping, which decides with
        uncertainty and without.
    """
    from aupair.mapping.columns import columns

    f, size = params.train_pseudo_intensity.network, params.preprocess_faces.size
    mapping = params.train_mapping
    outputs = 1 if mapping.loss == "l1" else params.levels
    section = params.extract_features
    widths = [len(columns(section, route == "columns")) for route in dict.fromkeys(("raw", section.deciding))]
    shape = _MappingShape(aus, tuple((width, mapping.width) for width in widths), outputs, mapping.seeds)
    return _cost(f, params.train_uncertainty, size, shape)


def cost_of_files(f: Path, h: Path, mapping: Path) -> dict[str, Any]:
    """Compute the cost of a trial as `cost_of` does, from the about.json of its networks' folders.

    Raises:
        ArtifactError: a folder has no about.json.
    """
    of_f, of_h, of_mapping = (store.read_json(Path(folder) / "about.json") for folder in (f, h, mapping))
    section = parse_stored_params({"train_uncertainty": of_h}, where=str(h)).train_uncertainty
    deciding = list(of_mapping["routes"].values())[:2]  # further ones are rows of tables
    widths = tuple((route["features"], route["width"]) for route in deciding)
    shape = _MappingShape(len(stored_aus(of_mapping)), widths, of_mapping.get("levels", 1), of_mapping["seeds"])
    return _cost(parse_network(of_f["network"]), section, of_f["size"], shape)


def _cost(f: AnyNetwork, h: TrainUncertainty, size: int, mapping: _MappingShape) -> dict[str, Any]:
    """Count f, h and the mappings; an integrated h is f's second head and costs nothing of its own."""
    import numpy as np
    import torch
    from torch import nn

    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.networks import AUNetwork, Vgg
    from aupair.ranking.sigma import SigmaNetwork, phi_of_map

    aus, outputs, seeds = mapping.aus, mapping.outputs, mapping.seeds
    start = np.ones(aus)
    with torch.device("meta"):
        face = torch.empty(1, 3, size, size)
        of_f = AUNetwork(f, size, aus)
        networks: list[tuple[str, nn.Module, Tensor]] = [("f", of_f, face)]
        if h.kind == "network":
            networks.append(("h", SigmaNetwork(AUNetwork(h.network, size, aus), start, floor=0.05), face))
        elif h.kind == "factors":
            _, feature_map = of_f.forward_with_map(face, of_f.layers_through(h.block))
            inputs = phi_of_map(feature_map).shape[1]
            networks.append(("h", nn.Linear(inputs, aus), torch.empty(1, inputs)))
        for features, width in mapping.widths:
            x = torch.empty(aus, features)
            networks.append(("mapping", MappingNetworks(x, x, width, 0.0, outputs, seeds=seeds), x[:, None]))
        parts: dict[str, dict[str, float]] = {}
        for name, network, x in networks:
            part = parts.setdefault(name, {"parameters": 0, "gmac_per_frame": 0.0})
            part["parameters"] += sum(p.numel() for p in network.parameters())
            part["gmac_per_frame"] += _macs(network, x) / 1e9
    totals = {key: sum(part[key] for part in parts.values()) for key in ("parameters", "gmac_per_frame")}
    passes = sum(isinstance(module, Vgg) for _, network, _ in networks for module in network.modules())
    return {**totals, "passes": passes, "parts": parts}


def _macs(network: "nn.Module", x: "Tensor") -> int:
    """Count the multiplications of one forward pass, each with its addition."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    return counter.get_total_flops() // 2

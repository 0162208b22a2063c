"""The cost of a recognizer: parameters, and multiplications for each frame, counted by torch's FlopCounterMode.

The networks are built without allocating weights (torch's device `meta`) and run once, so that even a VGG16 network for each
AU is counted in a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import stored_aus
from aupair.params import Params, parse_stored_params
from aupair.training_params import AnyNetwork, TrainUncertainty, parse_network

if TYPE_CHECKING:
    from torch import Tensor, nn


def cost_of(params: Params, aus: int) -> dict[str, Any]:
    """Compute the cost of `predict` for a frame with a face, without the detection of the face.

    Args:
        aus: the number of AUs.

    Returns:
        parameters: those of all networks in the bundle, a copied trunk counted again; gmac_per_frame: 1e9
        multiplications with an addition; passes: how often an image goes through a trunk (an h of kind `factors` reads
        the feature map that f has computed); `parts`: parameters and gmac of f, h and the mapping, which decides with
        uncertainty and without.
    """
    from aupair.mapping.extractor import columns

    f, size = params.train_pseudo_intensity.network, params.preprocess_faces.size
    mapping = params.train_mapping
    outputs = 1 if mapping.loss == "l1" else params.levels
    shape = aus, len(columns(params.extract_features)), mapping.width, outputs
    return _cost(f, params.train_uncertainty, size, shape)


def cost_of_files(f: Path, h: Path, mapping: Path) -> dict[str, Any]:
    """Compute the cost of a trial as `cost_of` does, from the about.json of its networks' folders.

    Raises:
        ArtifactError: a folder has no about.json.
    """
    of_f, of_h, of_mapping = (store.read_json(Path(folder) / "about.json") for folder in (f, h, mapping))
    section = parse_stored_params({"train_uncertainty": of_h}, where=str(h)).train_uncertainty
    shape = len(stored_aus(of_mapping)), of_mapping["features"], of_mapping["width"], of_mapping.get("levels", 1)
    return _cost(parse_network(of_f["network"]), section, of_f["size"], shape)


def _cost(f: AnyNetwork, h: TrainUncertainty, size: int, mapping: tuple[int, int, int, int]) -> dict[str, Any]:
    """Count f, h and the mapping; an integrated h is f's second head and costs nothing of its own.

    Args:
        mapping: number of AUs, columns of features, width and outputs of its networks.
    """
    import numpy as np
    import torch

    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.networks import AUNetwork, Vgg, build_factors
    from aupair.ranking.uncertainty import Sigma

    aus, features, width, outputs = mapping
    start = np.ones(aus)
    with torch.device("meta"):
        face = torch.empty(1, 3, size, size)
        of_f = AUNetwork(f, size, aus)
        networks: dict[str, tuple[nn.Module, Tensor]] = {"f": (of_f, face)}
        if h.kind == "network":
            networks["h"] = Sigma(AUNetwork(h.network, size, aus), start, floor=0.05), face
        elif h.kind == "factors":
            factors = build_factors(of_f, h.block, h.factors, seed=0)
            networks["h"] = Sigma(factors, start, floor=0.05), factors.center[None]
        x = torch.empty(aus, features)
        of_mapping = MappingNetworks(x[0], x, x, width, 0.0, outputs)
        networks["mapping"] = of_mapping, x[:, None]
        parts = {
            name: {
                "parameters": sum(p.numel() for p in network.parameters()),
                "gmac_per_frame": _macs(network, x) / 1e9,
            }
            for name, (network, x) in networks.items()
        }
    totals = {key: sum(part[key] for part in parts.values()) for key in ("parameters", "gmac_per_frame")}
    passes = sum(isinstance(module, Vgg) for network, _ in networks.values() for module in network.modules())
    return {**totals, "passes": passes, "parts": parts}


def _macs(network: "nn.Module", x: "Tensor") -> int:
    """Count the multiplications of one forward pass, each with its addition."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    return counter.get_total_flops() // 2

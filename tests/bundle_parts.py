"""Parts of a bundle: small stand-ins, and those of a flow that has run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.evaluation.confidence import QUANTILES, TERMS, Confidence
from aupair.evaluation.selection import MAPPINGS
from aupair.inference.bundle import Parts
from aupair.params import Params

AU_SETS: dict[str, tuple[str, ...]] = {
    "one": ("AU43",),
    "three": ("AU12L", "AU12R", "smile-with-closed-mouth-and-raised-cheek"),
    "twelve": AFFWILD2,
    "twenty": tuple(f"AU{k}" for k in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 24, 25, 26, 28, 43)),
}
"""AUs of annotations: few and many, with sides, and a behaviour with the longest name."""


def write_parts(
    work: Path, score: float | None = 0.6, f1: float = 0.5, data: str = "a.dir", aus: Sequence[str] = AFFWILD2
) -> Parts:
    """Write parts with networks that nobody can load; the first three AUs are decided with uncertainty.

    Args:
        score: None: no frame has all labels.
        f1: the F1 of each AU; where the score is None, that of the last AU is undefined, too.
    """
    for folder, name in (("f/0", "final"), ("h", "final"), ("mapping", "mapping"), ("features", "statistics")):
        (work / folder).mkdir(parents=True, exist_ok=True)
        numbers = {"center": [0.0] * len(aus), "scale": [1.0] * len(aus)}
        about = {"aus": aus, "size": 32, "network": {"weights": "none"}, "standardisation": {"final": numbers}}
        store.write_json(work / folder / "about.json", about)
        (work / folder / f"{name}.safetensors").write_bytes(b"weights")
    entry = {"threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.0)}
    choices = {au: {"mapping": MAPPINGS[k < 3], **entry} for k, au in enumerate(aus)}
    tree = {**choices, "aus": aus, "confidence_quantiles": np.linspace(0, 1, 101).tolist()}
    per_au = {au: {"f1": None if score is None and au == aus[-1] else f1} for au in aus}
    figures = {"f1": f1, "accuracy": 0.8, "score": score, "per_au": per_au}
    rows = [{"name": n, "split": s, **figures} for n in ("P1", "P2") for s in ("select", "validation")]
    for name, content in (("selection", tree), ("data", {"md5": data}), ("metrics", {"rows": rows})):
        store.write_json(work / f"{name}.json", content)
    return Parts(
        (work / "f" / "0",), work / "h", work / "mapping", work / "features",
        work / "selection.json", work / "data.json", work / "metrics.json",
    )  # fmt: skip


def write_real_parts(work: Path, aus: tuple[str, ...], params: Params) -> Parts:
    """Write parts with small networks of random weights."""
    from aupair.mapping.columns import columns
    from aupair.mapping.extractor import Extractor
    from aupair.mapping.model import Mapping
    from aupair.mapping.networks import MappingNetworks
    from aupair.mapping.smoother import Noise
    from aupair.mapping.statistics import Statistics
    from aupair.ranking.ensemble import Member
    from aupair.ranking.networks import build_network
    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import save_f, save_h
    from aupair.ranking.sigma import SigmaModel, SigmaNetwork
    from aupair.ranking.uncertainty import Uncertainty

    parts, size, count = write_parts(work, aus=aus), params.preprocess_faces.size, len(aus)
    rng, ones, no_frames = np.random.default_rng(0), np.ones(count, np.float32), np.zeros((0, count), np.float32)
    f, h = (build_network(params.train_uncertainty.network, size, seed, count) for seed in (0, 1))
    trained = PseudoIntensity({"final": f}, {"final": 0 * ones}, {"final": ones}, {"final": no_frames}, [], 0.5)
    save_f(parts.f[0], trained, params, size, aus)
    model = SigmaModel(network=SigmaNetwork(h, ones, 0.05), floor=0.05)
    save_h(parts.h, Uncertainty(model, no_frames, no_frames, [], (Member(0, "final"),)), params, size, aus)
    section, routes = params.extract_features, dict.fromkeys(("raw", params.extract_features.deciding))
    networks = {}
    for route in routes:
        scale = torch.ones(count, len(columns(section, route == "columns")))
        networks[route] = MappingNetworks(0 * scale, scale, params.train_mapping.width, 0.0)
    Mapping(networks, aus).save(parts.mapping, [])
    y_hat, sigma = rng.normal(size=(99, count)), rng.lognormal(size=(99, count))
    statistics = Statistics.from_fit_frames(y_hat.astype(np.float32), sigma.astype(np.float32))
    noises = {route: Noise(0.1, 0.0, (1.0,) * count) for route in routes if route not in ("raw", "columns")}
    Extractor(section, noises, statistics=dict.fromkeys(routes, statistics)).save(parts.features)
    confidence = Confidence(rng.normal(size=(count, len(TERMS))), *_uniform_quantiles(count))
    tree = store.read_json(parts.selection) | confidence.risks_to_json()
    store.write_json(parts.selection, tree | {au: {**tree[au], **confidence.au_to_json(k)} for k, au in enumerate(aus)})
    return parts


def _uniform_quantiles(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return quantiles of a confidence that is uniform from 0 to 1, its risks and their bounds."""
    levels = np.linspace(0, 1, QUANTILES)
    return np.broadcast_to(levels[:, None, None], (QUANTILES, 2, count)), (1 - levels) / 2, 1 - levels


def parts_of_flow(root: Path, params: Params) -> Parts:
    """Return the parts of a flow that has run."""
    paths = stages.get_stage("register-model").paths(root, params.trials)
    names = ("h", "mapping", "features", "selection", "info", "metrics", "embeddings")
    return Parts(tuple(paths["f"]), *(paths[name] for name in names))

"""The fitted mappings from features to levels, and their files of this and of earlier versions."""

from collections.abc import Collection
from collections.abc import Mapping as MappingOf
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from aupair import store
from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError
from aupair.mapping.features import Features
from aupair.mapping.networks import MappingNetworks
from aupair.ranking.about import AuNames
from aupair.ranking.weights import load_network, read_state
from aupair.record import Positive

FORMAT = 2
"""format of about.json; files of the earlier version, with two networks for each AU and masked columns, have no format"""
CHUNK = 512
"""number of frames mapped at once"""


class Mapping:
    """The fitted mappings of all AUs, from features to levels, on each route.

    Args:
        networks: the networks of each route, whose mean is the mapping.
        aus: names of the A Action Units.
        reads: for a route that reads the features of another route, the name of the latter.
    """

    def __init__(
        self, networks: MappingOf[str, MappingNetworks], aus: tuple[str, ...], reads: MappingOf[str, str] | None = None
    ) -> None:
        self.networks, self.aus = {route: own.eval() for route, own in networks.items()}, aus
        self._reads = {route: (reads or {}).get(route, route) for route in networks}

    @property
    def routes(self) -> tuple[str, ...]:
        """Return the names of the routes."""
        return tuple(self.networks)

    def __call__(self, features: MappingOf[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Map the features (n, A, F) of each route to unclamped levels (n, A) float32; NaN for rows of NaN (no face)."""
        return {route: _map(own, features[self._reads[route]]) for route, own in self.networks.items()}

    def map_all(self, features: MappingOf[str, Features]) -> dict[str, np.ndarray]:
        """Map all N frames to levels (N, A) float32 by route, with only a chunk of the features in memory.

        Raises:
            ArtifactError: a route has no features, or another number of features than its networks take.
        """
        results = {}
        for route, networks in self.networks.items():
            own = features.get(self._reads[route])
            if own is None or own.width != networks.center.shape[1]:
                got = f"no features of {route}" if own is None else f"{own.width} features of {route}"
                expected, todo = f"{networks.center.shape[1]} features", "run train-mapping again"
                raise ArtifactError("a mapping of other features", got=got, expected=expected, todo=todo)
            parts = [_map(networks, part) for part in own.chunks(np.arange(len(own)), 8 * CHUNK)]
            results[route] = np.concatenate([np.zeros((0, len(self.aus)), np.float32), *parts])
        return results

    def save(self, folder: Path, curves: list[dict[str, Any]]) -> None:
        """Write the weights of each route as safetensors, about.json, and the training curves."""
        with store.atomic(folder) as temporary:
            temporary.mkdir()
            about: dict[str, Any] = {"format": FORMAT, "aus": self.aus, "routes": {}}
            for route, networks in self.networks.items():
                state = {k: v.cpu().numpy() for k, v in networks.state_dict().items()}
                store.write_arrays(temporary / f"{route}.safetensors", state)
                about["routes"][route] = {"features": state["center"].shape[1], "width": networks.width}
                about |= {"seeds": networks.seeds, "loss": "l1" if networks.outputs == 1 else "cross_entropy"}
                about |= {} if networks.outputs == 1 else {"levels": networks.outputs}
            store.write_json(temporary / "about.json", about)
            store.write_jsonl(temporary / "curves.jsonl", curves)

    @classmethod
    def load(cls, folder: Path, routes: Collection[str] | None = None) -> "Mapping":
        """Load mappings that `save` of this or of an earlier version wrote.

        Args:
            routes: the routes to load; None: all.

        Raises:
            ArtifactError: a file is missing, corrupt or does not fit.
        """
        about = read_about(folder)
        if isinstance(about, _EarlierAbout):
            return _load_earlier_version(Path(folder), about)
        networks = {}
        for route, own in about.routes.items():
            if routes is None or route in routes:
                path, blank = Path(folder) / f"{route}.safetensors", partial(_blank, about, own, about.seeds)
                networks[route] = load_network(blank, read_state(path), path)
        return cls(networks, about.aus)


@torch.no_grad()
def _map(networks: MappingNetworks, features: np.ndarray) -> np.ndarray:
    """Return the mean of the networks: (n, A, F) -> (n, A) float32."""
    parts = [np.zeros((features.shape[1], 0), np.float32)]
    for start in range(0, len(features), CHUNK):
        part = features[start : start + CHUNK].swapaxes(0, 1)
        # The chunk is padded to a fixed size, so that the order of sums does not depend on n.
        full = np.zeros((part.shape[0], CHUNK, part.shape[2]), np.float32)
        full[:, : part.shape[1]] = part
        parts.append(networks(torch.from_numpy(full)).mean(dim=0).numpy()[:, : part.shape[1]])
    return np.concatenate(parts, axis=1).T


class RouteSizes(store.Artifact):
    """The number of features and the width of the networks of one route."""

    features: Positive
    width: Positive


class _AnyAbout(store.Artifact):
    """The part of about.json that all versions share; the oldest files have no loss."""

    aus: AuNames = AFFWILD2
    loss: Literal["l1", "cross_entropy"] = "l1"
    levels: Positive = 1


class About(_AnyAbout):
    """The mappings of each route: `seeds` networks for each AU."""

    format: int
    routes: Annotated[dict[str, RouteSizes], Field(min_length=1)]
    seeds: Positive


class _EarlierAbout(_AnyAbout, RouteSizes):
    """The mappings of a version before there were routes."""


def read_about(folder: Path) -> About | _EarlierAbout:
    """Read the description of the mappings.

    Raises:
        ArtifactError: about.json is missing or malformed.
    """
    path = Path(folder) / "about.json"
    tree = store.read_json(path)
    earlier = isinstance(tree, dict) and "format" not in tree and "routes" not in tree
    return store.read_record(path, _EarlierAbout) if earlier else store.read_record(path, About)


def _blank(about: _AnyAbout, sizes: RouteSizes, seeds: int) -> MappingNetworks:
    """Return networks of the sizes in about.json, to load weights into."""
    shape = len(about.aus), sizes.features
    outputs = about.levels if about.loss == "cross_entropy" else 1
    return MappingNetworks(torch.zeros(shape), torch.ones(shape), sizes.width, 0.0, outputs, seeds=seeds)


def _load_earlier_version(folder: Path, about: _EarlierAbout) -> Mapping:
    """Load a file of two networks for each AU, with and without uncertainty, whose inputs are masked columns.

    They become the routes `columns` and `raw`, which both read all columns. The weights of masked columns are set to zero
    instead of being removed, since a shorter sum would give other bits. If no column is masked (`kind: histogram`), both
    networks are equivalent and only `raw` is loaded.

    Raises:
        ArtifactError: a file is missing, corrupt or does not fit.
    """
    aus, path = about.aus, folder / "mapping.safetensors"

    def blank() -> MappingNetworks:
        networks = _blank(about, about, seeds=2)
        networks.register_buffer("mask", torch.ones(2 * len(aus), 1, about.features))
        return networks

    both = load_network(blank, read_state(path), path)
    state = both.state_dict()
    mask = state.pop("mask")
    state["layers.0.weight"] *= mask.swapaxes(1, 2)
    networks = {}
    for seed, route in enumerate(("columns", "raw")):
        own = slice(seed * len(aus), (seed + 1) * len(aus))
        networks[route] = _blank(about, about, seeds=1)
        networks[route].load_state_dict({k: v[own] if k.startswith("layers") else v for k, v in state.items()})
    if bool(mask.all()):
        return Mapping({"raw": networks["raw"]}, aus)
    return Mapping({"raw": networks["raw"], "columns": networks["columns"]}, aus, {"raw": "columns"})

"""Frames and features of a toy corpus for the tests of the mapping."""

import numpy as np

from aupair.data.frames import Frames
from aupair.mapping.features import Features
from aupair.mapping.fit import fit_mappings
from aupair.mapping.model import Mapping
from aupair.params import TrainMapping
from frame_sets import make_frames

F, LENGTH, VIDEOS, SEEDS = 6, 40, 8, 2
SPLIT = (0, 0, 0, 0, 1, 1, 2, 2)
PARAMS = TrainMapping(width=16, dropout=0.1, learning_rate=3e-3, draws=256, epochs=4, batch=16, seeds=SEEDS)


def make(levels: int = 2) -> tuple[Frames, np.ndarray]:
    """Return frames and features: column 0 determines odd AUs, column 4 even ones; some frames lack a face."""
    rng = np.random.default_rng(0)
    n = VIDEOS * LENGTH
    labels = rng.integers(0, levels, (n, 12)).astype(np.int8)
    features = rng.normal(size=(n, 12, F)).astype(np.float32)
    for au in range(12):
        features[:, au, 0 if au % 2 else 4] = 3 * labels[:, au] + 0.3 * rng.normal(size=n) + 5
    ok = np.arange(n) % 9 != 0
    features[~ok] = np.nan
    labels[np.arange(n) % 13 == 0] = -1
    return make_frames(SPLIT, labels, ok=ok), features


FRAMES, FEATURES = make()


def split_routes(array: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of two routes: `raw` has the first four columns, with which only odd AUs can be learned."""
    return {"raw": array[..., :4], "both": array}


def fit(
    frames: Frames, array: np.ndarray, params: TrainMapping, seed: int, levels: int = 2
) -> tuple[Mapping, list[dict[str, float]]]:
    """Fit the mappings of both routes on an array of features."""
    features = {route: Features(values) for route, values in split_routes(array).items()}
    return fit_mappings(frames, features, levels, params, seed)


def outputs(mapping: Mapping, array: np.ndarray) -> np.ndarray:
    """Return the outputs of both routes, (2, n, 12)."""
    out = mapping(split_routes(array))
    return np.stack([out["raw"], out["both"]])

"""Frames and features of a toy corpus for the tests of the mapping."""

import numpy as np

from aupair.data.frames import Frames
from aupair.mapping.features import Features
from aupair.mapping.fit import Mapping, fit_mappings
from aupair.params import TrainMapping
from frame_sets import make_frames

F, LENGTH, VIDEOS = 6, 40, 8
PLAIN = np.array([True, True, True, True, False, False])
SPLIT = (0, 0, 0, 0, 1, 1, 2, 2)
PARAMS = TrainMapping(width=16, dropout=0.1, learning_rate=3e-3, draws=256, epochs=4, batch=16)


def make(levels: int = 2) -> tuple[Frames, np.ndarray]:
    """Return frames and features: column 0 determines odd AUs, column 4 (of uncertainty) even ones; some frames lack a face."""
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


def fit(
    frames: Frames, array: np.ndarray, params: TrainMapping, seed: int, levels: int = 2
) -> tuple[Mapping, list[dict[str, float]]]:
    """Fit the mappings on an array of features."""
    return fit_mappings(frames, Features(array, PLAIN), levels, params, seed)

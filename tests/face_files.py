"""Faces in files as preprocess-faces writes them, and a small network that is fitted to pairs of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aupair import store
from aupair.log import SILENT, Log
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import draw_pairs
from aupair.ranking.sampling import ListSampler
from aupair.training_params import Network, Optimiser
from frame_sets import make_frames
from training_sets import LENGTH, NARROW, SIZE, alternating_labels


def write_faces(path: Path, jpegs: Sequence[bytes]) -> None:
    """Write the faces of a video; an empty JPEG stands for a frame without a face."""
    n = len(jpegs)
    nan = np.full(n, np.nan, np.float32)
    columns = {
        "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 25.0, "jpeg": list(jpegs),
        "status": ["ok" if jpeg else "no_face" for jpeg in jpegs], "landmarks": [np.zeros(136, np.float32)] * n,
        "transform": [np.zeros(6, np.float32)] * n, "detector_score": nan, "tracked": np.zeros(n, bool),
        "pass_disagreement": nan, "procrustes_residual": nan,
    }  # fmt: skip
    store.write_faces(path, [columns], {})


class FaceFiles:
    """Files of faces of two videos, decoded each time, and pairs among them."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        rng = np.random.default_rng(0)
        for name in ("v0", "v1"):
            noise = [rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for _ in range(LENGTH)]
            write_faces(folder / f"{name}.arrow", [store.encode_jpeg(image) for image in noise])
        frames = make_frames((0, 0), np.maximum(alternating_labels(2 * LENGTH), 0))
        self.images = FaceImages(folder, frames, cache_bytes=0)
        self.sampler = ListSampler(draw_pairs(frames, "fit", 40, (0,)), 4, (0,))

    def job(self, **changes: Any) -> FitJob:
        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"loss": float(forward_all(model, self.images, np.arange(24), self.device)[:, 0].mean())}

        values: dict[str, Any] = {
            "images": self.images, "sampler": self.sampler, "evaluate": evaluate, "seed": 3,
            "name": "toy", "augment": 0.5, "device": self.device,
            "batch_loss": lambda outputs, rows, pairs: ranking_loss(outputs, pairs),
        }  # fmt: skip
        return FitJob(**{**values, **changes})


def train_toy(
    job: FitJob, log: Log = SILENT, steps: int = 6, rate: float = 3e-3
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Fit a small network, and return its weights and curves."""
    model = build_network(Network(**{**NARROW, "width": 0.03, "dropout": 0.5}), SIZE, 0, 12)
    params = Optimiser(name="adamw", learning_rate=rate, schedule="one_cycle", weight_decay=0.01, evaluate_every=3)
    curves = fit(model, job, params, steps, log)
    return {key: value.cpu().numpy() for key, value in model.state_dict().items()}, curves

"""Faces in files as preprocess-faces writes them, and a small network that is fitted to pairs of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aupair import store
from aupair.data.frames import Frames
from aupair.log import SILENT, Log
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import draw_pairs
from aupair.ranking.sampling import ListSampler
from aupair.training_params import Network, Optimiser

SIZE, LENGTHS = 32, (12, 12)


class Faces:
    """Files of faces, decoded anew each time, and pairs among them."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        rng, count = np.random.default_rng(0), sum(LENGTHS)
        video = np.repeat(np.arange(2, dtype=np.int32), LENGTHS)
        frame = np.concatenate([np.arange(n, dtype=np.int32) for n in LENGTHS])
        for v, n in enumerate(LENGTHS):
            nan = np.full(n, np.nan, np.float32)
            columns = {
                "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 25.0, "status": ["ok"] * n,
                "jpeg": [store.encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)) for _ in range(n)],
                "landmarks": [np.zeros(136, np.float32)] * n, "transform": [np.zeros(6, np.float32)] * n,
                "detector_score": nan, "tracked": np.zeros(n, bool), "pass_disagreement": nan,
                "procrustes_residual": nan,
            }  # fmt: skip
            store.write_faces(folder / f"v{v}.arrow", [columns], {})
        labels = np.zeros((count, 12), np.int8)
        labels[:, 0] = np.arange(count) % 2
        names, fit_rows = ("v0", "v1"), np.zeros(count, np.int8)
        self.frames = Frames(names, names, video, video, fit_rows, frame, frame / 25.0, np.ones(count, bool), labels)
        self.images = FaceImages(folder, self.frames, cache_bytes=0)
        self.sampler = ListSampler(draw_pairs(self.frames, "fit", 40, (0,)), 4, (0,))

    def job(self, **changes: Any) -> FitJob:
        def evaluate_on_select(model: nn.Module) -> dict[str, float]:
            return {"loss": float(forward_all(model, self.images, np.arange(24), self.device)[:, 0].mean())}

        values: dict[str, Any] = {
            "images": self.images, "sampler": self.sampler, "evaluate_on_select": evaluate_on_select, "seed": 3,
            "name": "toy", "augment": 0.5,
            "batch_loss": lambda outputs, rows, pairs: ranking_loss(outputs, pairs), "device": self.device,
        }  # fmt: skip
        return FitJob(**{**values, **changes})


def trained(
    job: FitJob, log: Log = SILENT, steps: int = 6, rate: float = 3e-3
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Fit a small network: its weights and its curves."""
    network = Network(width=0.03, batch_norm=True, weights="none", frozen_convolutions=0, dropout=0.5)
    model = build_network(network, SIZE, 0)
    params = Optimiser(name="adamw", learning_rate=rate, schedule="one_cycle", weight_decay=0.01, evaluate_every=3)
    curves = fit(model, job, params, steps, log)
    return {key: value.cpu().numpy() for key, value in model.state_dict().items()}, curves

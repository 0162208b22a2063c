"""Fit the mapping with L1 loss on balanced draws (paper: section 3.3), and use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aupair import store
from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.log import SILENT, Log
from aupair.mapping.networks import MappingNetworks
from aupair.params import TrainMapping
from aupair.ranking.networks import pick_device

CHUNK = 512
"""frames mapped at once"""


class Mapping:
    """The fitted mappings of all AUs: features in, levels out."""

    def __init__(self, networks: MappingNetworks, width: int) -> None:
        self.networks, self.width = networks.eval(), width

    @torch.no_grad()
    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map features (n, A, F) to unclamped levels with uncertainty (n, A) and without (n, A), float32.

        Rows of NaN (no face) give NaN.
        """
        parts = [np.zeros((2, features.shape[1], 0), np.float32)]
        for start in range(0, len(features), CHUNK):
            part = features[start : start + CHUNK].swapaxes(0, 1)
            full = np.zeros((part.shape[0], CHUNK, part.shape[2]), np.float32)  # one size: the same sums for any n
            full[:, : part.shape[1]] = part
            parts.append(self.networks(torch.from_numpy(full)).numpy()[:, :, : part.shape[1]])
        with_uncertainty, without = np.concatenate(parts, axis=2).swapaxes(1, 2)
        return with_uncertainty, without

    def save(self, folder: Path, curves: list[dict[str, Any]]) -> None:
        """Write safetensors, a readable json and the curves."""
        with store.atomic(folder) as temporary:
            temporary.mkdir()
            state = {k: v.cpu().numpy() for k, v in self.networks.state_dict().items()}
            store.write_arrays(temporary / "mapping.safetensors", state)
            about = {"aus": AUS, "features": state["center"].shape[1], "width": self.width}
            store.write_json(temporary / "about.json", about)
            (temporary / "curves.jsonl").touch()
            for row in curves:
                store.append_jsonl(temporary / "curves.jsonl", row)

    @classmethod
    def load(cls, folder: Path) -> "Mapping":
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, corrupt or does not fit.
        """
        about = store.read_json(Path(folder) / "about.json")
        shape = len(about["aus"]), about["features"]
        plain, center, scale = torch.zeros(about["features"]), torch.zeros(shape), torch.ones(shape)
        networks = MappingNetworks(plain, center, scale, about["width"], 0.0)
        state = {k: torch.from_numpy(v) for k, v in store.read_arrays(Path(folder) / "mapping.safetensors").items()}
        try:
            networks.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(
                "weights do not fit their network", where=folder, got=str(error).splitlines()[-1].strip()
            ) from error
        return cls(networks, about["width"])


def train(
    frames: Frames, features: np.ndarray, plain: np.ndarray, params: TrainMapping, seed: int, log: Log = SILENT
) -> tuple[Mapping, list[dict[str, Any]]]:
    """Fit all mappings on fit; of each network the epoch with the lowest balanced L1 loss on `select` is kept.

    Args:
        features: (N, A, F) float32, NaN where there is no face.
        plain: (F,) bool, the columns that need no uncertainty.

    Returns:
        the mapping, and for each epoch {epoch, train_loss, select_loss}: means over the networks.
    """
    device = pick_device(params.device)
    fit_rows, select_rows = (np.flatnonzero(frames.usable & frames.of_split(s)) for s in ("fit", "select"))
    seen = features[fit_rows]
    center, spread = (moment(0, dtype=np.float64).astype(np.float32) for moment in (seen.mean, seen.std))
    scale = np.maximum(spread, 1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blank = [torch.from_numpy(a) for a in (plain, center, scale)]
        networks = MappingNetworks(blank[0], blank[1], blank[2], params.width, params.dropout).to(device)
        optimiser = torch.optim.AdamW(networks.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay)
        x, y = (torch.from_numpy(a).to(device) for a in (features, frames.labels.astype(np.float32)))
        probability = draw_probability(frames.labels[fit_rows], frames.video[fit_rows])
        judged = draw_probability(frames.labels[select_rows], frames.video[select_rows])
        weight = torch.from_numpy(judged.astype(np.float32)).to(device)
        rng = np.random.default_rng([seed, 7])
        kept, curves = _Best(networks), []
        for epoch in log.progress(range(params.epochs), params.epochs, "training the mapping"):
            draws = fit_rows[draw(probability, params.draws, rng)]
            losses = [take_step(networks, optimiser, x, y, rows) for rows in batches(draws, params.batch)]
            loss = balanced_loss(networks, x[select_rows], y[select_rows], weight)
            kept.update(loss)
            curves.append({"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "select_loss": float(loss.mean())})
            log.metrics(epoch + 1, **{k: v for k, v in curves[-1].items() if k != "epoch"})
        kept.restore()
    return Mapping(networks.cpu(), params.width), curves


class _Best:
    """The weights of each network's best epoch."""

    def __init__(self, networks: MappingNetworks) -> None:
        self.parameters = dict(networks.named_parameters())
        self.kept = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.loss: Tensor | None = None

    def update(self, loss: Tensor) -> None:
        """Keep the weights of the networks whose loss (2, A) fell."""
        better = torch.ones_like(loss, dtype=torch.bool) if self.loss is None else loss < self.loss
        self.loss = loss if self.loss is None else torch.minimum(self.loss, loss)
        for name, value in self.parameters.items():
            self.kept[name][better.flatten()] = value.detach()[better.flatten()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        for name, value in self.parameters.items():
            value.copy_(self.kept[name])


def draw_probability(labels: np.ndarray, video: np.ndarray) -> np.ndarray:
    """The probability of each frame in a draw balanced over levels, then over videos: (n, A) -> (A, n) float64.

    An AU of one level alone is drawn evenly over its videos.
    """
    out = np.zeros(labels.T.shape)
    for au in range(labels.shape[1]):
        cell = np.stack([labels[:, au].astype(np.int64), video.astype(np.int64)])
        _, inverse, counts = np.unique(cell, axis=1, return_inverse=True, return_counts=True)
        levels, level_of_cell = np.unique(labels[:, au], return_inverse=True)
        videos_of_level = np.array([len(np.unique(video[labels[:, au] == v])) for v in levels])
        out[au] = 1 / counts[inverse.ravel()] / videos_of_level[level_of_cell] / len(levels)
    return out


def draw(probability: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw frames for each AU with replacement: (A, n) probabilities -> (A, count) positions."""
    reach = np.cumsum(probability, axis=1)
    return np.stack([np.searchsorted(r, rng.random(count) * r[-1], "right").clip(max=len(r) - 1) for r in reach])


def batches(draws: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut (A, count) draws into (A, size) parts."""
    for start in range(0, draws.shape[1], size):
        yield draws[:, start : start + size]


def take_step(
    networks: MappingNetworks, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, rows: np.ndarray
) -> float:
    """Take one step on the L1 loss of (A, B) drawn frames; each network's mean counts by itself, hence the sum."""
    networks.train()
    au = torch.arange(len(rows))[:, None]
    index = torch.from_numpy(rows)
    loss = (networks(x[index, au]) - y[index, au]).abs().mean(dim=2)
    optimiser.zero_grad(set_to_none=True)
    loss.sum().backward()
    optimiser.step()
    return float(loss.detach().mean())


@torch.no_grad()
def balanced_loss(networks: MappingNetworks, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """L1 loss of each network, weighed as the draws are: x (n, A, F), y (n, A), weight (A, n) -> (2, A)."""
    networks.eval()
    error = (networks(x.swapaxes(0, 1)) - y.T).abs()
    return (error * weight).sum(dim=2) / weight.sum(dim=1).clamp(min=1e-12)

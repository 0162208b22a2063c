"""The fitting of the mappings from features to levels on balanced draws (paper: section 3.3), and their application."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aupair import store
from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.log import SILENT, Log
from aupair.mapping.features import Features
from aupair.mapping.networks import MappingNetworks
from aupair.params import TrainMapping
from aupair.ranking.networks import pick_device
from aupair.ranking.scores import load_weights

CHUNK = 512
"""frames mapped at once"""
ACTIVATIONS = 2**25
"""numbers of one layer of all networks in memory at once while the loss on `select` is computed"""


class Mapping:
    """The fitted mappings of all AUs, from features to levels.

    Args:
        networks: two for each AU.
        aus: names of the A Action Units.
    """

    def __init__(self, networks: MappingNetworks, aus: tuple[str, ...]) -> None:
        self.networks, self.aus = networks.eval(), aus

    @torch.no_grad()
    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map features (n, A, F) to unclamped levels with uncertainty (n, A) and without (n, A), float32.

        Rows of NaN (no face) give NaN. If no column needs uncertainty, both are the levels without.
        """
        parts = [np.zeros((2, features.shape[1], 0), np.float32)]
        for start in range(0, len(features), CHUNK):
            part = features[start : start + CHUNK].swapaxes(0, 1)
            full = np.zeros(
                (part.shape[0], CHUNK, part.shape[2]), np.float32
            )  # always the same size, so that sums do not depend on n
            full[:, : part.shape[1]] = part
            parts.append(self.networks(torch.from_numpy(full)).numpy()[:, :, : part.shape[1]])
        with_uncertainty, without_uncertainty = np.concatenate(parts, axis=2).swapaxes(1, 2)
        same = bool(self.networks.mask.all())  # otherwise chance would choose between two mappings of the same columns
        return without_uncertainty if same else with_uncertainty, without_uncertainty

    def map_all(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Map all N frames to (N, A) float32 with uncertainty and without; only some chunks of features are in memory."""
        rows = np.arange(len(features))
        parts = [np.stack(self(part)) for part in features.chunks(rows, 8 * CHUNK)]
        empty = np.zeros((2, 0, len(self.aus)), np.float32)
        with_uncertainty, without_uncertainty = np.concatenate([empty, *parts], axis=1)
        return with_uncertainty, without_uncertainty

    def save(self, folder: Path, curves: list[dict[str, Any]]) -> None:
        """Write the weights as safetensors, their description as json, and the curves of the training."""
        with store.atomic(folder) as temporary:
            temporary.mkdir()
            state = {k: v.cpu().numpy() for k, v in self.networks.state_dict().items()}
            store.write_arrays(temporary / "mapping.safetensors", state)
            outputs = self.networks.outputs
            about = {"aus": self.aus, "features": state["center"].shape[1], "width": self.networks.width}
            about |= {"loss": "l1"} if outputs == 1 else {"loss": "cross_entropy", "levels": outputs}
            store.write_json(temporary / "about.json", about)
            store.write_jsonl(temporary / "curves.jsonl", curves)

    @classmethod
    def load(cls, folder: Path) -> "Mapping":
        """Load mappings that `save` wrote.

        Raises:
            ArtifactError: a file is missing, corrupt or does not fit.
        """
        about = store.read_json(Path(folder) / "about.json")
        shape = len(about["aus"]), about["features"]
        plain, center, scale = torch.zeros(about["features"]), torch.zeros(shape), torch.ones(shape)
        outputs = about["levels"] if about.get("loss") == "cross_entropy" else 1  # older files have no loss
        networks = MappingNetworks(plain, center, scale, about["width"], 0.0, outputs)
        load_weights(networks, Path(folder) / "mapping.safetensors")
        return cls(networks, tuple(about["aus"]))


def fit_mappings(
    frames: Frames, features: Features, levels: int, params: TrainMapping, seed: int, log: Log = SILENT
) -> tuple[Mapping, list[dict[str, Any]]]:
    """Fit all mappings on fit; each network keeps the weights of its epoch with the lowest balanced loss on `select`.

    An AU is fitted on the frames that have its label; if none of `select` has, the weights of the last epoch are kept.

    Args:
        levels: how many levels the target has, 2 (occurrence) or 6; cross-entropy has a class for each.

    Returns:
        The mapping; and for each epoch {epoch, train_loss, select_loss}, means over the networks.

    Raises:
        ArtifactError: a label has no class, since the labels were made for another target.
    """
    device = pick_device(params.device)
    outputs = levels if params.loss == "cross_entropy" else 1
    if frames.labels.max(initial=0) >= levels and outputs > 1:
        got, expected = frames.labels.max(), f"0 to {levels - 1}"
        raise ArtifactError("a level beyond the target's", got=got, expected=expected, todo="run check-data again")
    fit_rows, select_rows = (np.flatnonzero(frames.usable & frames.of_split(s)) for s in ("fit", "select"))
    center, spread = (moment.astype(np.float32) for moment in _compute_moments(features, fit_rows))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blank = [torch.from_numpy(a) for a in (features.plain, center, np.maximum(spread, 1e-3))]
        networks = MappingNetworks(blank[0], blank[1], blank[2], params.width, params.dropout, outputs).to(device)
        optimiser = make_mapping_optimiser(networks, params)
        probability = _draw_probability(frames.labels[fit_rows], frames.video[fit_rows])
        weight = _draw_probability(frames.labels[select_rows], frames.video[select_rows]).astype(np.float32)
        rng = np.random.default_rng([seed, 7])
        best, curves = _BestWeights(networks), []
        for epoch in log.progress(range(params.epochs), params.epochs, "training the mapping"):
            draws = fit_rows[_draw(probability, params.draws, rng)]
            x, y = (torch.from_numpy(a).to(device) for a in (features.of_each_au(draws), _labels_at(frames, draws)))
            batches = zip(x.split(params.batch, dim=1), y.split(params.batch, dim=1))
            losses = [take_mapping_step(networks, optimiser, *batch) for batch in batches]
            loss = _balanced_loss(networks, features, frames, select_rows, weight)
            best.update(loss)
            curves.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": float(np.mean(losses)),
                    "select_loss": float(loss[~loss.isnan()].mean()),
                }
            )
            log.metrics(epoch + 1, **{k: v for k, v in curves[-1].items() if k != "epoch"})
        best.restore()
    return Mapping(networks.cpu(), frames.aus), curves


def _compute_moments(features: Features, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the rows, each (A, F) float64, in two passes; the bits equal those of numpy."""

    def mean(values: Iterator[np.ndarray]) -> np.ndarray:
        total = np.zeros((features.au_count, len(features.plain)))
        for part in values:
            total = np.add.reduce(np.concatenate([total[None], part]))
        return total / len(rows)

    center = mean(features.chunks(rows, CHUNK))
    return center, np.sqrt(mean((part - center) ** 2 for part in features.chunks(rows, CHUNK)))


class _BestWeights:
    """The weights of each network's best epoch so far."""

    def __init__(self, networks: MappingNetworks) -> None:
        self.parameters = dict(networks.named_parameters())
        self.weights = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.loss: Tensor | None = None

    def update(self, loss: Tensor) -> None:
        """Copy the weights of the networks whose loss (2, A) fell below their lowest, or is unknown (NaN)."""
        better = loss.isnan() | (loss < (torch.inf if self.loss is None else self.loss))
        self.loss = loss if self.loss is None else torch.minimum(self.loss, loss)
        for name, value in self.parameters.items():
            self.weights[name][better.flatten()] = value.detach()[better.flatten()]

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the best weights into the networks."""
        for name, value in self.parameters.items():
            value.copy_(self.weights[name])


def _draw_probability(labels: np.ndarray, video: np.ndarray) -> np.ndarray:
    """Return the probability of each frame in a draw balanced over levels, then videos: (n, A) -> (A, n) float64.

    If an AU has only one level, its frames are balanced over videos only. A frame without the AU's label has 0.
    """
    out = np.zeros(labels.T.shape)
    for au in range(labels.shape[1]):
        rows = np.flatnonzero(labels[:, au] != NOT_ANNOTATED)
        level, own_video = labels[rows, au], video[rows]
        cell = level.astype(np.int64) * (int(video.max(initial=0)) + 1) + own_video
        _, inverse, counts = np.unique(cell, return_inverse=True, return_counts=True)
        levels, level_of_cell = np.unique(level, return_inverse=True)
        videos_of_level = np.array([len(np.unique(own_video[level == v])) for v in levels])
        out[au, rows] = 1 / counts[inverse] / videos_of_level[level_of_cell] / max(len(levels), 1)
    return out


def _draw(probability: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw frames for each AU with replacement: (A, n) probabilities -> (A, count) positions."""
    draws = []
    for sums in np.cumsum(probability, axis=1):
        last = np.searchsorted(sums, sums[-1])  # the last frame with a probability
        draws.append(np.searchsorted(sums, rng.random(count) * sums[-1], "right").clip(max=last))
    return np.stack(draws)


def _labels_at(frames: Frames, draws: np.ndarray) -> np.ndarray:
    """Return the levels of each AU at rows of its own: (A, n) -> (A, n) float32."""
    return frames.labels[draws, np.arange(len(draws))[:, None]].astype(np.float32)


def make_mapping_optimiser(networks: MappingNetworks, params: TrainMapping) -> torch.optim.Optimizer:
    """Return AdamW for the networks; fused if torch can, since steps over layers this small are mostly overhead."""
    rate, decay = params.learning_rate, params.weight_decay
    fused = networks.center.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(networks.parameters(), lr=rate, weight_decay=decay, fused=fused)


def take_mapping_step(networks: MappingNetworks, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Take a step on the sum of the networks' mean losses on drawn frames, x (A, B, F), y (A, B); return their mean."""
    networks.train()
    loss = networks.loss(x, y).mean(dim=2)
    optimiser.zero_grad(set_to_none=True)
    loss.sum().backward()
    optimiser.step()
    return float(loss.detach().mean())


@torch.no_grad()
def _balanced_loss(
    networks: MappingNetworks, features: Features, frames: Frames, rows: np.ndarray, weight: np.ndarray
) -> Tensor:
    """Return the loss (2, A) of each network on rows (n,), weighted as the draws are: weight (A, n) float32.

    It is NaN for an AU without weights.
    """
    networks.eval()
    size = max(1, min(CHUNK, ACTIVATIONS // (2 * len(weight) * max(networks.width, len(features.plain)))))
    w = torch.from_numpy(weight).to(networks.center.device)
    total = torch.zeros(2, len(weight), device=w.device)
    for k, part in enumerate(features.chunks(rows, size)):
        at = slice(k * size, (k + 1) * size)
        x, y = (torch.from_numpy(a).to(w.device).swapaxes(0, 1) for a in (part, frames.labels[rows[at]].clip(0)))
        total += (networks.loss(x, y) * w[:, at]).sum(dim=2)
    sums = w.sum(dim=1)
    return torch.where(sums > 0, total / sums.clamp(min=1e-12), torch.nan)

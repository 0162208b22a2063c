"""Training of the mappings from features to levels on balanced random samples of frames (paper: section 3.3)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.log import SILENT, Log
from aupair.mapping import model
from aupair.mapping.features import Features
from aupair.mapping.networks import MappingNetworks
from aupair.params import TrainMapping
from aupair.ranking.networks import pick_device

CHUNK = 512
"""maximum number of frames whose moments or loss are computed at once"""
ACTIVATIONS = 2**25
"""maximum number of activations of one layer of all networks while the loss on `select` is computed"""
INPUTS = 2**24
"""maximum number of drawn features in memory"""


def fit_mappings(
    frames: Frames, features: Mapping[str, Features], levels: int, params: TrainMapping, seed: int, log: Log = SILENT
) -> tuple[model.Mapping, list[dict[str, Any]]]:
    """Train the networks of each route on fit, and select for each the epoch with the lowest balanced loss on `select`.

    An AU is trained on the frames with its label; if no frame of `select` has one, the last epoch is used. The networks of
    an AU differ in initialisation, samples and dropout; all routes have the same samples.

    Args:
        features: the features of each route.
        levels: number of levels of the target, 2 (occurrence) or 6 (intensity), each a class of the cross-entropy.

    Returns:
        The mapping, and for each epoch {epoch, ROUTE.train_loss, ROUTE.select_loss}, means over the networks.

    Raises:
        ArtifactError: a label is not one of the levels, since the labels were made for another target.
    """
    if frames.labels.max(initial=0) >= levels and params.loss == "cross_entropy":
        got, expected = frames.labels.max(), f"0 to {levels - 1}"
        raise ArtifactError("a level beyond the target's", got=got, expected=expected, todo="run check-data again")
    networks: dict[str, MappingNetworks] = {}
    curves: list[dict[str, Any]] = [{"epoch": epoch + 1} for epoch in range(params.epochs)]
    for route, own in features.items():
        networks[route], rows = _fit_route(route, frames, own, levels, params, seed, log)
        for row, values in zip(curves, rows):
            row |= values
    return model.Mapping(networks, frames.aus), curves


def _fit_route(
    route: str, frames: Frames, features: Features, levels: int, params: TrainMapping, seed: int, log: Log
) -> tuple[MappingNetworks, list[dict[str, float]]]:
    """Train the networks of one route; return them and their losses in each epoch."""
    device, outputs = pick_device(params.device), levels if params.loss == "cross_entropy" else 1
    fit_rows, select_rows = (np.flatnonzero(frames.usable & frames.of_split(s)) for s in ("fit", "select"))
    center, spread = (moment.astype(np.float32) for moment in _compute_moments(features, fit_rows))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        moments = torch.from_numpy(center), torch.from_numpy(np.maximum(spread, 1e-3))
        networks = MappingNetworks(*moments, params.width, params.dropout, outputs, seeds=params.seeds).to(device)
        optimiser = make_mapping_optimiser(networks, params)
        probability = _draw_probability(frames.labels[fit_rows], frames.video[fit_rows])
        weight = _draw_probability(frames.labels[select_rows], frames.video[select_rows]).astype(np.float32)
        generators = [np.random.default_rng([seed, 7, k]) for k in range(params.seeds)]
        best, curves = _BestWeights(networks), []
        for epoch in log.progress(range(params.epochs), params.epochs, f"training the mapping of {route}"):
            draws = fit_rows[np.stack([_draw(probability, params.draws, rng) for rng in generators])]
            losses = [
                take_mapping_step(networks, optimiser, torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
                for x, y in _batches(features, frames, draws, params.batch)
            ]
            loss = _balanced_loss(networks, features, frames, select_rows, weight)
            best.update(loss)
            known = loss[~loss.isnan()]
            curves.append({f"{route}.train_loss": float(np.mean(losses)), f"{route}.select_loss": float(known.mean())})
            log.metrics(epoch + 1, **curves[-1])
        best.restore()
    return networks.cpu(), curves


def _batches(
    features: Features, frames: Frames, draws: np.ndarray, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield features (S, A, batch, F) and levels (S, A, batch) of drawn frames (S, A, n); several batches are read at once."""
    seeds, aus, number = draws.shape
    at_once = max(1, INPUTS // (seeds * aus * features.width * batch)) * batch
    for start in range(0, number, at_once):
        part = draws[:, :, start : start + at_once]
        x, y = features.of_each_au(part), _labels_at(frames, part)
        for k in range(0, part.shape[2], batch):
            yield x[:, :, k : k + batch], y[:, :, k : k + batch]


def _compute_moments(features: Features, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over rows, (A, F) float64 each, in two passes, with the same bits as numpy."""

    def mean(values: Iterator[np.ndarray]) -> np.ndarray:
        total = np.zeros((features.au_count, features.width))
        for part in values:
            total = np.add.reduce(np.concatenate([total[None], part]))
        return total / len(rows)

    center = mean(features.chunks(rows, CHUNK))
    return center, np.sqrt(mean((part - center) ** 2 for part in features.chunks(rows, CHUNK)))


class _BestWeights:
    """The weights of each network at its best epoch so far."""

    def __init__(self, networks: MappingNetworks) -> None:
        self.parameters = dict(networks.named_parameters())
        self.weights = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.loss: Tensor | None = None

    def update(self, loss: Tensor) -> None:
        """Copy the weights of the networks whose loss (S, A) is lower than before, or is unknown (NaN)."""
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
    """Return the sampling probability of each frame, balanced over levels, then videos: (n, A) -> (A, n) float64.

    The frames of an AU with a single level are balanced over videos only. Frames without the AU's label have probability 0.
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
        last = np.searchsorted(sums, sums[-1])  # the last frame with a probability above 0
        draws.append(np.searchsorted(sums, rng.random(count) * sums[-1], "right").clip(max=last))
    return np.stack(draws)


def _labels_at(frames: Frames, draws: np.ndarray) -> np.ndarray:
    """Return the level of AU a at each row drawn for a: rows (..., A, n) -> levels (..., A, n) float32."""
    return frames.labels[draws, np.arange(draws.shape[-2])[:, None]].astype(np.float32)


def make_mapping_optimiser(networks: MappingNetworks, params: TrainMapping) -> torch.optim.Optimizer:
    """Return AdamW for the networks; fused where torch supports it, since steps of such small layers are mostly overhead."""
    rate, decay = params.learning_rate, params.weight_decay
    fused = networks.center.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(networks.parameters(), lr=rate, weight_decay=decay, fused=fused)


def take_mapping_step(networks: MappingNetworks, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Perform an optimiser step on the sum of the networks' losses and return their mean.

    Args:
        x: (S, A, B, F), features of drawn frames.
        y: (S, A, B), their levels.
    """
    networks.train()
    loss = networks.loss(x, y).mean(dim=-1)
    optimiser.zero_grad(set_to_none=True)
    loss.sum().backward()
    optimiser.step()
    return float(loss.detach().mean())


@torch.no_grad()
def _balanced_loss(
    networks: MappingNetworks, features: Features, frames: Frames, rows: np.ndarray, weight: np.ndarray
) -> Tensor:
    """Return the weighted mean loss (S, A) of each network on rows (n,); NaN for an AU without weights.

    Args:
        weight: (A, n) float32, sampling probabilities, see `_draw_probability`.
    """
    networks.eval()
    size = max(1, min(CHUNK, ACTIVATIONS // (networks.seeds * len(weight) * max(networks.width, features.width))))
    w = torch.from_numpy(weight).to(networks.center.device)
    total = torch.zeros(networks.seeds, len(weight), device=w.device)
    for k, part in enumerate(features.chunks(rows, size)):
        at = slice(k * size, (k + 1) * size)
        x, y = (torch.from_numpy(a).to(w.device).swapaxes(0, 1) for a in (part, frames.labels[rows[at]].clip(0)))
        total += (networks.loss(x, y) * w[:, at]).sum(dim=2)
    sums = w.sum(dim=1)
    return torch.where(sums > 0, total / sums.clamp(min=1e-12), torch.nan)

"""f: pseudo-intensities by ranking, out of fold for the people it is fitted on (paper: section 3.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.log import SILENT, Log
from aupair.params import Optimiser, Params
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.fit import Fit, fit, forward_all
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import PairBatch, ranking, ranking_loss
from aupair.ranking.networks import build, pick_device
from aupair.ranking.pairs import Pairs
from aupair.ranking.sampling import GroupSampler, ListSampler, Sampler


@dataclass(frozen=True)
class TrainingSet:
    """What f and h learn from.

    Attributes:
        frames: all frames of all splits.
        images: their faces.
        groups: (G, K) rows of fit frames (groups mode), or None.
        pairs: fixed pairs of each split; those of fit are the training list in reference mode.
        folds: (subjects,) int8, the fold of each fit subject, -1 without cross-fitting.
    """

    frames: Frames
    images: FaceImages
    groups: np.ndarray | None
    pairs: dict[str, Pairs]
    folds: np.ndarray

    def networks(self) -> dict[str, np.ndarray]:
        """(N,) bool for each network: the fit frames it is trained on. `final` first, then `fold0` ..."""
        fit_rows = self.frames.of_split("fit")
        fold = self.folds[self.frames.subject]
        return {"final": fit_rows} | {f"fold{k}": fit_rows & (fold != k) for k in range(int(self.folds.max()) + 1)}

    def unseen(self, name: str) -> np.ndarray:
        """(N,) bool: the frames whose y_hat and sigma a network gives: its held-out fold; `final`: the other splits.

        Without cross-fitting `final` gives those of fit as well.
        """
        fit_rows, fold = self.frames.of_split("fit"), self.folds[self.frames.subject]
        if name == "final":
            return ~fit_rows if self.folds.max() >= 0 else np.ones(len(fit_rows), bool)
        return fit_rows & (fold == int(name.removeprefix("fold")))

    def sampler(self, trained: np.ndarray, params: Optimiser, seed: tuple[int, ...]) -> Sampler:
        """Make the batches of a network from the fit frames it may see."""
        if self.groups is None:
            pairs = self.pairs["fit"]
            return ListSampler(pairs[trained[pairs.i]], params.pairs, seed)
        return GroupSampler(self.frames, self.groups[trained[self.groups[:, 0]]], params.videos, seed)


@dataclass(frozen=True)
class PseudoIntensity:
    """What training f gives.

    Attributes:
        models: `final` and one a fold.
        center, scale: for each network (A,) float32: y_hat = (output - center) / scale.
        y_hat: (N, A) float32, standardised, out of fold on fit; NaN where there is no face.
        curves: rows for curves.jsonl.
    """

    models: dict[str, nn.Module]
    center: dict[str, np.ndarray]
    scale: dict[str, np.ndarray]
    y_hat: np.ndarray
    curves: list[dict[str, Any]]


def train_f(
    data: TrainingSet, params: Params, seed: int, log: Log = SILENT, checkpoints: Checkpoints | None = None
) -> PseudoIntensity:
    """Train f, and a network for each fold of people, then score every frame by one that never saw its person.

    Args:
        checkpoints: where the state of each network is kept while it is fitted; what is found there is taken up.
    """
    section = params.train_pseudo_intensity
    device = pick_device(section.device)
    frames = data.frames
    result = PseudoIntensity({}, {}, {}, np.full((len(frames), len(AUS)), np.nan, np.float32), [])
    for k, (name, trained) in enumerate(data.networks().items()):
        model = build(section.network, data.images.size, seed * 1000 + k)
        job = Fit(
            images=data.images,
            sampler=data.sampler(trained, section.optimiser, (seed, k)),
            loss_of=lambda outputs, rows, pairs: ranking_loss(outputs, pairs, section.margin),
            look=lambda model: judge(model, data, device, section.margin),
            seed=seed * 1000 + k, name=f"f.{name}", augment=section.augment, precision=section.precision, device=device,
            checkpoint=checkpoints.of(f"f.{name}") if checkpoints else None,
        )  # fmt: skip
        steps = section.optimiser.steps if name == "final" else section.optimiser.fold_steps
        result.curves.extend(fit(model, job, section.optimiser, steps, log))
        rows = np.flatnonzero(data.unseen(name) & frames.ok)
        outputs = forward_all(model, data.images, rows, device, log, f"scoring frames by f.{name}")
        judged = frames.of_split("select")[rows] if name == "final" else np.ones(len(rows), bool)
        center = np.median(outputs[judged], axis=0)
        scale = np.maximum(outputs[judged].std(axis=0), 1e-6)
        result.models[name], result.center[name], result.scale[name] = model, center, scale
        result.y_hat[rows] = (outputs - center) / scale
    return result


def judge(model: nn.Module, data: TrainingSet, device: torch.device, margin: float) -> dict[str, float]:
    """Judge f on the fixed pairs of `select`: the ranking loss and the pair accuracy, means over pairs."""
    rows, batch = local_batch(data.pairs["select"])
    d = batch.difference(torch.from_numpy(forward_all(model, data.images, rows, device)))
    right = (d > 0).float() + 0.5 * (d == 0).float()
    return {"loss": float(ranking(d, margin).mean()), "pair_accuracy": float(right.mean())}


def local_batch(pairs: Pairs) -> tuple[np.ndarray, PairBatch]:
    """Turn pairs of rows into the rows they need, each once, and pairs that point into those."""
    rows, local = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
    count = len(pairs)
    weight = np.full(count, 1 / max(count, 1), np.float32)
    return rows, PairBatch.of(Pairs(local[:count], local[count:], pairs.au, pairs.r), weight)

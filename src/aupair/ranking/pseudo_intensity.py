"""f: pseudo-intensities by ranking, out of fold for the people it is fitted on (paper: section 3.1).

Three ways beside the paper's: `objective: single` grades one image at a time (the baseline without pairs), sharing
`integrated` gives the trunk a second head that learns sigma along with the order, and `objective: distill` makes such a
network say what a teacher says.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.errors import ParamsError
from aupair.log import SILENT, Log
from aupair.params import Optimiser, Params, TrainPseudoIntensity
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.distill import StudentWithTeacher, Teachers, distillation_loss
from aupair.ranking.fit import BatchLoss, FitJob, fit, forward_all
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import PairBatch, level_loss, ranking, ranking_loss, uncertainty_loss
from aupair.ranking.networks import AUNetwork, build_network, pick_device, second_head_sigma
from aupair.ranking.pairs import Pairs
from aupair.ranking.sampling import GroupSampler, ListSampler, Sampler

INTEGRATED_PENALTY = 1e-3
"""weight of the mean squared log sigma there (method: 1e-3 on every frame)"""


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

    def training_masks(self) -> dict[str, np.ndarray]:
        """(N,) bool for each network: the fit frames it is trained on. `final` first, then `fold0` ..."""
        fit_rows = self.frames.of_split("fit")
        fold = self.folds[self.frames.subject]
        return {"final": fit_rows} | {f"fold{k}": fit_rows & (fold != k) for k in range(int(self.folds.max()) + 1)}

    def scoring_mask(self, name: str) -> np.ndarray:
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
            return ListSampler(pairs[trained[pairs.i]], params.batch // 2, seed)
        videos = max(1, params.batch // self.groups.shape[1])
        return GroupSampler(self.frames, self.groups[trained[self.groups[:, 0]]], videos, seed)


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
    data: TrainingSet, params: Params, seed: int, log: Log = SILENT, checkpoints: Checkpoints | None = None,
    teachers: Teachers | None = None,
) -> PseudoIntensity:  # fmt: skip
    """Train f, and a network for each fold of people, then score every frame by one that never saw its person.

    Args:
        checkpoints: where the state of each network is kept while it is fitted; what is found there is taken up.
        teachers: gives each network the one that it is to equal (objective: distill): a fold's never saw who is held
            out from its student.

    Raises:
        ParamsError: a teacher is lacking.
    """
    section = params.train_pseudo_intensity
    device = pick_device(section.device)
    frames = data.frames
    result = PseudoIntensity({}, {}, {}, np.full((len(frames), len(AUS)), np.nan, np.float32), [])
    for k, (name, trained) in enumerate(data.training_masks().items()):
        model = build_network(section.network, data.images.size, seed * 1000 + k)
        fitted: nn.Module = model
        look = partial(evaluate_f, data=data, params=section)
        if section.objective == "distill":
            fitted, targets = add_teacher(model, teachers, name, data, device)
            look = partial(look, targets=targets)
        job = FitJob(
            images=data.images, sampler=data.sampler(trained, section.optimiser, (seed, k)),
            batch_loss=make_batch_loss(data, section), evaluate_on_select=look,
            seed=seed * 1000 + k, name=f"f.{name}", augment=section.augment, precision=section.precision,
            compile=section.compile, device=device,
            checkpoint=checkpoints.for_network(f"f.{name}") if checkpoints else None,
        )  # fmt: skip
        steps = section.optimiser.steps if name == "final" else section.optimiser.fold_steps
        result.curves.extend(fit(fitted, job, section.optimiser, steps, log))
        rows = np.flatnonzero(data.scoring_mask(name) & frames.ok)
        outputs = forward_all(model, data.images, rows, device, log, f"scoring frames by f.{name}")[:, : len(AUS)]
        judged = frames.of_split("select")[rows] if name == "final" else np.ones(len(rows), bool)
        center = np.median(outputs[judged], axis=0)
        scale = np.maximum(outputs[judged].std(axis=0), 1e-6)
        result.models[name], result.center[name], result.scale[name] = model, center, scale
        result.y_hat[rows] = (outputs - center) / scale
    return result


def add_teacher(
    model: AUNetwork, teachers: Teachers | None, name: str, data: TrainingSet, device: torch.device
) -> tuple[StudentWithTeacher, Tensor]:
    """Set a student beside its teacher; give both, and what the teacher says of the frames that `evaluate_f` looks at."""
    if teachers is None:
        todo = "`aupair distill` finds one and runs the stage with it"
        raise ParamsError("objective: distill", got="no teacher", expected="a finished trial", todo=todo)
    teacher = teachers(name).to(device)
    rows, _ = make_pair_batch(data.pairs["select"])
    return StudentWithTeacher(model, teacher), torch.from_numpy(forward_all(teacher, data.images, rows, device))


def make_batch_loss(data: TrainingSet, params: TrainPseudoIntensity) -> BatchLoss:
    """Give the loss of a batch: of its pairs, of its frames (`single`, `distill`), or of pairs and sigma (`integrated`)."""
    if params.objective == "distill":
        video = torch.from_numpy(data.frames.video)
        weight = params.network.uncertainty_weight
        return lambda outputs, rows, pairs: distillation_loss(outputs, video[rows], weight)
    if params.objective == "single":
        levels = torch.from_numpy(data.frames.labels)
        binary = int(data.frames.labels.max()) <= 1
        return lambda outputs, rows, pairs: level_loss(outputs[:, : len(AUS)], levels[rows].to(outputs.device), binary)
    margin, network = params.margin, params.network
    if network.sharing == "integrated":
        return lambda outputs, rows, pairs: integrated_loss(outputs, pairs, margin, network.uncertainty_weight)
    return lambda outputs, rows, pairs: ranking_loss(outputs, pairs, margin)


def integrated_loss(outputs: Tensor, pairs: PairBatch, margin: float, uncertainty_weight: float) -> Tensor:
    """The ranking loss of the first head and the likelihood of the orders for the second: (B, 2A) -> scalar.

    The likelihood moves sigma and the trunk below it, never the values: they are learned from the order alone.
    """
    values, sigma = outputs[:, : len(AUS)], second_head_sigma(outputs)
    likelihood = uncertainty_loss(values.detach(), sigma, pairs, "nll", 0.0, INTEGRATED_PENALTY)
    return ranking_loss(values, pairs, margin) + uncertainty_weight * likelihood


def evaluate_f(
    model: nn.Module, data: TrainingSet, params: TrainPseudoIntensity, targets: Tensor | None = None
) -> dict[str, float]:
    """Judge f on the fixed pairs of `select`: its loss and the pair accuracy, means over pairs (else over cells).

    Args:
        targets: what the teacher says of their frames, (n, 2A) (`distill`).
    """
    device = pick_device(params.device)
    rows, batch = make_pair_batch(data.pairs["select"])
    outputs = torch.from_numpy(forward_all(model, data.images, rows, device))
    d = batch.difference(outputs[:, : len(AUS)])
    right = (d > 0).float() + 0.5 * (d == 0).float()
    if params.objective == "pairs":
        loss = ranking(d, params.margin).mean()
    else:
        both = outputs if targets is None else torch.cat([outputs, targets], dim=1)
        loss = make_batch_loss(data, params)(both, rows, batch)
    return {"loss": float(loss), "pair_accuracy": float(right.mean())}


def make_pair_batch(pairs: Pairs) -> tuple[np.ndarray, PairBatch]:
    """Turn pairs of rows into the rows they need, each once, and pairs that point into those."""
    rows, local = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
    count = len(pairs)
    weight = np.full(count, 1 / max(count, 1), np.float32)
    return rows, PairBatch.from_pairs(Pairs(local[:count], local[count:], pairs.au, pairs.r), weight)

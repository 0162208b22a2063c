"""Training of f, and y_hat of every frame, out of fold for the people of fit (paper: section 3.1).

`train_f` implements the stage train-pseudo-intensity. There are three alternatives to the paper's loss:
`objective: single` predicts the level of one image at a time (the baseline without pairs), sharing `integrated` adds a
second head that learns sigma together with the order, and `objective: distill` trains such a network to reproduce the
outputs of a teacher.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupair.errors import ParamsError
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.distill import StudentWithTeacher, Teachers, distillation_loss
from aupair.ranking.fit import BatchLoss, FitJob, fit, forward_all
from aupair.ranking.losses import PairBatch, level_loss, make_pair_batch, ranking, ranking_loss, uncertainty_loss
from aupair.ranking.networks import AUNetwork, build_network, pick_device, second_head_sigma
from aupair.ranking.pairs import Pairs
from aupair.ranking.samples import TrainingSet
from aupair.training_params import TrainPseudoIntensity

INTEGRATED_PENALTY = 1e-3
"""weight of the mean squared log sigma of a second head"""


@dataclass(frozen=True)
class PseudoIntensity:
    """The result of training f.

    Attributes:
        models: the networks `final` and one per fold.
        center, scale: (A,) float32 for each network: y_hat = (output - center) / scale.
        y_hat: (N, A) float32 for each network, standardised; NaN for frames without a face and for those that the network
            does not score, see `TrainingSet.scoring_mask`.
        curves: rows for curves.jsonl.
        select_pair_accuracy: pair accuracy of `final` on the fixed pairs of select, by which trials are compared.
    """

    models: dict[str, nn.Module]
    center: dict[str, np.ndarray]
    scale: dict[str, np.ndarray]
    y_hat: dict[str, np.ndarray]
    curves: list[dict[str, Any]]
    select_pair_accuracy: float


def train_f(
    data: TrainingSet, params: Params, seed: int, log: Log = SILENT, checkpoints: Checkpoints | None = None,
    teachers: Teachers | None = None,
) -> PseudoIntensity:  # fmt: skip
    """Train f and one network per fold of people, and score each frame by the networks not trained on its person.

    Args:
        checkpoints: files of the training states; a fit continues from an existing file.
        teachers: returns the teacher of a network (`objective: distill`), which was not trained on the people who are held
            out from its student.

    Raises:
        ParamsError: the objective needs a teacher, but `teachers` is None.
    """
    section = params.train_pseudo_intensity
    device = pick_device(section.device)
    frames, au_count = data.frames, len(data.frames.aus)
    result = PseudoIntensity({}, {}, {}, {}, [], np.nan)
    for k, (name, trained) in enumerate(data.training_masks().items()):
        model = build_network(section.network, data.inputs, seed * 1000 + k, au_count)
        trainee: nn.Module = model
        held_out = data.held_out_pairs(name)
        evaluate = partial(_evaluate_f, data=data, held_out=held_out, params=section)
        if section.objective == "distill":
            trainee, targets = _add_teacher(model, teachers, name, data, held_out, device)
            evaluate = partial(evaluate, targets=targets)
        job = FitJob(
            images=data.images, sampler=data.sampler(trained, section.optimiser, (seed, k)),
            batch_loss=make_batch_loss(data, section), evaluate=evaluate,
            seed=seed * 1000 + k, name=f"f.{name}", **data.augmentation(section.augment), precision=section.precision,
            compile=section.compile, device=device,
            checkpoint=checkpoints.for_network(f"f.{name}") if checkpoints else None,
        )  # fmt: skip
        steps = section.optimiser.steps if name == "final" else section.optimiser.fold_steps
        result.curves.extend(fit(trainee, job, section.optimiser, steps, log))
        rows = np.flatnonzero(data.scoring_mask(name) & frames.ok)
        heading = f"scoring frames by f.{name}"
        outputs = forward_all(model, data.images, rows, device, log, heading, section.compile)[:, :au_count]
        reference = outputs[frames.of_split("select" if name == "final" else "fit")[rows]]
        center = np.median(reference, axis=0)
        scale = np.maximum(reference.std(axis=0), 1e-6)
        result.models[name], result.center[name], result.scale[name] = model, center, scale
        result.y_hat[name] = np.full(frames.labels.shape, np.nan, np.float32)
        result.y_hat[name][rows] = (outputs - center) / scale
    return replace(result, select_pair_accuracy=_pair_accuracy(result.y_hat["final"], data.pairs["select"]))


def _pair_accuracy(y_hat: np.ndarray, pairs: Pairs) -> float:
    """Return the fraction of pairs that y_hat (N, A) orders correctly; a tie counts as one half."""
    d = pairs.r * (y_hat[pairs.i, pairs.au] - y_hat[pairs.j, pairs.au])
    return float(np.mean((d > 0) + 0.5 * (d == 0)))


def make_batch_loss(data: TrainingSet, params: TrainPseudoIntensity) -> BatchLoss:
    """Return the loss function of the objective and sharing: on pairs, on pairs and sigma, on frames, or on a teacher."""
    if params.objective == "distill":
        video = torch.from_numpy(data.frames.video)
        weight = params.network.uncertainty_weight
        return lambda outputs, rows, pairs: distillation_loss(outputs, video[rows], weight)
    au_count = len(data.frames.aus)
    if params.objective == "single":
        levels = torch.from_numpy(data.frames.labels)
        binary = int(data.frames.labels.max()) <= 1
        return lambda outputs, rows, pairs: level_loss(outputs[:, :au_count], levels[rows].to(outputs.device), binary)
    margin, network = params.margin, params.network
    if network.sharing == "integrated":
        return lambda outputs, rows, pairs: integrated_loss(outputs, pairs, margin, network.uncertainty_weight)
    return lambda outputs, rows, pairs: ranking_loss(outputs, pairs, margin)


def integrated_loss(outputs: Tensor, pairs: PairBatch, margin: float, uncertainty_weight: float) -> Tensor:
    """Return the ranking loss of the values plus the weighted negative log likelihood of the orders: (B, 2A) -> scalar.

    The likelihood trains the second head and the trunk, but not the first head, which learns from the order alone.
    """
    values, sigma = outputs[:, : outputs.shape[1] // 2], second_head_sigma(outputs)
    likelihood = uncertainty_loss(values.detach(), sigma, pairs, "nll", 0.0, INTEGRATED_PENALTY)
    return ranking_loss(values, pairs, margin) + uncertainty_weight * likelihood


def _evaluate_f(
    model: nn.Module, data: TrainingSet, held_out: Pairs, params: TrainPseudoIntensity, targets: Tensor | None = None
) -> dict[str, float]:
    """Return the loss and the pair accuracy of f on held-out pairs.

    Args:
        held_out: pairs of people on whom f is not trained.
        targets: the teacher's outputs for the frames of these pairs, (n, 2A), for `objective: distill`.
    """
    rows, pairs = make_pair_batch(held_out)
    outputs = torch.from_numpy(forward_all(model, data.images, rows, pick_device(params.device)))
    d = pairs.difference(outputs[:, : len(data.frames.aus)])
    right = (d > 0).float() + 0.5 * (d == 0).float()
    if params.objective == "pairs":
        loss = ranking(d, params.margin).mean()
    else:
        both = outputs if targets is None else torch.cat([outputs, targets], dim=1)
        loss = make_batch_loss(data, params)(both, rows, pairs)
    return {"loss": float(loss), "pair_accuracy": float(right.mean())}


def _add_teacher(
    model: AUNetwork, teachers: Teachers | None, name: str, data: TrainingSet, held_out: Pairs, device: torch.device
) -> tuple[StudentWithTeacher, Tensor]:
    """Return a student with its teacher, and the teacher's outputs (n, 2A) for the frames that `_evaluate_f` uses.

    Raises:
        ParamsError: there are no teachers.
    """
    if teachers is None:
        todo = "`aupair distill` finds one and runs the stage with it"
        raise ParamsError("objective: distill needs a teacher", got="none", expected="a finished trial", todo=todo)
    teacher = teachers(name).to(device)
    rows, _ = make_pair_batch(held_out)
    return StudentWithTeacher(model, teacher), torch.from_numpy(forward_all(teacher, data.images, rows, device))

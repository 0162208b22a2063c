"""How soon are pairs of unseen people in order: with one trunk and groups, or with a network and a list for each AU?

Ours is f as `params.yaml` has it: one trunk with a head for each AU; a step sees some videos and all pairs of all AUs
in each. It is trained once, to the end. The reference is the authors' procedure: for each AU a network of its own and a
list of 10,000 pairs of its own. It is trained until it has the pair accuracy that ours had **in that AU**, within
TOLERANCE, at two points: when ours first reached EARLY in the mean of 12 AUs, and when ours was done. Both have the
same people and frames to learn from, trunk, size, initial weights, augmentation, loss, optimiser and form of schedule,
are trained by the same `fit`, and are evaluated after the same numbers of images on the same pairs: the fixed ones of
`select`, whose people neither learns from (`validation` is not touched). The times of evaluations and of decoding faces
do not count.

Three AUs of twelve are trained: the one with most active frames in fit, the middle one and the rarest, so that the
choice does not depend on any result; their sum counts times 12/3.

The reference may choose: each AU is trained with each of PAIRS_PER_STEP, and the one that is first at its target
counts. Where none reaches it in its whole schedule, the longest one counts, and the ratio is a lower bound.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row, main
from torch import Tensor, nn

from aupair import stages
from aupair.aus import AFFWILD2
from aupair.params import Params, load_params
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.losses import make_pair_batch
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import Pairs, draw_pairs
from aupair.ranking.pseudo_intensity import make_batch_loss
from aupair.ranking.samples import TrainingSet, load_training_set
from aupair.ranking.sampling import ListSampler, Sampler
from aupair.stage import ARTIFACTS

ROOT = Path(__file__).parents[1]
GOAL = 10.0
EARLY = 0.85
TOLERANCE = 0.01
"""in favour of the reference: a standard error of 500 pairs"""
PAIRS = 10_000
"""in the list of an AU, as the authors drew"""
PAIRS_PER_STEP = (32, 16)
"""of the reference: 32, as the authors, over as many images as ours; or 16, over as many steps as ours"""
IMAGES_FACTOR, LEAST_IMAGES = 1.1, 128
"""the next evaluation comes after so many times the images, and after so many more at least"""


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a network in training, and what the training had taken so far.

    Attributes:
        images: forwarded in training, with repetitions.
        seconds, cpu_seconds: wall and processor time.
        accuracy: (A,) pair accuracy, NaN for AUs that are not trained.
    """

    images: int
    seconds: float
    cpu_seconds: float
    accuracy: np.ndarray

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s ({self.cpu_seconds:.0f} s of CPU, {self.images:,} images)"


class TrainingDone(Exception):
    """Ends a training at its last evaluation."""


class TimedEvaluation:
    """Evaluates a network while `fit` trains it, whenever enough images were forwarded; its own time does not count.

    Args:
        compute_accuracy: returns the pair accuracies of a network.
        is_last: whether an evaluation ends the training.

    Attributes:
        evaluations: the results so far.
    """

    def __init__(
        self, compute_accuracy: Callable[[nn.Module], np.ndarray], is_last: Callable[[Evaluation], bool]
    ) -> None:
        self._compute_accuracy, self._is_last = compute_accuracy, is_last
        self.evaluations: list[Evaluation] = []
        self._images, self._seconds, self._cpu_seconds = 0, 0.0, 0.0
        self._start_clocks()

    def count_images(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Count the images of a training step; a hook before the forward pass."""
        self._images += len(inputs[0]) if model.training else 0

    def __call__(self, model: nn.Module, force: bool = False) -> dict[str, float]:
        """Evaluate the network if it is time to, or always with `force`.

        Raises:
            TrainingDone: it was the last evaluation.
        """
        self._seconds += time.perf_counter() - self._clock
        self._cpu_seconds += time.process_time() - self._cpu_clock
        before = self.evaluations[-1].images if self.evaluations else 0
        if self._images >= max(before + LEAST_IMAGES, before * IMAGES_FACTOR) or force:
            accuracy = self._compute_accuracy(model)
            self.evaluations.append(Evaluation(self._images, self._seconds, self._cpu_seconds, accuracy))
            if self._is_last(self.evaluations[-1]):
                raise TrainingDone
        self._start_clocks()
        return {"loss": 0.0}

    def _start_clocks(self) -> None:
        self._clock, self._cpu_clock = time.perf_counter(), time.process_time()


@dataclass(frozen=True)
class Bench:
    """The data and settings of all trainings."""

    data: TrainingSet
    params: Params

    def train_ours(self) -> list[Evaluation]:
        """Train the shared trunk as train-pseudo-intensity does, to the end."""
        optimiser = self.params.train_pseudo_intensity.optimiser
        sampler = self.data.sampler(self.data.frames.of_split("fit"), optimiser, (self.params.seed, 0))
        return self.train(sampler, optimiser.steps, list(range(len(AFFWILD2))), lambda evaluation: False)

    def train_reference(self, pairs: Pairs, au: int, target: float, images: int, steps: int) -> list[list[Evaluation]]:
        """Train a network for one AU to the target with each of PAIRS_PER_STEP.

        Args:
            images, steps: the schedule ends at the first of these. A later training also ends where an earlier one
                reached the target.
        """
        trainings: list[list[Evaluation]] = []

        def is_last(evaluation: Evaluation) -> bool:
            reached = (other[-1].images for other in trainings if first_at(other, au, target))
            return bool(evaluation.accuracy[au] >= target or evaluation.images >= min(reached, default=np.inf))

        for size in PAIRS_PER_STEP:
            sampler = ListSampler(pairs[pairs.au == au], size, (self.params.seed, au))
            evaluations = self.train(sampler, round(min(steps, images / (2 * size))), [au], is_last)
            last = evaluations[-1]
            print(f"{AFFWILD2[au]}, {size} pairs a step: {last.accuracy[au]:.3f} of {target:.3f}: {last}", flush=True)
            trainings.append(evaluations)
        return trainings

    def train(
        self, sampler: Sampler, steps: int, aus: list[int], is_last: Callable[[Evaluation], bool]
    ) -> list[Evaluation]:
        """Train until an evaluation is the last, `steps` at most."""
        section, seed = self.params.train_pseudo_intensity, self.params.seed
        optimiser = section.optimiser.model_copy(update={"evaluate_every": 1, "keep": "last"})
        model = build_network(section.network, self.data.images.size, seed, len(self.data.frames.aus))
        evaluate = TimedEvaluation(partial(self.compute_accuracy, aus=aus), is_last)
        model.register_forward_pre_hook(evaluate.count_images)
        loss = make_batch_loss(self.data, section)
        job = FitJob(self.data.images, sampler, loss, evaluate, seed, "f", section.augment)
        with suppress(TrainingDone):
            fit(model, job, optimiser, steps)
            evaluate(model, force=True)
        return evaluate.evaluations

    def compute_accuracy(self, model: nn.Module, aus: list[int]) -> np.ndarray:
        """Compute the pair accuracy on the fixed pairs of `select`, (A,); a tie counts 1/2."""
        pairs = self.data.pairs["select"]
        pairs = pairs[np.isin(pairs.au, aus)]
        rows, batch = make_pair_batch(pairs)
        d = batch.difference(torch.from_numpy(forward_all(model, self.data.images, rows, torch.device("cpu")))).numpy()
        right = (d > 0) + 0.5 * (d == 0)
        return np.array([right[pairs.au == au].mean() if au in aus else np.nan for au in range(len(AFFWILD2))])


def first_at(evaluations: list[Evaluation], au: int, target: float) -> Evaluation | None:
    """Return the first evaluation in which an AU reached the target."""
    return next((evaluation for evaluation in evaluations if evaluation.accuracy[au] >= target), None)


def prepare(root: Path, params: Params) -> None:
    """Copy the demo corpus to a folder and run the stages before training there."""
    get = [sys.executable, "-m", "dvc", "get", "-q", "--remote", "demo", "-o", str(root / "data"), str(ROOT), "data"]
    subprocess.run(get, check=True)
    for name in ("check-data", "preprocess-faces", "sample-pairs"):
        print(name, flush=True)
        stages.run_stage(name, params, root=root)


def choose_aus(data: TrainingSet) -> list[int]:
    """Return the AUs that the reference trains: the most active one, the middle one and the rarest."""
    frames = data.frames
    share = (frames.labels[frames.usable & frames.of_split("fit")] > 0).mean(axis=0)
    order = [int(au) for au in np.argsort(-share, kind="stable")]
    return [order[0], order[len(order) // 2], order[-1]]


def measure() -> list[Row]:
    """Train ours, then the reference, and compare."""
    params = load_params(ROOT / "params.yaml", ["train_pseudo_intensity.device=cpu"])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, params)
        data = load_training_set(*(root / ARTIFACTS[name] for name in ("labels", "faces", "pairs")))
        data.images(np.flatnonzero(data.frames.usable))
    bench, aus = Bench(data, params), choose_aus(data)
    print(
        f"the reference trains {', '.join(AFFWILD2[au] for au in aus)}; {torch.get_num_threads()} threads", flush=True
    )
    ours = bench.train_ours()
    early = next((evaluation for evaluation in ours if evaluation.accuracy.mean() >= EARLY), None)
    if early is None:
        sys.exit(f"ours ends at {ours[-1].accuracy.mean():.3f} and never reached {EARLY}: nothing to compare")
    for evaluation in (early, ours[-1]):
        print(f"ours: {evaluation.accuracy.mean():.3f}, mean of 12: {evaluation}", flush=True)
    pairs = draw_pairs(data.frames, "fit", PAIRS, (params.seed, 2, 0))
    limits = ours[-1].images, params.train_pseudo_intensity.optimiser.steps
    targets = {au: max(early.accuracy[au], ours[-1].accuracy[au]) - TOLERANCE for au in aus}
    reference = {au: bench.train_reference(pairs, au, target, *limits) for au, target in targets.items()}
    return [compare("early on", early, reference), compare("at the end of training", ours[-1], reference)]


def compare(when: str, ours: Evaluation, reference: Mapping[int, list[list[Evaluation]]]) -> Row:
    """Compare with the effort that the reference needs to be, in each AU, where ours was."""
    counted, missed = [], []
    for au, trainings in reference.items():
        reached = [first for run in trainings if (first := first_at(run, au, ours.accuracy[au] - TOLERANCE))]
        missed += [] if reached else [AFFWILD2[au]]
        longest = max((run[-1] for run in trainings), key=lambda evaluation: evaluation.images)
        counted.append(min(reached, key=lambda evaluation: evaluation.images, default=longest))
    factor = len(AFFWILD2) / len(reference)
    images, seconds, cpu_seconds = (
        factor * sum(getattr(evaluation, key) for evaluation in counted) for key in ("images", "seconds", "cpu_seconds")
    )
    total = Evaluation(round(images), seconds, cpu_seconds, ours.accuracy)
    parts = ", ".join(f"{AFFWILD2[au]} {evaluation.seconds:.0f} s" for au, evaluation in zip(reference, counted))
    targets = ", ".join(f"{AFFWILD2[au]} {ours.accuracy[au]:.3f}" for au in reference)
    ratio = seconds / ours.seconds
    return Row(
        question=f"wall time to the same pair accuracy for 12 AUs, CPU, {when} ({ours.accuracy.mean():.3f})",
        ours=str(ours), reference=f"{'at least ' if missed else ''}{total}: {factor:g} x the sum of {parts}",
        ratio=ratio, goal=f"{GOAL:.0f} x", met=ratio >= GOAL,
        same=f"pairs of select; ours in the AUs measured: {targets}; the reference within {TOLERANCE} of that"
        + (f", but not {', '.join(missed)}: >=" if missed else "")
        + f"; by images {images / ours.images:.3g} x, by seconds of CPU {cpu_seconds / ours.cpu_seconds:.3g} x",
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)

"""The plan of cross-fitting for an h that reads f's trunks, so that no person's sigma depends on the person's labels.

The network of a fold was not trained on the people of that fold, so that y_hat and phi of their frames are those of new
faces. Therefore a reader is trained for each fold's network on the people of the fold, several times, each time without a
part of them.
"""

from dataclasses import dataclass

import numpy as np

from aupair.data.frames import Frames
from aupair.ranking.ensemble import FINAL, Ensemble, Member
from aupair.ranking.pairs import Pairs, all_pairs
from aupair.ranking.samples import TrainingSet

MAX_ROWS, MAX_ROWS_OF_VIDEO, MAX_PAIRS = 50_000, 400, 60_000
"""maximum numbers of frames and pairs that readers are trained on; phi is held in memory only for these frames"""


@dataclass(frozen=True)
class Head:
    """A fit of the weights of one reader.

    Attributes:
        member: the network of f that the reader reads.
        trained: (N,) bool, the frames of fit that the fit may use.
        scored: (N,) bool, the frames of fit that the reader scores; the fit uses no frames of their people.
        deployed: whether the reader is used for new frames.
    """

    member: Member
    trained: np.ndarray
    scored: np.ndarray
    deployed: bool = True


def plan_heads(data: TrainingSet, ensemble: Ensemble, inner_folds: int, seed: int) -> list[Head]:
    """Return the heads of h.

    With cross-fitting and `ensemble: all`, each fold's network has `inner_folds` heads. Each learns from the people of the
    fold, on whom the network was not trained, except for one of `inner_folds` parts, which it scores. With `ensemble: final`
    or without cross-fitting, only the network of all of fit is read, in sample: its trunk was trained on the people from
    whom the head learns.
    """
    frames, fit = data.frames, data.frames.of_split("fit")
    fold, cross_fitted = data.folds[frames.subject], data.folds.max() >= 0
    if not cross_fitted or any(name != FINAL for _, name in ensemble.members):
        heads = []
        for member in ensemble.members:
            if member.name == FINAL and cross_fitted:
                continue
            own = fit if member.name == FINAL else fit & (fold == int(member.name.removeprefix("fold")))
            parts = _draw_parts(frames.subject, own, inner_folds, seed)
            heads += [Head(member, own & (parts != part), own & (parts == part)) for part in range(inner_folds)]
        return heads
    (trial,) = ensemble.trials
    heads = [Head(Member(trial, FINAL), fit, np.zeros_like(fit))]
    for name, trained in list(data.training_masks().items())[1:]:
        heads.append(Head(Member(trial, name), trained, fit & ~trained, deployed=False))
    return heads


def _draw_parts(subject: np.ndarray, rows: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Divide the people of some frames into parts of about equal size: (N,) int, the part of each frame, else -1."""
    people = np.random.default_rng([seed, 6]).permutation(np.unique(subject[rows]))
    part_of = np.full(int(subject.max()) + 1, -1)
    part_of[people] = np.arange(len(people)) % parts
    return part_of[subject]


def draw_training_pairs(frames: Frames, seed: int) -> Pairs:
    """Draw about MAX_PAIRS training pairs of fit, equally many for each video and AU, between frames drawn at random.

    The groups of sample-pairs are not suitable, since their frames are chosen for rare AUs, while h is used on all frames.
    The pairs of a video do not depend on other videos, and its frames do not depend on its labels.
    """
    usable = frames.usable & frames.of_split("fit")
    videos = np.unique(frames.video[usable])
    aus = frames.labels.shape[1]
    of_video = min(MAX_ROWS_OF_VIDEO, MAX_ROWS // max(1, len(videos)))
    of_cell = max(1, MAX_PAIRS // max(1, len(videos) * aus))
    slices, parts = frames.slices(), []
    for video in videos:
        rng = np.random.default_rng([seed, 7, int(video)])
        rows = _draw(slices[video].start + np.flatnonzero(usable[slices[video]]), of_video, rng)
        pairs = all_pairs(frames.labels[rows], frames.video[rows])
        chosen = np.concatenate([_draw(np.flatnonzero(pairs.au == au), of_cell, rng) for au in range(aus)])
        pairs = pairs[chosen]
        parts.append(Pairs(rows[pairs.i], rows[pairs.j], pairs.au, pairs.r))
    return Pairs.concatenate(parts)


def _draw(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `count` items, drawn without replacement, in their original order."""
    return items if len(items) <= count else items[np.sort(rng.choice(len(items), count, replace=False))]

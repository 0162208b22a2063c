"""The ensemble of networks of f that score a frame, and the mean of their scores (`ensemble: all | final`).

Ours: the networks of the folds are needed for cross-fitting anyway, so that averaging them with `final` costs no further
training. The paper trains several times and uses the best trial (`final`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aupair import store
from aupair.errors import ArtifactError
from aupair.ranking.about import FINAL as FINAL
from aupair.ranking.about import AboutF
from aupair.ranking.about import Member as Member


@dataclass(frozen=True)
class Ensemble:
    """The scores of all N frames by those networks that were not trained on the frame's person.

    Attributes:
        trials: the positions of the trials in the ensemble.
        members: the networks that score new frames, those of select, validation and predict.
        y_hat: (N, A) float32, the mean of the standardised outputs; NaN if the frame has no face.
        spread: (N, A) float32, the standard deviation of the outputs over the networks; None with a single trial, since
            then only one network was not trained on the person of a fit frame.
    """

    trials: tuple[int, ...]
    members: tuple[Member, ...]
    y_hat: np.ndarray
    spread: np.ndarray | None


def load_ensemble(folders: Sequence[Path], count: int, ensemble: Literal["all", "final"]) -> Ensemble:
    """Load the scores of the trials of f and combine them.

    Args:
        folders: the folder of f of each trial.
        count: number of frames, N.
        ensemble: all: every network of every trial. final: of the trial with the highest pair accuracy on select, its
            network `final` for select and validation, and its fold networks for fit.

    Raises:
        ArtifactError: a file is missing or corrupt, or the faces have changed since the training.
    """
    trials, members = list_members(folders, ensemble)
    scores = {k: _read_scores(folders[k], count) for k in trials}
    of_fit = [Member(k, name) for k in trials for name in scores[k] if name != FINAL]
    every = list(dict.fromkeys((*members, *of_fit)))
    if missing := [member for member in every if member.name not in scores[member.trial]]:
        trial, name = missing[0]
        where, todo = Path(folders[trial]) / "y_hat.safetensors", "train again"
        raise ArtifactError("no scores of a network", where=where, got=f"no {name}", todo=todo)
    shape = scores[every[0].trial][every[0].name].shape
    stack = np.stack([
        store.check_array(scores[k][name], name, shape, "f", Path(folders[k]) / "y_hat.safetensors") for k, name in every
    ])  # fmt: skip
    if ensemble == "final":
        # The fold networks only score the frames that `final` does not score.
        stack[1:, ~np.isnan(stack[0]).all(axis=1)] = np.nan
    spread = spread_of_members(stack) if len(trials) > 1 else None
    return Ensemble(trials, members, mean_of_members(stack), spread)


def list_members(
    folders: Sequence[Path], ensemble: Literal["all", "final"]
) -> tuple[tuple[int, ...], tuple[Member, ...]]:
    """Return the positions of the trials in the ensemble and the networks that score new frames; see `load_ensemble`."""
    abouts = [store.read_record(Path(folder) / "about.json", AboutF) for folder in folders]
    if ensemble == "final":
        accuracies = [about.select_pair_accuracy for about in abouts]
        best = int(np.argmax([-1 if accuracy is None else accuracy for accuracy in accuracies]))
        return (best,), (Member(best, FINAL),)
    members = [Member(k, name) for k, about in enumerate(abouts) for name in about.standardisation]
    return tuple(range(len(folders))), tuple(members)


def mean_of_members(stack: np.ndarray) -> np.ndarray:
    """Return the mean over the members, ignoring NaN: (M, n, A) -> (n, A) float32; NaN if no member has a score."""
    known = ~np.isnan(stack)
    number = known.sum(axis=0)
    total = np.where(known, stack, 0).sum(axis=0, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def spread_of_members(stack: np.ndarray) -> np.ndarray:
    """Return the standard deviation over the members, ignoring NaN: (M, n, A) -> (n, A) float32; NaN for fewer than two."""
    number = (~np.isnan(stack)).sum(axis=0)
    square = np.nansum((stack.astype(np.float64) - mean_of_members(stack)) ** 2, axis=0)
    return np.where(number > 1, np.sqrt(square / np.maximum(number - 1, 1)), np.nan).astype(np.float32)


def _read_scores(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Read y_hat of each network of a trial, (count, A) float32.

    Raises:
        ArtifactError: the file is missing or corrupt, or the number of frames differs.
    """
    path = Path(folder) / "y_hat.safetensors"
    scores = store.read_arrays(path)
    for name, values in scores.items():
        if len(store.check_array(values, name, (None, None), "f", path)) != count:
            got = f"{len(values)} frames"
            raise ArtifactError("scores of other faces", where=path, got=got, expected=count, todo="train again")
    return scores

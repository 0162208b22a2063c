"""The labels of a synthetic corpus: the stretches that a coder looked at, and the annotation files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aupair.aus import NOT_ANNOTATED

STRETCH = 2.0
"""seconds of one AU that are coded without a break"""
OFFICIAL = {"fit": "Train_Set", "select": "Train_Set", "validation": "Validation_Set"}
"""Aff-Wild2's folder of each split"""


def coded_frames(seed: Sequence[int], count: int, share: float, times: np.ndarray) -> np.ndarray:
    """Draw the frames for which each AU is coded: stretches, at other times for each AU.

    In every STRETCH / share seconds one stretch is coded, at a random place.

    Args:
        seed: equal seeds lead to equal stretches, whatever the times.
        count: number A of AUs.
        share: of the frames that are coded, over 0 to 1.
        times: (N,) seconds, from 0 on.

    Returns:
        (N, A) bool.
    """
    if share == 1:
        return np.ones((len(times), count), bool)
    period = STRETCH / share
    number = (times / period).astype(int)
    delays = np.random.default_rng(seed).uniform(0, period - STRETCH, (number.max() + 1, count))
    since = times[:, None] - number[:, None] * period - delays[number]
    return (since >= 0) & (since < STRETCH)


def write_labels(annotations: Path, video: str, aus: Sequence[str], levels: np.ndarray, coded: np.ndarray) -> None:
    """Write a video's occurrences and intensities in the flow's own layout; an AU that is not coded is -1.

    Args:
        levels: (N, A) int, intensity 0..5.
        coded: (N, A) bool.
    """
    for kind, values in (("occurrence", (levels >= 1).astype(int)), ("intensity", levels)):
        _write_values(annotations / kind / f"{video}.csv", aus, np.where(coded, values, NOT_ANNOTATED))


def write_official_labels(annotations: Path, video: str, aus: Sequence[str], levels: np.ndarray, split: str) -> None:
    """Write a video's occurrences and intensities in Aff-Wild2's layout; `levels` is (N, A) int, 0..5."""
    for kind, values in (("AU_Set", (levels >= 1).astype(int)), ("AU_Intensity_Set", levels)):
        _write_values(annotations / kind / OFFICIAL[split] / f"{video}.txt", aus, values)


def _write_values(path: Path, aus: Sequence[str], values: np.ndarray) -> None:
    """Write one annotation file: (N, A) integers below the AUs' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(aus), *(",".join(map(str, row)) for row in values.tolist())]
    path.write_text("\n".join(lines) + "\n")

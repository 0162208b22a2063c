"""The scores of a video, its decisions, and the table and CSV file of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair import store
from aupair.aus import AUS

if TYPE_CHECKING:
    import pandas as pd

Arrays = tuple[np.ndarray, np.ndarray]

NO_DECISION = -1
"""The decision for a frame without a face; all other columns are NaN there."""

ABSTAIN = "abstain"
"""What stands in the table in place of a decision of too low a confidence."""


@dataclass(frozen=True)
class VideoScores:
    """Pseudo-intensities and uncertainties of every frame of a video, from which decisions are made.

    Attributes:
        frame: (n,) int32, 0-based.
        time: (n,) float64, seconds.
        status: n texts, of store.STATUSES.
        y_hat, sigma: (n, A) float32, NaN in frames without a face.
    """

    frame: np.ndarray
    time: np.ndarray
    status: list[str]
    y_hat: np.ndarray
    sigma: np.ndarray


def pool_scores(clips: Sequence[VideoScores]) -> Arrays:
    """Return y_hat and sigma, (m, A) each, of all frames with a face of a person's clips."""
    has_face = [np.isfinite(clip.y_hat).all(axis=1) for clip in clips]
    return join_scores([(clip.y_hat[ok], clip.sigma[ok]) for clip, ok in zip(clips, has_face)])


def join_scores(parts: Sequence[Arrays]) -> Arrays:
    """Concatenate parts of y_hat and sigma; no part at all gives (0, A)."""
    if not parts:
        empty = np.empty((0, len(AUS)), np.float32)
        return empty, empty
    y_hat, sigma = zip(*parts)
    return np.concatenate(y_hat), np.concatenate(sigma)


@dataclass(frozen=True)
class Predictions:
    """Decisions and their figures for n frames of one video and A AUs.

    Attributes:
        decision: (n, A) int8, 1 active, 0 not, -1 no face.
        raw: (n, A) float32, the chosen mapping's output, unclamped; NaN without a face, as below.
        pseudo_intensity: (n, A) float32, y_hat.
        uncertainty: (n, A) float32, sigma.
        confidence: (n, A) float32, the probability that the decision is right, 0..1.
        intensity: (n, A) float32, 0..5, unrounded; None where the target is occurrence.
    """

    decision: np.ndarray
    raw: np.ndarray
    pseudo_intensity: np.ndarray
    uncertainty: np.ndarray
    confidence: np.ndarray
    intensity: np.ndarray | None = None

    def abstained(self, limits: np.ndarray | None) -> np.ndarray:
        """Return which decisions are of too low a confidence, (n, A) bool.

        Args:
            limits: (2, A), the lowest confidence of inactive and of active decisions; None: every decision stands.
        """
        if limits is None:
            return np.zeros(self.decision.shape, bool)
        return self.confidence < np.where(self.decision == 1, limits[1], limits[0])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns by name, (n,) each: AU1, AU1_raw, AU1_pseudo_intensity, AU1_uncertainty, AU1_confidence, AU2 ...

        AU1_intensity stands after AU1 where intensity is the target.
        """
        columns: dict[str, np.ndarray] = {}
        for k, au in enumerate(AUS):
            columns[au] = self.decision[:, k]
            if self.intensity is not None:
                columns[f"{au}_intensity"] = self.intensity[:, k]
            for name in ("raw", "pseudo_intensity", "uncertainty", "confidence"):
                columns[f"{au}_{name}"] = getattr(self, name)[:, k]
        return columns


@dataclass(frozen=True)
class VideoPredictions:
    """Predictions for every frame of a video; frame, time and status as of `VideoScores`."""

    frame: np.ndarray
    time: np.ndarray
    status: list[str]
    predictions: Predictions

    @property
    def faces(self) -> int:
        """Return how many frames have a face."""
        return self.status.count("ok")

    def to_table(self, limits: np.ndarray | None = None) -> "pd.DataFrame":
        """Return a row for every frame: frame, time_s, status, and the columns of `Predictions`.

        Args:
            limits: as of `Predictions.abstained`; a decision of a lower confidence is `abstain`.

        Returns:
            decisions as nullable integers, missing where there is no face, or as objects where one may be `abstain`.
        """
        import pandas as pd

        columns: dict[str, Any] = {"frame": self.frame, "time_s": self.time, "status": self.status}
        columns |= self.predictions.columns()
        abstained = self.predictions.abstained(limits)
        for k, au in enumerate(AUS):
            decision = self.predictions.decision[:, k]
            values = pd.arrays.IntegerArray(decision, decision == NO_DECISION)
            columns[au] = values if limits is None else pd.Series(values, dtype=object).mask(abstained[:, k], ABSTAIN)
        return pd.DataFrame(columns)

    def write_csv(self, path: Path, limits: np.ndarray | None = None) -> None:
        """Write the table of `to_table` as CSV: five decimals, six for the time, and empty cells for missing values."""
        table = self.to_table(limits)
        table["time_s"] = [f"{time:.6f}" for time in self.time]
        with store.atomic(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.5f", lineterminator="\n")

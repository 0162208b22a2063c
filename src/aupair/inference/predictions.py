"""The scores and decisions of a video, and their table and CSV file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair import store
from aupair.data.quality import QUALITY_SIGNALS
from aupair.faces.appearance import APPEARANCE

if TYPE_CHECKING:
    import pandas as pd

NO_DECISION = -1
"""The value for no decision in an array of decisions."""

ABSTAIN = "abstain"
"""The text in a table that replaces a decision with too low confidence."""

_ROWS = 4096
"""The number of rows of a table that are formatted at once."""


@dataclass(frozen=True)
class VideoScores:
    """Pseudo-intensities and uncertainties of all n frames of a video, from which decisions are made.

    Attributes:
        time: (n,) float64, seconds, ascending.
        status: n strings, each one of store.STATUSES.
        y_hat, sigma: (n, A) float32, NaN in frames without a face.
        unguarded: (n, A) float32, sigma without the guard of h, by which y_hat is smoothed; None: sigma has no guard.
        quality: (n, 3) float32, the signals of `aupair.data.quality`, NaN where unknown; None: all are unknown.
        appearance: (n, 15) float32, see `aupair.faces.appearance.describe_faces`; NaN where unknown; None: all are unknown.
    """

    time: np.ndarray
    status: list[str]
    y_hat: np.ndarray
    sigma: np.ndarray
    quality: np.ndarray | None = None
    unguarded: np.ndarray | None = None
    appearance: np.ndarray | None = None

    @property
    def known_quality(self) -> np.ndarray:
        """Return the quality signals, (n, 3) float32, NaN where unknown."""
        if self.quality is None:
            return np.full((len(self.time), len(QUALITY_SIGNALS)), np.nan, np.float32)
        return self.quality

    @property
    def known_appearance(self) -> np.ndarray:
        """Return the appearance and the size of the faces, (n, 15) float32, NaN where unknown."""
        if self.appearance is None:
            return np.full((len(self.time), len(APPEARANCE) + 1), np.nan, np.float32)
        return self.appearance


@dataclass(frozen=True)
class VideoPredictions:
    """The decisions for all n frames of a video; NaN where there is no face.

    Attributes:
        aus: the names of the A AUs.
        scores: the scores from which the decisions are computed.
        decision: (n, A) int8, 1 active, 0 not, NO_DECISION without a face.
        raw: (n, A) float32, the chosen mapping's output, unclamped.
        confidence: (n, A) float32, the probability that the decision is right, 0..1.
        intensity: (n, A) float32, 0..5, unrounded; None if the target is occurrence.
        smoothed: y_hat smoothed by its uncertainty, and the standard deviation of that value, (n, A) float32 each; None
            for a model without a smoother.
        differing: the groups of signals in which the video differs from the training videos, with the distance as a
            multiple of the limit; empty if it does not differ; None for a model without a training reference.
    """

    aus: tuple[str, ...]
    scores: VideoScores
    decision: np.ndarray
    raw: np.ndarray
    confidence: np.ndarray
    intensity: np.ndarray | None = None
    smoothed: tuple[np.ndarray, np.ndarray] | None = None
    differing: Mapping[str, float] | None = None

    @property
    def faces(self) -> int:
        """Return the number of frames with a face."""
        return self.scores.status.count("ok")

    def only(self, aus: Sequence[str]) -> "VideoPredictions":
        """Return the predictions of some of the AUs, in the order of `aus`."""
        keep = [self.aus.index(au) for au in aus]
        y_hat, sigma, decision, raw, confidence = (
            values[:, keep]
            for values in (self.scores.y_hat, self.scores.sigma, self.decision, self.raw, self.confidence)
        )
        unguarded = None if self.scores.unguarded is None else self.scores.unguarded[:, keep]
        scores = replace(self.scores, y_hat=y_hat, sigma=sigma, unguarded=unguarded)
        intensity = None if self.intensity is None else self.intensity[:, keep]
        smoothed = None if self.smoothed is None else (self.smoothed[0][:, keep], self.smoothed[1][:, keep])
        return VideoPredictions(tuple(aus), scores, decision, raw, confidence, intensity, smoothed, self.differing)

    def abstained(self, limits: np.ndarray | None) -> np.ndarray:
        """Return which decisions have too low confidence, (n, A) bool.

        Args:
            limits: (2, A), the minimum confidence of inactive and of active decisions; None: no limit.
        """
        if limits is None:
            return np.zeros(self.decision.shape, bool)
        return self.confidence < np.where(self.decision == 1, limits[1], limits[0])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of each AU by name, (n,) each: AU1, AU1_raw, AU1_pseudo_intensity, AU1_uncertainty, AU1_confidence.

        If the target is intensity, AU1_intensity follows AU1. A model with a smoother adds AU1_smoothed and AU1_smoothed_sd.
        """
        arrays = {"": self.decision} | ({} if self.intensity is None else {"_intensity": self.intensity})
        arrays |= {"_raw": self.raw, "_pseudo_intensity": self.scores.y_hat}
        arrays |= {"_uncertainty": self.scores.sigma, "_confidence": self.confidence}
        if self.smoothed is not None:
            arrays |= dict(zip(("_smoothed", "_smoothed_sd"), self.smoothed))
        return {f"{au}{ending}": array[:, k] for k, au in enumerate(self.aus) for ending, array in arrays.items()}

    def to_table(self, limits: np.ndarray | None = None) -> "pd.DataFrame":
        """Return a row for every frame: frame (0-based), time_s, status, `calibrated`, and `columns`.

        The column `calibrated` is 0 in a video that differs from the training videos, where the confidence is not
        calibrated, else 1; a model without a training reference has no such column.

        Args:
            limits: see `abstained`; a decision with a lower confidence is written as `abstain`.

        Returns:
            A data frame. Decisions are nullable integers, missing where there is no face; with limits they are objects,
            since some of them may be `abstain`.
        """
        import pandas as pd

        frame = np.arange(len(self.decision), dtype=np.int32)
        columns: dict[str, Any] = {"frame": frame, "time_s": self.scores.time, "status": self.scores.status}
        if self.differing is not None:
            columns["calibrated"] = np.full(len(frame), not self.differing, np.int8)
        columns |= self.columns()
        abstained = self.abstained(limits)
        for k, au in enumerate(self.aus):
            decision = self.decision[:, k]
            values = pd.arrays.IntegerArray(decision, decision == NO_DECISION)
            columns[au] = values if limits is None else pd.Series(values, dtype=object).mask(abstained[:, k], ABSTAIN)
        return pd.DataFrame(columns)

    def write_csv(self, path: Path, limits: np.ndarray | None = None) -> None:
        """Write the table of `to_table` as CSV: five decimals, six for the time, and empty cells for missing values.

        Rows are written in blocks, and without pandas, which takes a third of a second to import.
        """
        columns, abstained = self.columns(), self.abstained(limits)
        calibrated = [] if self.differing is None else ["calibrated"]
        with store.atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(",".join(["frame", "time_s", "status", *calibrated, *columns]) + "\n")
            for start in range(0, len(self.decision), _ROWS):
                rows = slice(start, start + _ROWS)
                times, status = self.scores.time[rows].tolist(), self.scores.status[rows]
                cells = [map(str, range(start, start + len(times))), (f"{time:.6f}" for time in times), status]
                cells += [[str(int(not self.differing))] * len(times) for _ in calibrated]
                for name, values in columns.items():
                    if name in self.aus:
                        marks = abstained[rows, self.aus.index(name)].tolist()
                        cells.append(_decision_cells(values[rows].tolist(), marks))
                    else:
                        cells.append(["" if isnan(value) else f"{value:.5f}" for value in values[rows].tolist()])
                file.writelines(",".join(row) + "\n" for row in zip(*cells))


def _decision_cells(decisions: list[int], abstained: list[bool]) -> list[str]:
    """Return the cells of an AU's decisions."""
    return [
        ABSTAIN if mark else "" if value == NO_DECISION else str(value) for value, mark in zip(decisions, abstained)
    ]

"""The recognizer: a bundle at work. Faces -> y_hat, sigma -> features over the video -> a decision for each AU.

A video streams through it: images are dropped once they are scored, features once they are decided, so that memory
grows by some hundred bytes a frame.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.errors import ArtifactError
from aupair.inference.bundle import check_bundle
from aupair.params import Params, parse_stored_params

if TYPE_CHECKING:
    from aupair.evaluation.selection import Selection
    from aupair.faces.video import FaceRow
    from aupair.mapping.extractor import Statistics

Arrays = tuple[np.ndarray, np.ndarray]

NO_DECISION = -1
"""The decision for a frame without a face; all other columns are NaN there."""
PIECE = 4096
"""frames decided, or written, at once: their features take some 6 kB each"""


@dataclass(frozen=True)
class Predictions:
    """What is said about n frames of one video and A AUs.

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

    def part(self, rows: slice) -> "Predictions":
        """Give those of some frames, as views."""
        parts: dict[str, Any] = {name: None if v is None else v[rows] for name, v in vars(self).items()}
        return Predictions(**parts)

    def unsure(self, limits: np.ndarray | None) -> np.ndarray:
        """Which decisions to abstain from: (n, A) bool.

        Args:
            limits: the confidences below which to abstain, (2, A): of inactive and of active decisions; None: from none.
        """
        if limits is None:
            return np.zeros(self.decision.shape, bool)
        return self.confidence < np.where(self.decision == 1, limits[1], limits[0])

    def columns(self) -> dict[str, np.ndarray]:
        """Name the columns, (n,) each: AU1, AU1_raw, AU1_pseudo_intensity, AU1_uncertainty, AU1_confidence, AU2 ...

        AU1_intensity stands after AU1, where intensity is the target.
        """
        found: dict[str, np.ndarray] = {}
        for k, au in enumerate(AUS):
            found[au] = self.decision[:, k]
            if self.intensity is not None:
                found[f"{au}_intensity"] = self.intensity[:, k]
            for name in ("raw", "pseudo_intensity", "uncertainty", "confidence"):
                found[f"{au}_{name}"] = getattr(self, name)[:, k]
        return found


@dataclass(frozen=True)
class Scores:
    """What f and h say of every frame of a video; nothing is decided yet.

    Attributes:
        frame, time, status: as of VideoPredictions.
        y_hat, sigma: (n, A) float32, NaN in frames without a face.
    """

    frame: np.ndarray
    time: np.ndarray
    status: list[str]
    y_hat: np.ndarray
    sigma: np.ndarray


def pooled(clips: Sequence[Scores]) -> Arrays:
    """Give y_hat and sigma (m, A) of all frames with a face of a person's clips."""
    seen = [np.isfinite(clip.y_hat).all(axis=1) for clip in clips]
    return _joined([(clip.y_hat[ok], clip.sigma[ok]) for clip, ok in zip(clips, seen)])


@dataclass(frozen=True)
class VideoPredictions:
    """What is said about every frame of a video.

    Attributes:
        frame: (n,) int32, 0-based.
        time: (n,) float64, seconds.
        status: n texts, of store.STATUSES.
        predictions: those of the n frames.
    """

    frame: np.ndarray
    time: np.ndarray
    status: list[str]
    predictions: Predictions

    @property
    def faces(self) -> int:
        """How many frames have a face."""
        return self.status.count("ok")


@dataclass(frozen=True)
class Recognizer:
    """A loaded bundle.

    Attributes:
        scorer: (B, S, S, 3) uint8 RGB -> y_hat, sigma, (B, A) float32 each.
        statistics: what G needs from the fit split.
        mapping: features (n, A, F) -> raw with uncertainty, raw without, (n, A) float32 each.
        selection: the mapping and the threshold of each AU, and the confidence.
        params: those it was trained with.
    """

    scorer: Callable[[np.ndarray], Arrays]
    statistics: "Statistics"
    mapping: Callable[[np.ndarray], Arrays]
    selection: "Selection"
    params: Params

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Recognizer":
        """Load a bundle.

        Raises:
            ArtifactError: a part is missing, corrupt or does not fit.
        """
        from aupair.mapping.extractor import Statistics
        from aupair.mapping.fit import Mapping
        from aupair.ranking.scores import Scorer

        folder = Path(folder)
        check_bundle(folder)
        return cls(
            scorer=Scorer(folder / "f", folder / "h", device),
            statistics=Statistics.load(folder / "statistics.safetensors"),
            mapping=Mapping.load(folder / "mapping"),
            selection=read_selection(folder / "selection.json"),
            params=parse_stored_params(store.read_json(folder / "params.json"), where=str(folder / "params.json")),
        )

    def score(self, images: np.ndarray) -> Arrays:
        """Score aligned faces in batches: (n, S, S, 3) uint8 RGB -> y_hat, sigma, (n, A) float32 each."""
        batch = self.params.extract_features.batch
        parts = [self.scorer(images[start : start + batch]) for start in range(0, len(images), batch)]
        return _joined(parts)

    def decide(self, y_hat: np.ndarray, sigma: np.ndarray, time: np.ndarray, pool: Arrays | None = None) -> Predictions:
        """Decide for all frames of one video.

        Args:
            y_hat, sigma: (n, A) float32, NaN in frames without a face.
            time: (n,) float64, seconds, ascending.
            pool: y_hat and sigma of all clips of the person, of which the neutral face is taken; else of this video.
        """
        from aupair.evaluation.metrics import clamp_levels
        from aupair.mapping.extractor import VideoFeatures

        ok = np.isfinite(y_hat).all(axis=1)
        decision = np.full(y_hat.shape, NO_DECISION, np.int8)
        raw = np.full(y_hat.shape, np.nan, np.float32)
        confidence = np.full(y_hat.shape, np.nan, np.float32)
        if ok.any():
            course = VideoFeatures(y_hat, sigma, time, self.statistics, self.params.extract_features, pool)
            for start in range(0, len(ok), PIECE):
                rows = slice(start, start + PIECE)
                own = start + np.flatnonzero(ok[rows])
                raw[own] = self.selection.raw(*self.mapping(course.features(rows)[ok[rows]]))
                decision[own] = self.selection.decide(raw[own])
                confidence[own] = self.selection.confidence_of(raw[own], sigma[own])
        intensity = clamp_levels(raw) if self.params.target == "intensity" else None
        return Predictions(decision, raw, y_hat, sigma, confidence, intensity)

    def predict_faces(self, images: np.ndarray, fps: float) -> Predictions:
        """Decide for the aligned faces of one video, in order, at a fixed rate: (n, S, S, 3) uint8 RGB."""
        y_hat, sigma = self.score(images)
        return self.decide(y_hat, sigma, np.arange(len(images)) / fps)

    def predict_video(self, source: Path) -> VideoPredictions:
        """Decode a video, find its faces, and decide for every frame of it.

        Raises:
            DataError: it cannot be read.
        """
        return self.decide_video(self.score_video(source))

    def score_video(self, source: Path) -> Scores:
        """Decode a video, find its faces, and score every frame of it.

        Raises:
            DataError: it cannot be read.
        """
        from aupair.faces.video import iter_faces

        return self.score_rows(map(self._as_stored, iter_faces(source, self.params.preprocess_faces)))

    def decide_video(self, scores: Scores, pool: Arrays | None = None) -> VideoPredictions:
        """Decide for every frame of a scored video; `pool` as of `decide`."""
        said = self.decide(scores.y_hat, scores.sigma, scores.time, pool)
        return VideoPredictions(scores.frame, scores.time, scores.status, said)

    def _as_stored(self, row: "FaceRow") -> "FaceRow":
        """Pass a face through the JPEG that training read it from, so that what is served is what was trained."""
        if row.image is None:
            return row
        quality = self.params.preprocess_faces.quality
        return replace(row, image=store.decode_jpeg(store.encode_jpeg(row.image, quality)))

    def predict_rows(self, rows: Iterable[Any]) -> VideoPredictions:
        """Decide for the frames of one video as `iter_faces` gives them; a batch of images is held, not more."""
        return self.decide_video(self.score_rows(rows))

    def score_rows(self, rows: Iterable[Any]) -> Scores:
        """Score the frames of one video as `iter_faces` gives them; a batch of images is held, not more."""
        frame, time = array("i"), array("d")
        status: list[str] = []
        images: list[np.ndarray] = []
        parts: list[Arrays] = []
        for row in rows:
            frame.append(row.frame)
            time.append(row.time)
            status.append(row.status)
            if row.status == "ok":
                images.append(row.image)
            if len(images) == self.params.extract_features.batch:
                parts.append(self.scorer(np.stack(images)))
                images.clear()
        if images:
            parts.append(self.scorer(np.stack(images)))
        ok = np.array([text == "ok" for text in status], bool)
        y_hat, sigma = (np.full((len(ok), len(AUS)), np.nan, np.float32) for _ in range(2))
        y_hat[ok], sigma[ok] = _joined(parts)
        return Scores(np.array(frame, np.int32), np.array(time, np.float64), status, y_hat, sigma)


def read_selection(path: Path) -> "Selection":
    """Read selection.json.

    Raises:
        ArtifactError: it is missing, or an AU has no choice.
    """
    from aupair.evaluation.selection import Selection

    tree = store.read_json(path)
    try:
        return Selection.from_json(tree)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("not a selection", where=path, got=f"no {error}", todo="run evaluate again") from error


def _joined(parts: list[Arrays]) -> Arrays:
    """Join batches of scores; none gives (0, A)."""
    if not parts:
        empty = np.empty((0, len(AUS)), np.float32)
        return empty, empty
    y_hat, sigma = zip(*parts)
    return np.concatenate(y_hat), np.concatenate(sigma)

"""The recognizer: from the faces of a video to y_hat and sigma, to features over the video, to a decision for each AU.

A video streams through it: images are dropped once they are scored, features once they are decided, so that memory
grows by some hundred bytes a frame.
"""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.errors import ArtifactError
from aupair.inference.bundle import check_bundle
from aupair.inference.predictions import NO_DECISION, Arrays, Predictions, VideoPredictions, VideoScores, join_scores
from aupair.params import Params, parse_stored_params

if TYPE_CHECKING:
    from aupair.evaluation.selection import Selection
    from aupair.faces.video import FaceRow
    from aupair.mapping.extractor import Statistics

PIECE = 4096
"""frames decided at once: their features take some 6 kB each"""


@dataclass(frozen=True)
class BundleRecognizer:
    """A loaded bundle; `aupair.Recognizer` also loads one from the registry and returns tables.

    Attributes:
        scorer: (B, S, S, 3) uint8 RGB -> y_hat, sigma, (B, A) float32 each.
        statistics: what the features need from the fit split.
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
    def load(cls, folder: Path, device: str = "auto") -> Self:
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

    def predict_video(self, source: Path) -> VideoPredictions:
        """Decode a video, find its faces, and decide for every frame of it.

        Raises:
            DataError: it cannot be read.
        """
        return self.decide_video(self.score_video(source))

    def predict_faces(self, images: np.ndarray, fps: float) -> Predictions:
        """Decide for the aligned faces of one video, in order, at a fixed rate: (n, S, S, 3) uint8 RGB."""
        y_hat, sigma = self.score(images)
        return self.decide(y_hat, sigma, np.arange(len(images)) / fps)

    def score(self, images: np.ndarray) -> Arrays:
        """Score aligned faces in batches: (n, S, S, 3) uint8 RGB -> y_hat, sigma, (n, A) float32 each."""
        batch = self.params.extract_features.batch
        return join_scores([self.scorer(images[start : start + batch]) for start in range(0, len(images), batch)])

    def score_video(self, source: Path) -> VideoScores:
        """Decode a video, find its faces, and score every frame of it.

        Raises:
            DataError: it cannot be read.
        """
        from aupair.faces.video import iter_faces

        return self.score_rows(map(self._recompress, iter_faces(source, self.params.preprocess_faces)))

    def score_rows(self, rows: Iterable[Any]) -> VideoScores:
        """Score the frames of one video as `iter_faces` yields them; no more than a batch of images is held."""
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
        y_hat[ok], sigma[ok] = join_scores(parts)
        return VideoScores(np.array(frame, np.int32), np.array(time, np.float64), status, y_hat, sigma)

    def decide_video(self, scores: VideoScores, pool: Arrays | None = None) -> VideoPredictions:
        """Decide for every frame of a scored video; `pool` as of `decide`."""
        predictions = self.decide(scores.y_hat, scores.sigma, scores.time, pool)
        return VideoPredictions(scores.frame, scores.time, scores.status, predictions)

    def decide(self, y_hat: np.ndarray, sigma: np.ndarray, time: np.ndarray, pool: Arrays | None = None) -> Predictions:
        """Decide for all frames of one video.

        Args:
            y_hat, sigma: (n, A) float32, NaN in frames without a face.
            time: (n,) float64, seconds, ascending.
            pool: y_hat and sigma of all clips of the person, among which the neutral face is found; None: this video's.
        """
        from aupair.evaluation.metrics import clamp_levels
        from aupair.mapping.extractor import VideoFeatures

        ok = np.isfinite(y_hat).all(axis=1)
        decision = np.full(y_hat.shape, NO_DECISION, np.int8)
        raw = np.full(y_hat.shape, np.nan, np.float32)
        confidence = np.full(y_hat.shape, np.nan, np.float32)
        if ok.any():
            video = VideoFeatures(y_hat, sigma, time, self.statistics, self.params.extract_features, pool)
            for start in range(0, len(ok), PIECE):
                rows = slice(start, start + PIECE)
                own = start + np.flatnonzero(ok[rows])
                raw[own] = self.selection.raw(*self.mapping(video.features(rows)[ok[rows]]))
                decision[own] = self.selection.decide(raw[own])
                confidence[own] = self.selection.confidence_of(raw[own], sigma[own])
        intensity = clamp_levels(raw) if self.params.target == "intensity" else None
        return Predictions(decision, raw, y_hat, sigma, confidence, intensity)

    def _recompress(self, row: "FaceRow") -> "FaceRow":
        """Pass a face through the JPEG that training read it from, so that the networks see the same pixels."""
        if row.image is None:
            return row
        quality = self.params.preprocess_faces.quality
        return replace(row, image=store.decode_jpeg(store.encode_jpeg(row.image, quality)))


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

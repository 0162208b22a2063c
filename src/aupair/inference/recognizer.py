"""The recognizer: faces of a video -> y_hat and sigma -> features over the video -> a decision for each frame and AU.

A video is processed as a stream: images are freed after scoring, and features after the decision, so that memory grows by
some hundred bytes for each frame.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from aupair import store
from aupair.aus import check_au_names
from aupair.data.quality import QUALITY_SIGNALS
from aupair.errors import ParamsError
from aupair.faces.appearance import APPEARANCE, describe_faces
from aupair.faces.decode import FailedVideoError, VideoError
from aupair.faces.row import FaceRow
from aupair.inference.bundle import check_aus, hash_selection, open_bundle
from aupair.inference.predictions import NO_DECISION, VideoPredictions, VideoScores
from aupair.params import Params, parse_stored_params

if TYPE_CHECKING:
    from aupair.evaluation.reference import Reference
    from aupair.evaluation.selection import Selection
    from aupair.mapping.extractor import Extractor, RouteValues

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]

_PIECE = 4096
"""The number of frames that are decided at once; the features of one frame take about 6 kB."""
_ROWS_AHEAD = 32
"""The number of frames in a group of the thread that detects faces; it is up to two groups ahead of the networks."""
_APPEARANCE_EVERY = 5
"""The appearance is computed for every fifth face, which is enough for the median over a video."""


@dataclass(frozen=True)
class _EndOfVideo:
    """The item after the last row of a video, with the error that ended the reading, if any."""

    error: VideoError | None = None


@dataclass(frozen=True)
class BundleRecognizer:
    """A loaded bundle; `aupair.Recognizer` also loads one from the registry and returns tables.

    Attributes:
        scorer: (B, S, S, 3) uint8 RGB, quality signals (B, 3) float32 -> y_hat, sigma, and sigma
            without the guard of h, (B, A) float32 each.
        extractor: computes the features from the scores.
        mapping: features (n, A, F) by route -> raw outputs by route, (n, A) float32 each.
        selection: the mapping and the threshold of each AU, and the confidence.
        params: the params that the model was trained with.
        reference: the training reference, with which videos are compared; None for a model of an older version.
        sha256: the SHA-256 of selection.json, which identifies the training.
        chosen: the AUs in the predictions, in the model's order; empty: all. All AUs are computed anyway. See `only`.
        device: torch's name of the device of the networks.
    """

    scorer: Callable[[np.ndarray, np.ndarray], Arrays]
    extractor: "Extractor"
    mapping: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    selection: "Selection"
    params: Params
    chosen: tuple[str, ...] = ()
    reference: "Reference | None" = None
    sha256: str = ""
    device: str = "cpu"

    @property
    def aus(self) -> tuple[str, ...]:
        """Return the AUs of the predictions."""
        return self.chosen or self.selection.aus

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load a bundle.

        Raises:
            ArtifactError: a part is missing or corrupt, or does not fit the others.
        """
        from aupair.mapping.extractor import Extractor
        from aupair.mapping.model import Mapping
        from aupair.ranking.scores import Scorer

        files = open_bundle(folder)
        networks = {files.f[trial] for trial, _ in files.members} | {files.h, files.mapping}
        check_aus(sorted(networks), folder / "selection.json")
        with store.fitting(folder / "params.json"):
            params = parse_stored_params(store.read_json(folder / "params.json"), where=str(folder / "params.json"))
        extractor = Extractor.load(files.features, params.extract_features)
        scorer = Scorer(files.f, files.h, files.members, device, files.trunk)
        return cls(
            scorer=scorer,
            extractor=extractor.only(extractor.deciding),
            mapping=Mapping.load(files.mapping, extractor.deciding),
            selection=read_selection(folder / "selection.json"),
            params=params,
            reference=_read_reference(folder / "selection.json"),
            sha256=hash_selection(folder),
            device=str(scorer.device),
        )

    def only(self, aus: Collection[str] | None) -> Self:
        """Return a recognizer that predicts only these AUs, in the model's order; None: return it unchanged.

        Raises:
            DataError: `aus` is empty, or an AU is named twice.
            ParamsError: the model does not know an AU.
        """
        if aus is None:
            return self
        check_au_names(list(aus), "the AUs to predict")
        if unknown := [au for au in aus if au not in self.selection.aus]:
            what, known = "the model does not know these AUs", ", ".join(self.selection.aus)
            raise ParamsError(what, got=", ".join(unknown), expected=f"some of {known}")
        return replace(self, chosen=tuple(au for au in self.selection.aus if au in aus))

    def limits(self, share: float) -> np.ndarray:
        """Return the confidences below which a share of the decisions is left out: (2, A), for the AUs of the predictions.

        Raises:
            ArtifactError: see `Confidence.limits`.
        """
        return self.selection.confidence.limits(share)[:, [self.selection.aus.index(au) for au in self.aus]]

    def predict_video(self, source: Path) -> VideoPredictions:
        """Decode a video, detect its faces, and decide every AU for every frame.

        Raises:
            DataError: the video cannot be read.
        """
        return self.decide_video(self.score_video(source))

    def predict_faces(self, images: np.ndarray, fps: float) -> VideoPredictions:
        """Decide every AU for the aligned faces of one video, in order and at a fixed frame rate: (n, S, S, 3) uint8 RGB."""
        rows = (FaceRow(k, k / fps, "ok", image) for k, image in enumerate(images))
        return self.decide_video(self.score_rows(rows))

    def score_video(self, source: Path) -> VideoScores:
        """Decode a video, detect its faces, and score every frame.

        Raises:
            DataError: the video cannot be read.
        """
        with closing(self.score_videos([source])) as videos:
            scores = next(videos)
        if isinstance(scores, VideoError):
            raise scores
        return scores

    def score_videos(self, sources: Sequence[Path]) -> Generator[VideoScores | VideoError, None, None]:
        """Yield the scores of each video, or the error of one that cannot be read.

        A thread detects the faces of the next frames, also of the next video, while the networks score the previous ones.
        """
        from aupair.ranking.prefetch import prefetch_items

        with closing(prefetch_items(self._read_all(sources), _ROWS_AHEAD)) as rows:
            for _ in sources:
                try:
                    scores = self.score_rows(_take_video(rows))
                except VideoError as error:
                    yield error
                else:
                    yield scores

    def read_faces(self, source: Path) -> Iterator[FaceRow]:
        """Decode a video and yield a row for every frame, with the aligned face as the input of the networks.

        Raises:
            VideoError: the video cannot be read.
        """
        import cv2

        from aupair.faces.video import iter_faces

        try:
            yield from map(self._recompress, iter_faces(source, self.params.preprocess_faces))
        except (cv2.error, MemoryError) as error:
            todo = "it is tried again the next time"
            raise FailedVideoError("no faces could be found", where=source, got=repr(error), todo=todo) from error

    def _read_all(self, sources: Sequence[Path]) -> Iterator[FaceRow | _EndOfVideo]:
        """Yield the rows of each video, followed by its end."""
        for source in sources:
            try:
                yield from self.read_faces(source)
            except VideoError as error:
                yield _EndOfVideo(error)
            else:
                yield _EndOfVideo()

    def score_rows(self, rows: Iterable[FaceRow]) -> VideoScores:
        """Score all frames of one video, in order, with no more than a batch of images in memory."""
        time: list[float] = []
        status: list[str] = []
        quality: list[list[float]] = []
        described: list[tuple[int, np.ndarray]] = []
        number = count()

        def faces() -> Iterator[tuple[np.ndarray, list[float]]]:
            for row in rows:
                time.append(row.time)
                status.append(row.status)
                quality.append([getattr(row, name) for name in QUALITY_SIGNALS])
                if row.image is not None:
                    if self.reference is not None and next(number) % _APPEARANCE_EVERY == 0:
                        described.append((len(time) - 1, _describe_face(row, row.image)))
                    yield row.image, quality[-1]

        images, batch = faces(), self.params.extract_features.batch
        parts = []
        for first in images:
            faces_of_batch, quality_of_batch = zip(first, *islice(images, batch - 1))
            parts.append(self.scorer(np.stack(faces_of_batch), np.array(quality_of_batch, np.float32)))
        ok = np.array([text == "ok" for text in status], bool)
        y_hat, sigma, unguarded = (np.full((len(ok), len(self.selection.aus)), np.nan, np.float32) for _ in range(3))
        if parts:
            y_hat[ok], sigma[ok], unguarded[ok] = (np.concatenate(part) for part in zip(*parts))
        signals = np.array(quality, np.float32).reshape(len(ok), len(QUALITY_SIGNALS))
        appearance = None
        if self.reference is not None:
            appearance = np.full((len(ok), len(APPEARANCE) + 1), np.nan, np.float32)
            for row, values in described:
                appearance[row] = values
        return VideoScores(np.array(time, np.float64), status, y_hat, sigma, signals, unguarded, appearance)

    def smooth(self, clips: Sequence[VideoScores]) -> "list[RouteValues]":
        """Return the values of scored videos on each route."""
        from aupair.mapping.extractor import VideoInput

        return self.extractor.smooth(
            [
                VideoInput(c.y_hat, c.sigma if c.unguarded is None else c.unguarded, c.known_quality, c.time)
                for c in clips
            ]
        )

    def decide_video(self, scores: VideoScores, pool: "Sequence[RouteValues] | None" = None) -> VideoPredictions:
        """Decide every AU for every frame of a scored video.

        Args:
            pool: the values of all clips of the person, from which the neutral level is estimated; None: only this video.
        """
        from aupair.evaluation.metrics import clamp_levels

        y_hat, sigma = scores.y_hat, scores.sigma
        ok = np.isfinite(y_hat).all(axis=1)
        decision = np.full(y_hat.shape, NO_DECISION, np.int8)
        raw, confidence = (np.full(y_hat.shape, np.nan, np.float32) for _ in range(2))
        values = self.smooth([scores])[0]
        without, *with_uncertainty = self.extractor.deciding
        smoothed = next(((values.values[route], values.spread[route]) for route in values.spread), None)
        if ok.any():
            video = self.extractor.features(values, pool)
            for start in range(0, len(ok), _PIECE):
                rows = slice(start, start + _PIECE)
                own = start + np.flatnonzero(ok[rows])
                raws = self.mapping({route: part[ok[rows]] for route, part in video.features(rows).items()})
                raw[own] = self.selection.raw(raws[(with_uncertainty or [without])[0]], raws[without])
                decision[own] = self.selection.decide(raw[own])
                confidence[own] = self.selection.confidence_of(raw[own], sigma[own])
        intensity = clamp_levels(raw) if self.params.target == "intensity" else None
        differing = self._compare_with_training(scores)
        predictions = VideoPredictions(
            self.selection.aus, scores, decision, raw, confidence, intensity, smoothed, differing
        )
        return predictions.only(self.aus)

    def _compare_with_training(self, scores: VideoScores) -> dict[str, float] | None:
        """Return the groups of signals in which a video differs from the training videos; None without a reference."""
        if self.reference is None:
            return None
        from aupair.evaluation.reference import build_signals

        unguarded = scores.sigma if scores.unguarded is None else scores.unguarded
        return self.reference.differing(
            build_signals(scores.y_hat, unguarded, scores.known_quality, scores.known_appearance)
        )

    def _recompress(self, row: FaceRow) -> FaceRow:
        """Compress and decompress a face as JPEG, since the networks were trained on compressed faces."""
        if row.image is None:
            return row
        quality = self.params.preprocess_faces.quality
        return replace(row, image=store.decode_jpeg(store.encode_jpeg(row.image, quality)))


def _take_video(items: Iterable[FaceRow | _EndOfVideo]) -> Iterator[FaceRow]:
    """Yield the rows up to the end of a video.

    Raises:
        VideoError: the reading of the video ended with an error.
    """
    for item in items:
        if not isinstance(item, _EndOfVideo):
            yield item
        elif item.error is None:
            return
        else:
            raise item.error


def _describe_face(row: FaceRow, image: np.ndarray) -> np.ndarray:
    """Return the appearance of a face and the logarithm of its size, (15,) float32."""
    transform = np.full((2, 3), np.nan) if row.transform is None else row.transform
    return describe_faces([image], transform[None])[0]


def _read_reference(path: Path) -> "Reference | None":
    """Read the training reference from a selection.json."""
    from aupair.evaluation.reference import Reference

    tree = store.read_json(path)
    with store.fitting(path):
        return Reference.from_json(tree)


def read_selection(path: Path) -> "Selection":
    """Read selection.json.

    Raises:
        ArtifactError: it is missing, or an AU has no choice.
    """
    from aupair.evaluation.selection import Selection

    tree = store.read_json(path)
    with store.fitting(path):
        return Selection.from_json(tree)

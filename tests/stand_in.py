"""A recognizer whose results can be computed by hand."""

import os
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from aupair.aus import AFFWILD2
from aupair.errors import AupairError
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.reference import Reference
from aupair.evaluation.selection import Selection
from aupair.faces.decode import Frame, VideoError, read_frames
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.recognizer import BundleRecognizer
from brightness import A


class StandIn:
    """Decides 1 in even frames and 0 in odd ones, with no face in every third; confidence rises with the frame."""

    # of a confidence that is uniform for inactive decisions and half as high for active ones
    quantiles = np.repeat(np.linspace(0, 1, 101)[:, None] * np.array([1.0, 0.5]), A).reshape(101, 2, A)
    bounds = np.concatenate([np.linspace(0.3, 0.1, 51), np.full(50, 0.01)])
    confidence = Confidence(np.zeros((A, 5)), quantiles, bounds, bounds)
    selection = Selection(AFFWILD2, np.ones(A, bool), np.full(A, 0.5), confidence)

    aus = AFFWILD2
    limits = BundleRecognizer.limits
    reference: Reference | None = None
    sha256 = "a" * 64
    device = "cpu"

    def read_faces(self, source: Path) -> Iterator[Frame]:
        return read_frames(source)

    def score_rows(self, frames: Iterable[Frame]) -> VideoPredictions:
        time = np.array([frame.time for frame in frames])
        index = np.arange(len(time))[:, None]
        blind = np.repeat(index % 3 == 2, A, axis=1)
        known = np.where(blind, np.nan, index / len(time)).astype(np.float32)
        decision = np.where(blind, -1, 1 - index % 2).astype(np.int8)
        status = ["no_face" if k % 3 == 2 else "ok" for k in range(len(time))]
        return VideoPredictions(self.aus, VideoScores(time, status, known, known), decision, known, known)

    def score_video(self, source: Path) -> VideoPredictions:
        return self.score_rows(self.read_faces(source))

    def score_videos(self, sources: Sequence[Path]) -> Generator[VideoPredictions | VideoError, None, None]:
        for source in sources:
            try:
                yield self.score_video(source)
            except VideoError as error:
                yield error

    def decide_video(self, scores: VideoPredictions, pool: None) -> VideoPredictions:
        return scores


class Deadly(StandIn):
    """Kills its process at a video named deadly; finds the disk full at one named full."""

    def read_faces(self, source: Path) -> Iterator[Frame]:
        if source.stem == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if source.stem == "full":
            raise AupairError("cannot write", got="No space left on device")
        return super().read_faces(source)


class Slow(StandIn):
    """Takes a minute for a video named slow..., and writes the id of its process beside that video."""

    def read_faces(self, source: Path) -> Iterator[Frame]:
        if source.stem.startswith("slow"):
            source.with_suffix(".pid").write_text(str(os.getpid()))
            time.sleep(60)
        return super().read_faces(source)

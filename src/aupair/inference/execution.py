"""The recogniser at work on the videos of each person, in this process or in several."""

import pickle
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

from aupair.faces.decode import VideoError
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.recognizer import BundleRecognizer
from aupair.inference.summary import Summary
from aupair.inference.writer import VideoWriter
from aupair.pool import ProcessDeath, count_cores, run_in_processes

_MOST_WORKERS = 8
"""The most processes if the number is not given: each has its own copy of the networks, and takes 1 GiB or more."""
Group = list[tuple[Path, Path]]
"""The videos of a person, each with the path of its table without suffix."""
Results = Generator[tuple[Group, list[Summary]], None, None]


def predict_in_turn(groups: Sequence[Group], recognizer: BundleRecognizer, writer: VideoWriter) -> Results:
    """Yield the rows of each group; its results are written while the next one is scored."""
    previous: tuple[Group, list[Future[Summary]]] | None = None
    sources = [video for group in groups for video, _ in group]
    with closing(recognizer.score_videos(sources)) as scores, ThreadPoolExecutor(1, "write") as thread:
        for group in groups:
            results = _decide_together(recognizer, list(islice(scores, len(group))))
            pending = [thread.submit(writer, result, *entry) for result, entry in zip(results, group)]
            if previous is not None:
                yield previous[0], [row.result() for row in previous[1]]
            previous = group, pending
        if previous is not None:
            yield previous[0], [row.result() for row in previous[1]]


def predict_in_processes(
    groups: Sequence[Group], recognizer: BundleRecognizer, writer: VideoWriter, workers: int
) -> Results:
    """Yield the rows of each group in the order in which they finish; a process that dies costs its group alone."""
    threads = max(1, count_cores() // workers)
    sent = cast(BundleRecognizer, _ByValue(recognizer))
    function = partial(_predict_group, recognizer=sent, writer=writer, threads=threads)
    with closing(run_in_processes(function, groups, workers)) as results:
        for group, result in results:
            if isinstance(result, ProcessDeath):
                message = f"the process {result.describe()}; it is tried again the next time"
                result = [Summary(str(video), "crashed", 0, 0, message) for video, _ in group]
            yield group, result


@dataclass(frozen=True)
class _ByValue:
    """A recognizer on its way to another process, where it arrives as itself.

    torch would put its weights into /dev/shm, of which a container has little.
    """

    recognizer: BundleRecognizer

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        """Return what the other process calls."""
        return pickle.loads, (pickle.dumps(self.recognizer),)


def _predict_group(group: Group, recognizer: BundleRecognizer, writer: VideoWriter, threads: int) -> list[Summary]:
    """Predict the videos of a person one after the other, in a process of the pool."""
    import cv2
    import torch

    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    results = _decide_together(recognizer, [_score_alone(recognizer, video) for video, _ in group])
    return [writer(result, *entry) for result, entry in zip(results, group)]


def _score_alone(recognizer: BundleRecognizer, video: Path) -> VideoScores | VideoError:
    """Return the scores of a video, without threads, or why it cannot be read."""
    try:
        return recognizer.score_rows(recognizer.read_faces(video))
    except VideoError as error:
        return error


def _decide_together(
    recognizer: BundleRecognizer, clips: Sequence[VideoScores | VideoError]
) -> list[VideoPredictions | VideoError]:
    """Return the predictions of the clips of a person, which share their neutral face."""
    readable = [clip for clip in clips if isinstance(clip, VideoScores)]
    pool = recognizer.smooth(readable) if len(readable) > 1 else None
    return [clip if isinstance(clip, VideoError) else recognizer.decide_video(clip, pool) for clip in clips]


def choose_workers(tasks: int, device: str) -> int:
    """Return how many processes predict: one on a GPU, else one for each core, at most eight and at most `tasks`."""
    return min(tasks, count_cores(), _MOST_WORKERS) if device == "cpu" else 1

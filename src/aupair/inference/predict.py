"""The work of `aupair predict`: for each video a table with a row for every frame, and a timeline as a picture.

A frame without a face has a row with its status and empty cells. A video that cannot be read is listed in summary.csv.
"""

import os
import pickle
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np

from aupair import store
from aupair.data.crops import FOLDER, find_crops, is_crops
from aupair.data.layout import read_subjects
from aupair.errors import DataError, ParamsError
from aupair.faces.decode import VideoError, describe_missing_frames
from aupair.inference.output import find_finished
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.recognizer import BundleRecognizer
from aupair.inference.summary import SUMMARY, Summary, describe_differences, describe_training, write_summary
from aupair.inference.timeline import save_timeline
from aupair.log import SILENT, Log
from aupair.pool import ProcessDeath, count_cores, run_in_processes

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv")
"""The suffixes by which files in a folder are recognised as videos; a file that is named itself is always tried."""
_MOST_WORKERS = 8
"""The most processes if the number is not given: each has its own copy of the networks, and takes 1 GiB or more."""


def predict_videos(
    videos: Sequence[Path],
    recognizer: BundleRecognizer,
    out: Path,
    abstain: float | None = None,
    log: Log = SILENT,
    subjects: Path | None = None,
    earlier: Sequence[Summary] = (),
    workers: int = 1,
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video, and summary.csv.

    Args:
        videos: files and folders of crops, see `find_videos`.
        abstain: the share of decisions to write as `abstain`, see `choose_abstain_share`.
        subjects: a table `video,subject`, video being the name without suffix: the clips of a person are decided
            together, for a model of `neutral: person`. A video that is not in it is a person of its own.
        earlier: the rows of summary.csv that `claim_output` returns: finished videos are not predicted again.
        workers: processes, each with the videos of a person at a time; 0: see `choose_workers`. 1: this process, with as
            many threads as there are cores. The results are the same.

    Returns:
        The rows of the videos, those of earlier runs included.

    Raises:
        DataError: none of the videos could be read, or `subjects` lists none of them.
        ParamsError: the model does not use `subjects`.
        AupairError: `out` cannot be written.
    """
    if subjects is not None and recognizer.params.extract_features.neutral != "person":
        expected = "a model of extract_features.neutral: person"
        raise ParamsError(
            "--subjects does not fit this model", got="neutral: video", expected=expected, todo="leave it out"
        )
    persons = None if subjects is None else _read_persons(subjects, videos)
    store.check_writable(out / f"{SUMMARY}.csv")
    named = list(zip(videos, output_names(videos)))
    finished, others = find_finished(named, out, earlier)
    if persons is not None:  # the clips of a person are decided together
        unfinished = {person for k, person in enumerate(persons) if k not in finished}
        finished = {k for k in finished if persons[k] not in unfinished}
    if finished:
        log.line(f"{len(finished)} of {len(videos)} videos are finished already; --overwrite predicts them again")
    row_of = {Path(row.video).resolve(): row for row in earlier}
    known = {k: row_of[videos[k].resolve()] for k in finished}
    rows = write_predictions(named, recognizer, out, abstain, log, persons, others, workers, known)
    if not any(row.frames for row in rows):
        raise DataError("no video could be read", where=out / f"{SUMMARY}.csv", todo="its column message says why")
    return rows


def choose_workers(tasks: int, device: str) -> int:
    """Return how many processes predict: one on a GPU, else one for each core, at most eight and at most `tasks`."""
    return min(tasks, count_cores(), _MOST_WORKERS) if device == "cpu" else 1


def choose_abstain_share(
    recognizer: BundleRecognizer,
    abstain: float | None = None,
    coverage: float | None = None,
    risk: float | None = None,
    log: Log = SILENT,
) -> float | None:
    """Return the share of decisions to abstain from, given at most one of three options; None if there is none.

    Each AU abstains from that share of its active decisions and of its inactive ones, the least confident of `select`.

    Args:
        abstain: the share itself, 0..1.
        coverage: the share to keep, 0..1.
        risk: the accepted share of wrong decisions among those kept, 0..1, at 95 % confidence for people like those of
            `select`; the resulting share is logged.

    Raises:
        ParamsError: several options are given, one is not a share, the risk cannot be achieved, or it is given for a
            recognizer that predicts only some of its AUs.
        ArtifactError: the model was made by a version of aupair that did not store risks.
    """
    options = {"--abstain": abstain, "--coverage": coverage, "--risk": risk}
    given = {option: value for option, value in options.items() if value is not None}
    if len(given) > 1:
        raise ParamsError("these options exclude each other", got=" and ".join(given), expected="one of them")
    for option, value in given.items():
        if not 0 <= value <= 1:
            raise ParamsError(f"{option} is not a share", got=value, expected="a number from 0 to 1")
    if risk is None:
        share = abstain if coverage is None else 1 - coverage
        return share or None  # with a share of 0, decisions are kept even if they are less confident than all of select
    if recognizer.aus != recognizer.selection.aus:
        todo = "leave one of them out: the risk is that of all AUs of the model together"
        raise ParamsError("these options exclude each other", got="--risk and --aus", todo=todo)
    share = recognizer.selection.confidence.share_for_risk(risk)
    promise = f"at most {100 * risk:g} % are wrong (95 % confidence, people like those of select)"
    log.line(f"abstaining from {100 * share:.0f} % of the decisions, so that {promise}")
    return share


def write_predictions(
    videos: Sequence[tuple[Path, str]],
    recognizer: BundleRecognizer,
    out: Path,
    abstain: float | None,
    log: Log = SILENT,
    persons: Sequence[str | int] | None = None,
    others: Sequence[Summary] = (),
    workers: int = 1,
    finished: Mapping[int, Summary] | None = None,
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video and name, and summary.csv with a row even for one that fails.

    Args:
        persons: the person of each video; None: each video is of another person.
        others: rows of other videos, which summary.csv has first.
        workers: processes, see `predict_videos`.
        finished: the rows of those of the videos that are not predicted again, by their index.
    """
    rows = dict(finished or {})
    training = describe_training(recognizer.reference is not None and recognizer.reference.synthetic)
    videos_of: dict[str | int, list[int]] = {}
    for k, person in enumerate(range(len(videos)) if persons is None else persons):
        if k not in rows:
            videos_of.setdefault(person, []).append(k)
    workers = workers or choose_workers(len(videos_of), recognizer.device)
    groups = [[(videos[k][0], out / videos[k][1]) for k in numbers] for numbers in videos_of.values()]
    writer = _Writer(
        None if abstain is None else recognizer.limits(abstain),
        f"Differs from {training}: the confidence is not calibrated here.",
    )
    run = partial(_predict_in_processes, workers=workers) if workers > 1 else _predict_in_turn
    places = {target: k for k, target in enumerate(out / name for _, name in videos)}
    with closing(run(groups, recognizer, writer)) as results:
        for group, written in log.progress(results, len(groups), "videos" if persons is None else "people"):
            for (_, target), row in zip(group, written):
                rows[places[target]] = row
                message = f": {row.message}" if row.message else ""
                log.line(f"{row.video}: {row.status}, {row.frames} frames, {row.faces} faces{message}")
            write_summary(out / f"{SUMMARY}.csv", [*others, *(rows[k] for k in sorted(rows))])
    all_rows = [*others, *(rows[k] for k in sorted(rows))]
    if differences := describe_differences(all_rows, training):
        log.line(differences)
    return all_rows


_Group = list[tuple[Path, Path]]
"""The videos of a person, each with the path of its table without suffix."""
_Results = Generator[tuple[_Group, list[Summary]], None, None]


def _predict_in_turn(groups: Sequence[_Group], recognizer: BundleRecognizer, writer: "_Writer") -> _Results:
    """Yield the rows of each group; its results are written while the next one is scored."""
    previous: tuple[_Group, list[Future[Summary]]] | None = None
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


def _predict_in_processes(
    groups: Sequence[_Group], recognizer: BundleRecognizer, writer: "_Writer", workers: int
) -> _Results:
    """Yield the rows of each group in the order in which they finish; a process that dies costs its group alone."""
    threads = max(1, count_cores() // workers)
    sent = cast(BundleRecognizer, _ByValue(recognizer))
    function = partial(_predict_group, recognizer=sent, writer=writer, threads=threads)
    with closing(run_in_processes(function, groups, workers)) as results:
        for group, result in results:
            if isinstance(result, ProcessDeath):
                message = f"the process ended with code {result.exit_code}; it is tried again the next time"
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


def _predict_group(group: _Group, recognizer: BundleRecognizer, writer: "_Writer", threads: int) -> list[Summary]:
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


@dataclass(frozen=True)
class _Writer:
    """The writing of a video's table and picture.

    Attributes:
        limits: see `BundleRecognizer.limits`; None: no decision is left out.
        note: the line below the title of the picture of a video that differs from the training videos.
    """

    limits: np.ndarray | None
    note: str

    def __call__(self, result: VideoPredictions | VideoError, video: Path, target: Path) -> Summary:
        """Write both, unless the video could not be read, and return its row of the summary."""
        if isinstance(result, VideoError):
            return Summary(str(video), result.status, 0, 0, str(result))
        table, picture = (target.with_name(f"{target.name}.{suffix}") for suffix in ("csv", "png"))
        # the table appears after the picture, so that there is no table without one
        with store.atomic(table) as complete_table:
            result.write_csv(complete_table, self.limits)
            save_timeline(picture, result, target.name, self.limits, self.note if result.differing else "")
        frames = len(result.decision)
        differs = ", ".join(f"{group} x{ratio:.2f}" for group, ratio in (result.differing or {}).items())
        cut = describe_missing_frames(video, frames - result.scores.status.count("unreadable"))
        if result.faces:
            return Summary(str(video), "ok", frames, result.faces, cut, target.name, differs)
        message = "; ".join(filter(None, ("no face in any frame", cut)))
        return Summary(str(video), "no_face", frames, 0, message, target.name)


def _read_persons(path: Path, videos: Sequence[Path]) -> list[str | int]:
    """Read the person of each video from a table `video,subject`; each video that is not listed gets a person of its own.

    Raises:
        DataError: the table cannot be read, has two subjects for a video, or lists none of the videos.
    """
    subjects = read_subjects(path)
    names = [_stem(video) for video in videos]
    if not subjects.keys() & set(names):
        raise DataError(
            "the table lists none of the videos", where=path, expected=f"names without suffix, such as {names[0]}"
        )
    return [subjects.get(name, k) for k, name in enumerate(names)]


def find_videos(sources: Sequence[Path]) -> list[Path]:
    """Return the files, and the videos and folders of crops in the folders and below, each once.

    Raises:
        DataError: a source does not exist, or there is no video.
    """
    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        raise DataError("no such video or folder", where=", ".join(missing), todo="check the path")
    videos: dict[Path, Path] = {}
    for source in sources:
        for path in _videos_in(source) if source.is_dir() else [source]:
            videos.setdefault(path.resolve(), path)
    if not videos:
        raise DataError("no video", where=", ".join(map(str, sources)), expected=f"files such as *{SUFFIXES[0]}")
    return list(videos.values())


def _videos_in(folder: Path) -> list[Path]:
    """Return the videos in a folder and below, then the folders of crops of other videos."""
    videos: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.lower().startswith(FOLDER)]
        files = (Path(root, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        videos += [path for path in files if path.is_file()]
    stems = {video.stem for video in videos}
    return [*sorted(videos), *(path for path in find_crops(folder, is_crops(folder)) if path.name not in stems)]


def output_names(videos: Sequence[Path]) -> list[str]:
    """Return the name of each video's output: its stem, with as many parent folders as it takes to make it unique.

    `a/clip.mp4` and `b/clip.mp4` become `a__clip.mp4` and `b__clip.mp4`. Names that differ only by letter case count as equal.
    """
    depth = [0] * len(videos)
    while True:
        names = [_name(video, d) for video, d in zip(videos, depth)]
        count = Counter(name.lower() for name in [*names, SUMMARY])
        clash = [count[name.lower()] > 1 for name in names]
        deeper = [d + 1 if c and d <= len(v.resolve().parts) else d for v, d, c in zip(videos, depth, clash)]
        if deeper == depth:
            # only paths that differ by letter case or by `__` can still be equal here
            return [f"{name}-{index}" if c else name for index, (name, c) in enumerate(zip(names, clash))]
        depth = deeper


def _name(video: Path, depth: int) -> str:
    """Return the stem if `depth` is 0, else the last `depth` parts of the path."""
    return "__".join(video.resolve().parts[-depth:]).replace("/", "") if depth else _stem(video)


def _stem(video: Path) -> str:
    """Return the name of a video: a file's name without its suffix, or a folder's full name."""
    return video.name if video.is_dir() else video.stem

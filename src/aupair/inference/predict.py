"""The work of `aupair predict`: for each video a table with a row for every frame, and a timeline as a picture.

A frame without a face has a row with its status and empty cells. A video that cannot be read is listed in summary.csv.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from aupair import store
from aupair.errors import DataError, ParamsError
from aupair.inference.execution import choose_workers, predict_in_processes, predict_in_turn
from aupair.inference.output import find_finished
from aupair.inference.recognizer import BundleRecognizer
from aupair.inference.summary import SUMMARY, Summary, describe_differences, describe_training, write_summary
from aupair.inference.videos import output_names, read_persons
from aupair.inference.writer import VideoWriter
from aupair.log import SILENT, Log


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
    persons = None if subjects is None else read_persons(subjects, videos)
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
    writer = VideoWriter(
        None if abstain is None else recognizer.limits(abstain),
        f"Differs from {training}: the confidence is not calibrated here.",
    )
    run = partial(predict_in_processes, workers=workers) if workers > 1 else predict_in_turn
    if workers > 1 and groups:
        processes = min(workers, len(groups))
        clips = sum(map(len, groups))
        noun, number = "process" if processes == 1 else "processes", f"{clips} video{'' if clips == 1 else 's'}"
        log.line(f"starting {processes} {noun} for {number}; each loads the libraries and its networks first")
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

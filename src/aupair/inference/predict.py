"""Predict: videos in, for each a table with a row for every frame and a picture of its course.

    aupair predict clip.mp4 folder/ --model models:/aupair@champion --out predictions

A frame without a face has its row and its status, and empty cells. A video that cannot be read is a row in summary.csv.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.data.crops import FOLDER, find_crops, is_crops
from aupair.data.layout import read_subjects
from aupair.errors import DataError, ParamsError
from aupair.inference.recognizer import PIECE, Predictions, Recognizer, Scores, VideoPredictions, pooled
from aupair.inference.timeline import save_timeline
from aupair.log import SILENT, Log

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv")
"""What counts as a video inside a folder; a file that is named is always tried."""

SUMMARY = "summary"
ABSTAIN = "abstain"


@dataclass(frozen=True)
class Summary:
    """What became of one video: a row of summary.csv.

    Attributes:
        video: its path as given.
        status: ok | no_face (in no frame) | empty | unreadable.
        frames: how many were decoded.
        faces: how many of them have a face.
        message: why it is not ok, or that it ends before its header says.
        output: the name of its table and its picture, without suffix; empty if there are none.
    """

    video: str
    status: str
    frames: int
    faces: int
    message: str = ""
    output: str = ""


def predict(
    sources: Sequence[Path],
    recognizer: Recognizer,
    out: Path,
    abstain: float | None = None,
    log: Log = SILENT,
    subjects: Path | None = None,
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video, and summary.csv.

    Args:
        sources: videos, and folders that are searched for videos.
        recognizer: a loaded bundle.
        abstain: the share of decisions to give as `abstain`, see `share_to_abstain`; 0..1.
        subjects: a table `video,subject`, video being the name without suffix: the clips of a person are decided
            together, for a model of `neutral: person`. A video that is not in it is a person of its own.

    Raises:
        DataError: a source is missing, there is no video, none of them could be read, or `subjects` fits none.
        ParamsError: `abstain` is not a share, or the model has no use for `subjects`.
        AupairError: `out` cannot be written.
    """
    if abstain is not None and not 0 <= abstain <= 1:
        raise ParamsError("--abstain", got=abstain, expected="a share from 0 to 1")
    if subjects is not None and recognizer.params.extract_features.neutral != "person":
        expected = "a model of extract_features.neutral: person"
        raise ParamsError("--subjects", got="a model of neutral: video", expected=expected, todo="leave it out")
    videos = find_videos(sources)
    persons = None if subjects is None else read_persons(subjects, videos)
    store.check_writable(out / f"{SUMMARY}.csv")
    rows = predict_each(list(zip(videos, output_names(videos))), recognizer, out, abstain, log, persons)
    if not any(row.frames for row in rows):
        raise DataError("no video could be read", where=out / f"{SUMMARY}.csv", todo="its column message says why")
    return rows


def share_to_abstain(
    recognizer: Recognizer,
    abstain: float | None = None,
    coverage: float | None = None,
    risk: float | None = None,
    log: Log = SILENT,
) -> float | None:
    """Turn what a user asks for, at most one of three, into the share of decisions that `predict` abstains from.

    Each AU abstains from that share of its active decisions and of its inactive ones, the least confident of `select`.

    Args:
        abstain: the share itself, 0..1.
        coverage: the share to keep, 0..1.
        risk: the share of wrong ones among the kept that is accepted, 0..1, promised with 95 % confidence for people
            like those of `select`; says in the log what share it takes.

    Raises:
        ParamsError: more than one is given, it is not a share, or no decisions are that sure.
        ArtifactError: the model is from before risks were kept.
    """
    asked = {"--abstain": abstain, "--coverage": coverage, "--risk": risk}
    given = {option: value for option, value in asked.items() if value is not None}
    if len(given) > 1:
        raise ParamsError("options that exclude each other", got=" and ".join(given), expected="one of them")
    for option, value in given.items():
        if not 0 <= value <= 1:
            raise ParamsError(option, got=value, expected="a share from 0 to 1")
    if risk is not None:
        share = recognizer.selection.confidence.share_for_risk(risk)
        promise = f"at most {100 * risk:g} % are wrong (95 % confidence, people like those of select)"
        log.line(f"abstaining from {100 * share:.0f} % of the decisions, so that {promise}")
        return share
    asked_for = abstain if coverage is None else 1 - coverage
    return asked_for or None  # none of them: not those either that are less sure than all of select


def predict_each(
    videos: Sequence[tuple[Path, str]],
    recognizer: Recognizer,
    out: Path,
    abstain: float | None,
    log: Log = SILENT,
    persons: Sequence[str | int] | None = None,
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video and its name, and summary.csv; one that fails is a row there.

    Args:
        persons: whose each video is; without it each is of a person of its own.
    """
    limit = None if abstain is None else recognizer.selection.confidence.limits(abstain)
    people: dict[str | int, list[int]] = {}
    for k, person in enumerate(range(len(videos)) if persons is None else persons):
        people.setdefault(person, []).append(k)
    rows: dict[int, Summary] = {}
    for mine in log.progress(people.values(), len(people), "videos" if persons is None else "people"):
        clips = [(video, out / name) for video, name in (videos[k] for k in mine)]
        for k, row in zip(mine, _predict_person(recognizer, clips, limit)):
            rows[k] = row
            message = f": {row.message}" if row.message else ""
            log.line(f"{row.video}: {row.status}, {row.frames} frames, {row.faces} faces{message}")
            write_summary(out / f"{SUMMARY}.csv", [rows[k] for k in sorted(rows)])
    return [rows[k] for k in sorted(rows)]


def read_persons(path: Path, videos: Sequence[Path]) -> list[str | int]:
    """Say whose each video is after a table `video,subject`: the subject, or a number of its own where it is not listed.

    Raises:
        DataError: the table cannot be read, gives a video two subjects, or lists none of the videos.
    """
    subjects = read_subjects(path)
    names = [_stem(video) for video in videos]
    if not subjects.keys() & set(names):
        raise DataError("a list of other videos", where=path, expected=f"names without suffix, such as {names[0]}")
    return [subjects.get(name, k) for k, name in enumerate(names)]


def find_videos(sources: Sequence[Path]) -> list[Path]:
    """List the files, and the videos and folders of crops in the folders and below, each once.

    Raises:
        DataError: a source does not exist, or there is no video.
    """
    missing = [str(source) for source in sources if not Path(source).exists()]
    if missing:
        raise DataError("no such video or folder", where=", ".join(missing), todo="check the path")
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        for path in _inside(source) if source.is_dir() else [source]:
            found.setdefault(path.resolve(), path)
    if not found:
        raise DataError("no video", where=", ".join(map(str, sources)), expected=f"files such as *{SUFFIXES[0]}")
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    """List the videos in a folder and below, then the folders of crops of other videos."""
    videos: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.lower().startswith(FOLDER)]
        known = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        videos += [path for path in (Path(root, name) for name in known) if path.is_file()]
    stems = {video.stem for video in videos}
    return [*sorted(videos), *(path for path in find_crops(folder, is_crops(folder)) if path.name not in stems)]


def output_names(videos: Sequence[Path]) -> list[str]:
    """Name the output of each video: its stem, or, where two share it, more of its path until no two do.

    `a/clip.mp4` and `b/clip.mp4` give `a__clip.mp4` and `b__clip.mp4`. Letter case does not tell two apart.
    """
    depth = [0] * len(videos)
    while True:
        names = [_name(video, d) for video, d in zip(videos, depth)]
        keys = [name.lower() for name in names]
        clash = [keys.count(key) > 1 or key == SUMMARY for key in keys]
        deeper = [d + 1 if c and d <= len(v.resolve().parts) else d for v, d, c in zip(videos, depth, clash)]
        if deeper == depth:
            break
        depth = deeper
    # only paths that differ by letter case or by `__` are still alike here
    return [f"{name}-{index}" if c else name for index, (name, c) in enumerate(zip(names, clash))]


def write_csv(path: Path, result: VideoPredictions, limit: np.ndarray | None = None) -> None:
    """Write a row for every frame.

    Args:
        limit: decisions of a lower confidence are given as `abstain`; see `Predictions.unsure`.
    """
    with store.atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "time_s", "status", *result.predictions.columns()])
        for start in range(0, len(result.frame), PIECE):
            rows = slice(start, start + PIECE)
            times = [f"{time:.6f}" for time in result.time[rows]]
            cells = _cells(result.predictions.part(rows), limit)
            writer.writerows(zip(result.frame[rows].tolist(), times, result.status[rows], *cells))


def _predict_person(
    recognizer: Recognizer, clips: Sequence[tuple[Path, Path]], limit: np.ndarray | None
) -> Iterator[Summary]:
    """Predict a person's clips, each with its target: all are scored, then decided with the neutral face of all."""
    scored = [_score(recognizer, video) for video, _ in clips]
    pool = pooled([scores for scores in scored if isinstance(scores, Scores)]) if len(clips) > 1 else None
    for (video, target), scores in zip(clips, scored):
        if isinstance(scores, Summary):
            yield scores
        else:
            yield _write(recognizer.decide_video(scores, pool), video, target, limit)


def _score(recognizer: Recognizer, video: Path) -> Scores | Summary:
    """Score a video; one that cannot be read gives a row that says so."""
    from aupair.faces.decode import VideoError

    try:
        return recognizer.score_video(video)
    except VideoError as error:
        return Summary(str(video), error.status, 0, 0, str(error))


def _write(result: VideoPredictions, video: Path, target: Path, limit: np.ndarray | None) -> Summary:
    """Write a video's table and picture, and say what became of it."""
    from aupair.faces.decode import describe_missing_frames

    write_csv(target.with_name(f"{target.name}.csv"), result, limit)
    save_timeline(target.with_name(f"{target.name}.png"), result, target.name, limit)
    status, message = ("ok", "") if result.faces else ("no_face", "no face in any frame")
    cut = describe_missing_frames(video, len(result.frame) - result.status.count("unreadable"))
    message = "; ".join(filter(None, (message, cut)))
    return Summary(str(video), status, len(result.frame), result.faces, message, target.name)


def write_summary(path: Path, rows: Sequence[Summary]) -> None:
    """Write what became of the videos."""
    with store.atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Summary)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _name(video: Path, depth: int) -> str:
    """Give the stem, and from depth 1 on the last `depth` parts of the path."""
    return "__".join(video.resolve().parts[-depth:]).replace("/", "") if depth else _stem(video)


def _stem(video: Path) -> str:
    """Give a file's name without its suffix, a folder's whole name."""
    return video.name if video.is_dir() else video.stem


def _cells(predictions: Predictions, limit: np.ndarray | None) -> list[list[str]]:
    """Write the columns of `Predictions.columns`, each as the texts of its cells."""
    unsure = predictions.unsure(limit)
    texts = {au: _decisions(predictions.decision[:, k], unsure[:, k]) for k, au in enumerate(AUS)}
    return [texts[name] if name in texts else _numbers(values) for name, values in predictions.columns().items()]


def _numbers(values: np.ndarray) -> list[str]:
    """Write numbers with five decimals, NaN as an empty cell."""
    return ["" if value != value else f"{value:.5f}" for value in values.tolist()]


def _decisions(decision: np.ndarray, unsure: np.ndarray) -> list[str]:
    """Write 0 or 1, `abstain` where unsure, and an empty cell where there is no face."""
    return ["" if d < 0 else ABSTAIN if u else str(d) for d, u in zip(decision.tolist(), unsure.tolist())]

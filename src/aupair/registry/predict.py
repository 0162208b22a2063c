"""Predict: videos in, for each a table with a row for every frame and a picture of its course.

    aupair predict clip.mp4 folder/ --model models:/aupair@champion --out predictions

A frame without a face has its row and its status, and empty cells. A video that cannot be read is a row in summary.csv.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from aupair import store
from aupair.aus import AUS
from aupair.errors import DataError, ParamsError
from aupair.log import SILENT, Log
from aupair.registry.recognizer import Recognizer, VideoPredictions
from aupair.registry.timeline import draw_timeline

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
    sources: Sequence[Path], recognizer: Recognizer, out: Path, abstain: float | None = None, log: Log = SILENT
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video, and summary.csv.

    Args:
        sources: videos, and folders that are searched for videos.
        recognizer: a loaded bundle.
        abstain: the least confident share of decisions, by the quantiles on `select`, to give as `abstain`; 0..1.

    Raises:
        DataError: a source is missing, there is no video, or none of them could be read.
        ParamsError: `abstain` is not a share.
        AupairError: `out` cannot be written.
    """
    if abstain is not None and not 0 <= abstain <= 1:
        raise ParamsError("--abstain", got=abstain, expected="a share from 0 to 1")
    videos = find_videos(sources)
    store.check_writable(out / f"{SUMMARY}.csv")
    rows = predict_each(list(zip(videos, output_names(videos))), recognizer, out, abstain, log)
    if not any(row.frames for row in rows):
        raise DataError("no video could be read", where=out / f"{SUMMARY}.csv", todo="its column message says why")
    return rows


def predict_each(
    videos: Sequence[tuple[Path, str]], recognizer: Recognizer, out: Path, abstain: float | None, log: Log = SILENT
) -> list[Summary]:
    """Write `<name>.csv` and `<name>.png` for each video and its name, and summary.csv; one that fails is a row there."""
    limit = None if abstain is None else recognizer.selection.confidence.threshold(abstain)
    rows: list[Summary] = []
    for video, name in log.progress(videos, len(videos), "videos"):
        row = _predict_one(recognizer, video, out / name, limit)
        rows.append(row)
        message = f": {row.message}" if row.message else ""
        log.line(f"{row.video}: {row.status}, {row.frames} frames, {row.faces} faces{message}")
        write_summary(out / f"{SUMMARY}.csv", rows)
    return rows


def find_videos(sources: Sequence[Path]) -> list[Path]:
    """List the files, and the videos in the folders and below, each once.

    Raises:
        DataError: a source does not exist, or there is no video.
    """
    missing = [str(source) for source in sources if not Path(source).exists()]
    if missing:
        raise DataError("no such video or folder", where=", ".join(missing), todo="check the path")
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        inside = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in inside:
            known = path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
            if path == source or known:
                found.setdefault(path.resolve(), path)
    if not found:
        raise DataError("no video", where=", ".join(map(str, sources)), expected=f"files such as *{SUFFIXES[0]}")
    return list(found.values())


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


def write_csv(path: Path, result: VideoPredictions, limit: float | None = None) -> None:
    """Write a row for every frame.

    Args:
        limit: decisions of a lower confidence are given as `abstain`.
    """
    predictions = result.predictions
    columns = predictions.columns()
    texts = {name: _numbers(values) for name, values in columns.items() if name not in AUS}
    for k, au in enumerate(AUS):
        texts[au] = _decisions(predictions.decision[:, k], predictions.confidence[:, k], limit)
    with store.atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "time_s", "status", *columns])
        times = [f"{time:.6f}" for time in result.time]
        writer.writerows(zip(result.frame.tolist(), times, result.status, *(texts[name] for name in columns)))


def _predict_one(recognizer: Recognizer, video: Path, target: Path, limit: float | None) -> Summary:
    """Predict one video; one that cannot be read gives a row that says so."""
    from aupair.faces.decode import VideoError, shortfall

    try:
        result = recognizer.predict_video(video)
    except VideoError as error:
        return Summary(str(video), error.status, 0, 0, str(error))
    write_csv(target.with_name(f"{target.name}.csv"), result, limit)
    draw_timeline(target.with_name(f"{target.name}.png"), result, target.name, limit)
    status, message = ("ok", "") if result.faces else ("no_face", "no face in any frame")
    cut = shortfall(video, len(result.frame) - result.status.count("unreadable"))
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
    return "__".join(video.resolve().parts[-depth:]).replace("/", "") if depth else video.stem


def _numbers(values: np.ndarray) -> list[str]:
    """Write numbers with five decimals, NaN as an empty cell."""
    return ["" if value != value else f"{value:.5f}" for value in values.tolist()]


def _decisions(decision: np.ndarray, confidence: np.ndarray, limit: float | None) -> list[str]:
    """Write 0 or 1, `abstain` under the limit, and an empty cell where there is no face."""
    unsure = np.zeros(len(decision), bool) if limit is None else confidence < limit
    return ["" if d < 0 else ABSTAIN if u else str(d) for d, u in zip(decision.tolist(), unsure.tolist())]

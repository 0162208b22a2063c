"""Alignment of the faces of many videos in parallel, with one Arrow file for each (`aupair run preprocess-faces`).

Finished files are collected in a hidden folder beside the output until all videos are done: DVC deletes the output before
it runs the stage, and a stage that was killed should continue with the next video.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from aupair import pool, store
from aupair.data.crops import frame_number
from aupair.data.layout import VideoJob
from aupair.disk import exclusive, sweep
from aupair.errors import AupairError
from aupair.faces.decode import VideoError, describe_missing_frames
from aupair.faces.video import align_video
from aupair.log import SILENT, Log
from aupair.params import PreprocessFaces

VERSION = "2"
"""The version of the files; it changes when the same video and params give other faces, so that all are computed again."""

Status = Literal["ok", "no_face", "empty", "unreadable", "too_large", "crashed"]


@dataclass(frozen=True)
class VideoReport:
    """The outcome of one video."""

    name: str
    status: Status
    """ok: at least one face; no_face: no face in any frame; empty: no frame; unreadable: cannot be decoded; too_large:
    frames of more than MAX_PIXELS; crashed: a library failed, or the process died"""
    frames: int
    faces: int
    message: str = ""
    """one line about the problem; with status ok, whether the video is shorter than its header states or has damaged images"""


def preprocess(jobs: Sequence[VideoJob], faces: Path, params: PreprocessFaces, log: Log = SILENT) -> list[VideoReport]:
    """Write `faces/<name>.arrow` for every job and delete the files of videos without a job.

    A file that an earlier run, finished or killed, made from the same video with the same options is used again. Videos
    with the status crashed are tried again. A run waits until another run on the same folder has ended.

    Returns:
        One report for each job, in the order of the jobs.

    Raises:
        AupairError: the folder cannot be written, or a model is not installed.
    """
    store.check_writable(faces / "video.arrow")  # a file may exist in place of the folder
    finished = _in_progress_folder(faces)
    store.check_writable(finished / "a video")  # before the first video is aligned
    with exclusive(finished, partial(log.line, "waiting for another preprocess-faces")):
        return _preprocess(jobs, faces, finished, params, log)


def _preprocess(
    jobs: Sequence[VideoJob], faces: Path, finished: Path, params: PreprocessFaces, log: Log
) -> list[VideoReport]:
    """Do the work of `preprocess` under its lock; `finished` is the folder of finished videos."""
    _collect_earlier_files(finished, faces, {job.name for job in jobs})
    # Long videos are processed first, so that all processes end at about the same time.
    tasks = sorted(jobs, key=lambda job: (_size(job.source), job.frames), reverse=True)
    workers = params.workers or pool.count_cores()
    reports = {}
    with closing(pool.run_in_processes(partial(_process, folder=finished, params=params), tasks, workers)) as results:
        for job, result in log.progress(results, len(tasks), "faces"):
            report = _report_crash(job, finished, result) if isinstance(result, pool.ProcessDeath) else result
            reports[job.name] = report
            if report.message:
                log.line(f"{report.name}: {report.status}: {report.message}")
    _publish(finished, faces)
    return [reports[job.name] for job in jobs]


def _process(job: VideoJob, folder: Path, params: PreprocessFaces) -> VideoReport:
    """Align one video in a process of the pool, unless its file in the folder is up to date."""
    import cv2

    cv2.setNumThreads(1)
    path, meta = folder / f"{job.name}.arrow", _origin(job, params)
    table = _read_if_current(path, meta)
    if table is not None:
        return _summarise(job, table)
    try:
        store.write_faces(path, align_video(job.source, params, job.side, job.frames), meta)
    except VideoError as error:
        store.write_faces(path, [], {**meta, "status": error.status, "message": str(error)})
    except (cv2.error, MemoryError) as error:
        return _report_crash(job, folder, error)
    return _summarise(job, store.read_faces(path))


def _origin(job: VideoJob, params: PreprocessFaces) -> dict[str, str]:
    """Return everything that a video's faces depend on: the hash of its source, and the settings.

    It is stored as the metadata of the video's file, which shows whether that file is still up to date.
    """
    origin: dict[str, object] = {"version": VERSION, "source": job.source.name}
    if job.source.is_dir():
        origin |= {"images_sha256": _sha256_of_images(job.source), "frames": job.frames}
        options = {"size", "quality"}  # crops need no detector
    else:
        origin |= {"source_bytes": _size(job.source), "source_sha256": _sha256(job.source), "side": job.side}
        options = {"size", "detector", "min_face", "align", "quality"}
    return {key: str(value) for key, value in (origin | params.model_dump(include=options)).items()}


def _read_if_current(path: Path, origin: dict[str, str]) -> pa.Table | None:
    """Return the faces in a file if it is complete and was made from this origin, else None."""
    if not path.is_file():
        return None
    try:
        table = store.read_faces(path)
    except AupairError:
        return None  # corrupt, or with another schema: computed again
    meta = {"align": "all"} | store.faces_metadata(table)  # older files do not have this option
    if {key: meta.get(key) for key in origin} != origin:
        return None
    store.add_faces_checksum(path)
    return table


def _summarise(job: VideoJob, table: pa.Table) -> VideoReport:
    """Return the report of a video according to its file."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["status"]).to_pylist()}
    frames, faces = len(table), counts.get("ok", 0)
    meta = store.faces_metadata(table)
    if not frames:
        return VideoReport(job.name, meta["status"], 0, 0, meta["message"])  # type: ignore[arg-type]
    damaged = counts.get("unreadable", 0)
    if damaged == frames:
        return VideoReport(job.name, "unreadable", frames, 0, "no frame can be decoded")
    if job.source.is_dir():
        defects = f"{damaged} of {damaged + faces} images are damaged" if damaged else ""
    else:
        defects = describe_missing_frames(job.source, frames - damaged)
    messages = ("" if faces else "no face in any frame", defects)
    return VideoReport(job.name, "ok" if faces else "no_face", frames, faces, "; ".join(filter(None, messages)))


def _report_crash(job: VideoJob, folder: Path, cause: pool.ProcessDeath | Exception) -> VideoReport:
    """Write a file without rows and origin, so that the next run tries the video again, and return the report."""
    text = f"the process {cause.describe()}" if isinstance(cause, pool.ProcessDeath) else repr(cause)
    message = " ".join(f"{text} at {job.source}; it is tried again the next time".split())
    sweep(folder)
    store.write_faces(folder / f"{job.name}.arrow", [], {"status": "crashed", "message": message})
    return VideoReport(job.name, "crashed", 0, 0, message)


def _in_progress_folder(faces: Path) -> Path:
    """Return the folder of finished videos of a running stage; it is on the disk of `faces`, so that files can be renamed."""
    output = faces.resolve()
    return output.with_name(f".{output.name}-in-progress")


def _collect_earlier_files(finished: Path, faces: Path, names: set[str]) -> None:
    """Move the files of an earlier run from the output into `finished`, and delete the files without a job.

    A file that a killed run left in `finished` is newer than the one in the output, and is kept.
    """
    for path in faces.glob("*.arrow"):
        if (finished / path.name).exists():
            path.unlink()
        else:
            path.rename(finished / path.name)
    for path in finished.glob("*.arrow"):
        if path.stem not in names:
            path.unlink()
    sweep(finished)


def _publish(finished: Path, faces: Path) -> None:
    """Move all files into the output and remove the folder of finished videos."""
    faces.mkdir(parents=True, exist_ok=True)
    for path in finished.iterdir():
        path.rename(faces / path.name)
    finished.rmdir()


def _size(source: Path) -> int:
    """Return a file's size in bytes; 0 if there is no file, an error that decoding reports."""
    return source.stat().st_size if source.is_file() else 0


def _sha256(source: Path) -> str:
    """Return the SHA-256 of a file's content; "" if it cannot be read, an error that decoding reports."""
    if not (source.is_file() and os.access(source, os.R_OK)):
        return ""
    return store.sha256(source)


def _sha256_of_images(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a folder's crops; "" if the folder cannot be read."""
    try:
        names = sorted(name for name in os.listdir(folder) if frame_number(name) is not None)
    except OSError:
        return ""
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\0{_sha256(folder / name)}\0".encode())
    return total.hexdigest()

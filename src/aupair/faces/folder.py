"""Many videos -> one Arrow file each: in parallel, resumable, whatever a single video does."""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from aupair import store
from aupair.data.crops import frame_of
from aupair.errors import AupairError
from aupair.faces import pool
from aupair.faces.decode import VideoError, shortfall
from aupair.faces.tracking import Side
from aupair.faces.video import align_video
from aupair.log import SILENT, Log
from aupair.params import PreprocessFaces

VERSION = "2"
"""Changes whenever the same video and params would give other faces: files of another version are made anew."""

Status = Literal["ok", "no_face", "empty", "unreadable", "crashed"]


@dataclass(frozen=True)
class Job:
    """A video to align."""

    name: str
    """the annotation's name, with _left or _right where there are two persons"""
    source: Path
    """a movie, or a folder of crops"""
    side: Side = ""
    frames: int = 0
    """label rows: crops get at least as many rows"""


@dataclass(frozen=True)
class VideoReport:
    """What became of a video."""

    name: str
    status: Status
    """ok: some face; no_face: none; empty: no frame; unreadable: cannot be decoded; crashed: the process died"""
    frames: int
    faces: int
    message: str = ""
    """one line on what went wrong; of an ok one, that it ends before its header says, or that images are damaged"""


def preprocess(jobs: Sequence[Job], faces: Path, params: PreprocessFaces, log: Log = SILENT) -> list[VideoReport]:
    """Write `faces/<name>.arrow` for every job and remove those of no job.

    A file made from the same video with the same options is kept; a crashed video is tried again the next time.

    Returns:
        One report a job, in their order.

    Raises:
        AupairError: the folder cannot be written, or a model is not installed.
    """
    _make_folder(faces)
    _tidy(faces, {job.name for job in jobs})
    # Long videos first, so that none is left alone at the end.
    tasks = sorted(jobs, key=lambda job: (_size(job.source), job.frames), reverse=True)
    workers = params.workers or pool.cores()
    reports = {}
    with closing(pool.each(partial(_process, faces=faces, params=params), tasks, workers)) as results:
        for job, result in log.progress(results, len(tasks), "faces"):
            report = _crashed(job, faces, result) if isinstance(result, pool.Died) else result
            reports[job.name] = report
            if report.message:
                log.line(f"{report.name}: {report.status}: {report.message}")
    return [reports[job.name] for job in jobs]


def _process(job: Job, faces: Path, params: PreprocessFaces) -> VideoReport:
    """Align one video, in a process of the pool, unless its file is there already."""
    import cv2

    cv2.setNumThreads(1)
    path, meta = _path(faces, job.name), _meta(job, params)
    done = _done(path, meta)
    if done is not None:
        return _report(job, done)
    try:
        store.write_faces(path, align_video(job.source, params, job.side, job.frames), meta)
    except VideoError as error:
        store.write_faces(path, [], {**meta, "status": error.status, "message": str(error)})
    except (cv2.error, MemoryError) as error:
        return _crashed(job, faces, error)
    return _report(job, store.read_faces(path))


def _meta(job: Job, params: PreprocessFaces) -> dict[str, str]:
    """Give what the rows of a video follow from."""
    given = {"version": VERSION, "source": job.source.name}
    if job.source.is_dir():
        found: dict[str, object] = {"images_sha256": _sha256_of_images(job.source), "frames": job.frames}
        options = {"size", "quality"}  # faces are not searched for
    else:
        found = {"source_bytes": _size(job.source), "source_sha256": _sha256(job.source), "side": job.side}
        options = {"size", "detector", "min_face", "quality"}
    return given | {key: str(value) for key, value in (found | params.model_dump(include=options)).items()}


def _done(path: Path, meta: dict[str, str]) -> pa.Table | None:
    """Give the faces at `path` if they are whole and follow from `meta`."""
    if not path.is_file():
        return None
    try:
        table = store.read_faces(path)
    except AupairError:
        return None  # corrupt, or of another schema: made anew
    known = store.faces_meta(table)
    return table if {key: known.get(key) for key in meta} == meta else None


def _report(job: Job, table: pa.Table) -> VideoReport:
    """Sum up a file of faces."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["status"]).to_pylist()}
    frames, found = len(table), counts.get("ok", 0)
    meta = store.faces_meta(table)
    if not frames:
        return VideoReport(job.name, meta["status"], 0, 0, meta["message"])  # type: ignore[arg-type]
    damaged = counts.get("unreadable", 0)
    if damaged == frames:
        return VideoReport(job.name, "unreadable", frames, 0, "no frame can be decoded")
    crops = f"{damaged} of {damaged + found} images are damaged" if damaged else ""
    cut = crops if job.source.is_dir() else shortfall(job.source, frames - damaged)
    messages = ("" if found else "no face in any frame", cut)
    return VideoReport(job.name, "ok" if found else "no_face", frames, found, "; ".join(filter(None, messages)))


def _crashed(job: Job, faces: Path, cause: pool.Died | Exception) -> VideoReport:
    """Write a file without rows, and without the options that would make it count as done."""
    text = f"the process ended with code {cause.exit_code}" if isinstance(cause, pool.Died) else repr(cause)
    message = " ".join(f"{text} at {job.source}; it is tried again the next time".split())
    _sweep(faces, f".{glob.escape(job.name)}.arrow.*")
    store.write_faces(_path(faces, job.name), [], {"status": "crashed", "message": message})
    return VideoReport(job.name, "crashed", 0, 0, message)


def _make_folder(faces: Path) -> None:
    """Make the folder, and find out now rather than after the first video whether it can be written."""
    try:
        faces.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=faces):
            pass
    except OSError as error:
        raise store.unwritable(faces, error) from error


def _tidy(faces: Path, names: set[str]) -> None:
    """Remove the files of videos that are no longer asked for, and what killed processes left."""
    for path in faces.glob("*.arrow"):
        if path.stem not in names:
            path.unlink()
    _sweep(faces, ".*.arrow.*")


def _sweep(faces: Path, pattern: str) -> None:
    """Remove the folders in which store.atomic builds its files."""
    for path in faces.glob(pattern):
        shutil.rmtree(path)


def _path(faces: Path, name: str) -> Path:
    """Give the file of a video's faces."""
    return faces / f"{name}.arrow"


def _size(source: Path) -> int:
    """Give a file's size in bytes; 0 where there is none (decoding it says so)."""
    return source.stat().st_size if source.is_file() else 0


def _sha256(source: Path) -> str:
    """Give the hash of a file's content; "" where it cannot be read (decoding it says so)."""
    if not (source.is_file() and os.access(source, os.R_OK)):
        return ""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_images(folder: Path) -> str:
    """Give the hash of the names and contents of a folder's crops; "" where it cannot be read (reading it says so)."""
    try:
        names = sorted(name for name in os.listdir(folder) if frame_of(name) is not None)
    except OSError:
        return ""
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\0{_sha256(folder / name)}\0".encode())
    return total.hexdigest()

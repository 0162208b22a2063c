"""The comparison of the label rows of a recording with the frames of its video."""

from dataclasses import replace
from pathlib import Path

from aupair.data.layout import Header
from aupair.errors import DataError
from aupair.importing.recordings import Notes, Recording

_RATES = (24, 25, 30, 50, 60)
"""Usual frame rates, at which labels may have been made from a converted copy of the video."""

_SHORT = 100
"""Number of frames below which a video is too short to infer another frame rate from labels that end before the video."""

ANY_LENGTH = "--any-length accepts it"


def count_frames(path: Path, header: Header) -> int:
    """Count the frames of a movie by decoding it; return the number in the header if nothing can be decoded."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = 0
    while capture.grab():
        frames += 1
    capture.release()
    return frames or header.frames


def fit_to_video(recording: Recording, notes: Notes, any_length: bool) -> Recording:
    """Compare the number of label rows with the number of frames, remove surplus rows, and note differences.

    Since the number of frames in the header may be wrong, frames are counted before a recording is rejected.

    Args:
        any_length: whether to accept every difference.

    Raises:
        DataError: the labels seem to belong to another frame rate or to another video.
    """
    files, media = recording.rows_by_file(), recording.media
    frames, fps = media.header.frames, media.header.fps
    if media.kind == "crops":  # frames without a face have no crop, also at the end of the video
        return recording
    if not frames:
        notes.add("videos without a number of frames in the header, not compared with the labels", recording.video)
        return recording
    if not any_length and media.kind == "movie" and any(_problem(rows, frames, fps) for rows in files.values()):
        frames = count_frames(media.path, media.header)
    for path, rows in files.items():
        if not any_length and (problem := _problem(rows, frames, fps)):
            got = f"{rows} label rows for the {frames} frames of {media.path}"
            raise DataError(problem, where=path, got=got, todo=f"convert the labels or the video; {ANY_LENGTH}")
    for rows in sorted(set(files.values())):
        names = [path.name for path, count in files.items() if count == rows]
        which = "" if len(names) == len(files) else f" in {', '.join(names)}"
        example = f"{recording.video} ({rows} rows{which}, {frames} frames)"
        if rows < frames:
            notes.add("videos with frames after their last label row, these are not labelled", example)
        elif rows > frames:
            notes.add("videos with label rows after their last frame, these rows are left out", example)
    intensity = None if recording.intensity is None else recording.intensity[:frames]
    return replace(recording, occurrence=recording.occurrence[:frames], intensity=intensity)


def _problem(rows: int, frames: int, fps: float) -> str:
    """Return the problem with a number of label rows; empty if the number is plausible.

    Labels made at another frame rate are detected by their number of rows: the number of frames times the ratio of rates.
    """
    if abs(rows - frames) <= max(2, 0.01 * frames):
        return ""
    if rows > frames or frames >= _SHORT:
        distance = {rate: abs(rows - frames * rate / fps) for rate in _RATES if fps and abs(rate / fps - 1) > 0.01}
        nearest = min(distance, key=distance.__getitem__, default=0)
        if nearest and distance[nearest] <= max(2, 0.003 * frames):
            return f"labelled at another frame rate ({nearest} instead of {fps:g})?"
    return "more label rows than frames" if rows > frames else ""

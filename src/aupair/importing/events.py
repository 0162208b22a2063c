"""Conversion of events to labels of frames: an AU is active during an event, and inactive in the rest of the coded time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.errors import DataError
from aupair.importing.lengths import count_frames
from aupair.importing.recordings import Media, Notes, Recording

LEVELS = {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}
"""The letters that FACS uses for intensities."""

Unit = Literal["seconds", "frames"]


class CodedEvent(NamedTuple):
    """A time span in which an AU is active; `intensity` is 1 to 5, or NaN if not stated; `where` is its location in a file."""

    au: str
    start: float
    end: float
    intensity: float
    where: str


class Span(NamedTuple):
    """A time span in which an AU is coded; `where` is its location in a file."""

    start: float
    end: float
    where: str


_FAR = 2.0**53
"""A bound of frame numbers, above every real one, which prevents overflow for a time such as 1e308."""


@dataclass(frozen=True)
class Clock:
    """The conversion of an event's times to frames of a video.

    In seconds, an event lasts from `start` until just before `end`, rounded to frames, and at least one frame. In frames,
    `start` and `end` are the first and the last frame of the event.

    Attributes:
        unit: the unit of starts and ends.
        first_frame: the number of the first frame, for the unit frames.
        fps: frames per second, for the unit seconds; None: that of the video's header.
        offset: seconds to add to every time.
    """

    unit: Unit = "seconds"
    first_frame: int = 0
    fps: float | None = None
    offset: float = 0.0

    def rate(self, media: Media) -> float:
        """Return the frame rate, frames per second.

        Raises:
            DataError: the unit is seconds, and neither `fps` nor the header of the movie has a frame rate.
        """
        fps = self.fps or media.header.fps
        if self.unit == "seconds" and not fps:
            raise DataError("no frame rate in the header of the movie", where=media.path, todo="add --fps")
        return fps

    def span(self, start: float, end: float, fps: float) -> tuple[int, int]:
        """Return the first frame of a time span, and the frame after its last, 0-based."""
        if self.unit == "frames":
            return int(start) - self.first_frame, int(end) - self.first_frame + 1
        frames = ((time + self.offset) * fps + 0.5 for time in (start, end))
        first, stop = (math.floor(min(max(frame, -_FAR), _FAR)) for frame in frames)
        return first, max(stop, first + 1)


@dataclass(frozen=True)
class EventLabels:
    """The events of one video.

    Attributes:
        video: the name of the video in the data folder.
        media: the movie.
        events: the events.
        coded: the time spans in which each AU is coded; empty: the whole video.
        origin: the label file.
        subject: the person; empty if the file does not state it.
        intensities: whether the file states intensities.
    """

    video: str
    media: Media
    events: Sequence[CodedEvent]
    coded: Mapping[str, Sequence[Span]]
    origin: Path
    subject: str = ""
    intensities: bool = False


def label_frames(labels: EventLabels, clock: Clock, threshold: float, notes: Notes) -> Recording:
    """Return the recording of a video's events.

    Raises:
        DataError: an event ends before it starts, is outside the video, overlaps an event of the same AU with another
            intensity, or is in a time in which its AU is not coded.
    """
    frames, fps = _frames(labels.media), clock.rate(labels.media)
    for event in labels.events:
        frames = _check_event(event, labels.media, clock, frames)
    aus = tuple(labels.coded)
    intensity = np.full((frames, len(aus)), NOT_ANNOTATED, np.float32)
    occurrence = np.full((frames, len(aus)), NOT_ANNOTATED, np.int8)
    for k, (au, spans) in enumerate(labels.coded.items()):
        for start, stop in [clock.span(s.start, s.end, fps) for s in spans] or [(0, frames)]:
            intensity[start:stop, k], occurrence[start:stop, k] = 0, 0
        events = sorted((e for e in labels.events if e.au == au), key=lambda e: e.start)
        _check_overlaps(events, clock, labels.video, notes)
        for event in events:
            start, stop = clock.span(event.start, event.end, fps)
            if (occurrence[start:stop, k] == NOT_ANNOTATED).any():
                got = f"{au} at {event.start:g} to {event.end:g} {clock.unit}"
                raise DataError("an event in a time in which its AU is not coded", where=event.where, got=got)
            intensity[start:stop, k] = NOT_ANNOTATED if np.isnan(event.intensity) else event.intensity
            occurrence[start:stop, k] = not event.intensity < threshold
        for event in events:
            start, stop = clock.span(event.start, event.end, fps)
            level = NOT_ANNOTATED if np.isnan(event.intensity) else event.intensity
            if not (intensity[start:stop, k] == level).any():
                example = f"{labels.video} {au} at {event.start:g}"
                notes.add("events of less than a frame, left out for the next event in that frame", example)
    stated = intensity if labels.intensities else None
    return Recording(labels.video, labels.media, aus, occurrence, stated, labels.origin, labels.subject)


def code_everywhere(aus: Sequence[str]) -> dict[str, tuple[Span, ...]]:
    """Return the coded times for AUs that are coded in the whole video."""
    return dict.fromkeys(aus, ())


def _frames(media: Media) -> int:
    """Return the number of frames of a movie, by decoding the movie if the header does not state it."""
    frames = media.header.frames or count_frames(media.path, media.header)
    if not frames:
        raise DataError("no frame of the movie can be decoded", where=media.path)
    return frames


def _check_event(event: CodedEvent, media: Media, clock: Clock, frames: int) -> int:
    """Check that an event is within its video.

    Returns:
        The number of frames of the video, counted by decoding if the event is not within the number in the header.

    Raises:
        DataError: the event is not within the video, or its times are not valid.
    """
    unit = clock.unit
    if event.end < event.start:
        got = f"{event.start:g} to {event.end:g} {unit}"
        raise DataError("an event ends before it starts", where=event.where, got=got)
    if unit == "frames" and (event.start % 1 or event.end % 1):
        todo = "add --unit seconds"
        raise DataError(
            "not the number of a frame", where=event.where, got=f"{event.start:g} to {event.end:g}", todo=todo
        )
    fps = clock.rate(media)
    start, stop = clock.span(event.start, event.end, fps)
    tolerance = 1 if unit == "seconds" else 0  # the end of the last frame, rounded up
    if start >= 0 and stop > frames + tolerance:
        frames = count_frames(media.path, media.header)
    if start < 0 or start >= frames or stop > frames + tolerance:
        first = clock.first_frame
        length = f"{frames / fps:.3f} seconds" if unit == "seconds" else f"frames {first} to {frames + first - 1}"
        todo = "add --first-frame 1 if frames are counted from 1" if unit == "frames" and not first else "check --unit"
        got = f"{event.start:g} to {event.end:g} {unit}"
        raise DataError(
            "an event outside of its video", where=event.where, got=got, expected=f"{length} of {media.path}", todo=todo
        )
    return frames


def _check_overlaps(events: Sequence[CodedEvent], clock: Clock, video: str, notes: Notes) -> None:
    """Note overlapping events of an AU; raise a DataError if their intensities differ.

    Args:
        events: the events of one AU, sorted by start.
    """
    last: CodedEvent | None = None
    for event in events:
        gap = event.start - last.end if last else 1.0
        if last and (gap < 0 or (clock.unit == "frames" and gap == 0)):
            if not np.array_equal(last.intensity, event.intensity, equal_nan=True):
                raise DataError(
                    f"overlapping events of {event.au} with different intensities",
                    where=event.where,
                    got=f"{event.start:g} to {event.end:g} {clock.unit}",
                    expected=f"no event that overlaps with {last.start:g} to {last.end:g} of {last.where}",
                )
            notes.add("overlapping events of an AU, merged", f"{video} {event.au} at {event.start:g}")
        last = event if last is None or event.end >= last.end else last

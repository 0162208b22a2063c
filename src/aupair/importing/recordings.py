"""Recordings with their labels, and notes about irregularities of an import."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data.layout import Header
from aupair.errors import DataError


class Media(NamedTuple):
    """The visual data of a recording: a movie, numbered images that become a movie, or a folder of crops."""

    path: Path
    header: Header
    kind: Literal["movie", "images", "crops"] = "movie"


@dataclass(frozen=True)
class Recording:
    """A labelled video.

    Attributes:
        video: the name of the video in the data folder.
        media: the movie, images or crops.
        aus: the A AUs that are coded in the video.
        occurrence: (N, A) int8, row k is frame k: 0, 1, or -1 if not labelled.
        intensity: (N, A) float32, 0 to 5, or -1 if not labelled; None without intensities.
        origin: the file or folder of the labels.
        subject: the person; empty if the data set does not state it.
        official: the official set, `train` or `validation`; empty if there is none.
        movie: the name of the movie in the data folder, if it differs from that of the video.
        rows: the number of rows of each label file, to compare with the frames of the video; empty: that of `occurrence`.
    """

    video: str
    media: Media
    aus: tuple[str, ...]
    occurrence: np.ndarray
    intensity: np.ndarray | None
    origin: Path
    subject: str = ""
    official: str = ""
    movie: str = ""
    rows: Mapping[Path, int] = field(default_factory=dict)

    def rows_by_file(self) -> dict[Path, int]:
        """Return the number of rows of each label file."""
        return dict(self.rows) or {self.origin: len(self.occurrence)}


@dataclass
class Notes:
    """Irregularities that do not stop an import, with all examples of each."""

    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, *examples: str) -> None:
        """Add examples of an irregularity; without an example, add nothing."""
        if examples:
            self.examples.setdefault(reason, []).extend(examples)

    def lines(self, most: int = 3) -> list[str]:
        """Return a line for each irregularity: its count, its description and the first examples."""
        return [
            f"{len(all_):,} {reason}: {', '.join(all_[:most])}{' ...' if len(all_) > most else ''}"
            for reason, all_ in self.examples.items()
        ]


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a key that sorts AU2 before AU12."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if k % 2 else part for k, part in enumerate(parts))


def unite_aus(recordings: Sequence[Recording]) -> tuple[tuple[str, ...], list[Recording]]:
    """Extend all recordings to the same AUs; an AU that is not coded in a recording is not labelled in it.

    Returns:
        The AUs, in the order of the recordings if that is the same for all, else in natural order; and the recordings.

    Raises:
        DataError: two AUs differ only in case or in zeros before a number.
    """
    different = dict.fromkeys(r.aus for r in recordings)
    aus = tuple(dict.fromkeys(au for part in different for au in part))
    if len(different) > 1:
        aus = tuple(sorted(aus, key=natural_key))
    spelling: dict[tuple[str | int, ...], str] = {}
    for au in aus:
        other = spelling.setdefault(natural_key(au.lower()), au)
        if other != au:
            origins = dict.fromkeys(next(str(r.origin) for r in recordings if name in r.aus) for name in (other, au))
            got, todo = f"{other} and {au}", "rename one of them"
            raise DataError("two spellings of an AU's name", where=" and ".join(origins), got=got, todo=todo)
    return aus, [_with_aus(recording, aus) for recording in recordings]


def merge_recordings(recordings: Iterable[Recording]) -> list[Recording]:
    """Merge the recordings of a video whose AUs are coded in several files; recordings with a common AU are not merged."""
    merged: dict[str, list[Recording]] = {}
    for recording in recordings:
        same, own = merged.setdefault(recording.video, []), {au.lower() for au in recording.aus}
        media = recording.media.path
        fitting = (
            k
            for k, other in enumerate(same)
            if other.media.path == media and own.isdisjoint(au.lower() for au in other.aus)
        )
        k = next(fitting, len(same))
        same[k:] = [_merge(same[k], recording) if k < len(same) else recording, *same[k + 1 :]]
    return [recording for same in merged.values() for recording in same]


def _merge(one: Recording, other: Recording) -> Recording:
    """Merge two recordings of a video with different AUs; rows that one of them lacks are not labelled for its AUs.

    Raises:
        DataError: the recordings have different subjects.
    """
    aus, rows = one.aus + other.aus, max(len(one.occurrence), len(other.occurrence))

    def fill(result: np.ndarray, left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray:
        if left is not None:
            result[: len(left), : len(one.aus)] = left
        if right is not None:
            result[: len(right), len(one.aus) :] = right
        return result

    blank = np.full((rows, len(aus)), NOT_ANNOTATED)
    occurrence = fill(blank.astype(np.int8), one.occurrence, other.occurrence)
    stated = one.intensity is not None or other.intensity is not None
    intensity = fill(blank.astype(np.float32), one.intensity, other.intensity) if stated else None
    subject = one.subject or other.subject
    if other.subject not in ("", subject):
        where, got = f"{one.origin} and {other.origin}", f"{subject} and {other.subject} in {one.video}"
        raise DataError("two files name different subjects", where=where, got=got, expected="one person")
    files = one.rows_by_file() | other.rows_by_file()
    return replace(one, aus=aus, occurrence=occurrence, intensity=intensity, subject=subject, rows=files)


def check_names(recordings: Iterable[Recording]) -> None:
    """Raise a DataError if two recordings have the same name, ignoring case, as some file systems do."""
    first: dict[str, Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.video.lower(), recording)
        if other is not recording:
            got = f"{recording.video}: {other.origin}, {recording.origin}"
            raise DataError("a video is labelled twice", got=got, expected="one", todo="remove or merge one of them")


def _with_aus(recording: Recording, aus: tuple[str, ...]) -> Recording:
    """Return a recording with the columns of `aus`, which contain its own AUs; further AUs are not labelled."""
    if recording.aus == aus:
        return recording
    at = [aus.index(au) for au in recording.aus]

    def spread(values: np.ndarray) -> np.ndarray:
        result = np.full((len(values), len(aus)), NOT_ANNOTATED, values.dtype)
        result[:, at] = values
        return result

    intensity = None if recording.intensity is None else spread(recording.intensity)
    return replace(recording, aus=aus, occurrence=spread(recording.occurrence), intensity=intensity)

"""The kind `elan`: ELAN's .eaf files, in which the tier of an AU has an annotation for each event.

The text of an annotation is empty, the name of the AU, or the intensity, from 1 to 5 or A to E.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from aupair.aus import check_au_names
from aupair.data.layout import EXTENSIONS
from aupair.errors import DataError
from aupair.importing.events import LEVELS, Clock, CodedEvent, EventLabels, Span, label_frames
from aupair.importing.framewise import check_threshold
from aupair.importing.movies import Movies
from aupair.importing.recordings import Media, Notes, Recording, merge_recordings, natural_key
from aupair.importing.subjects import with_subjects

_AU_TIER = re.compile(r"AU\d+[A-Za-z]?")
"""The names of tiers that are read by default."""


@dataclass(frozen=True)
class ElanOptions:
    """Options of an import of .eaf files.

    Attributes:
        tiers: the AU of each tier to read; empty: those whose names are AUs.
        ignore_text: whether every annotation is an event without an intensity, whatever its text.
        videos: the folder of the movies; by default the movies that the files link to, or that are beside them.
        fps: frames per second; None: that of each video's header.
        threshold: the intensity from which an AU counts as active.
        subjects: a table video,subject.
        allow_missing: whether to omit files without a movie instead of raising an error.
    """

    tiers: Mapping[str, str]
    ignore_text: bool = False
    videos: Path | None = None
    fps: float | None = None
    threshold: float = 1.0
    subjects: Path | None = None
    allow_missing: bool = False


def parse_tiers(arguments: Sequence[str]) -> dict[str, str]:
    """Return the AU of each tier from arguments `AU=TIER`, or `AU` for a tier with the name of its AU.

    Raises:
        DataError: an AU or a tier is named twice, or the name of an AU is not valid.
    """
    pairs = [(tier.strip() or au.strip(), au.strip()) for au, _, tier in (text.partition("=") for text in arguments)]
    tiers = dict(pairs)
    if pairs:
        check_au_names([au for _, au in pairs], "--tier")
    if len(tiers) < len(pairs):
        raise DataError("a tier is named twice", where="--tier", got=", ".join(arguments))
    return tiers


def read_elan(source: Path, options: ElanOptions, out: Path, notes: Notes) -> list[Recording]:
    """Read one .eaf file, or all below a folder; an AU is coded in the whole video if the file has its tier.

    Raises:
        DataError: a file cannot be read, lacks the tiers, has a wrong annotation, or no movie.
    """
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() == ".eaf")
    if not paths:
        raise DataError("no ELAN files", where=source, expected="<video>.eaf")
    check_threshold(options.threshold)
    movies = Movies(options.videos or (source if source.is_dir() else source.parent), out)
    labels, others = [], Counter[str]()
    for path in paths:
        eaf = _parse(path)
        tiers = _choose_tiers(eaf, path, options.tiers)
        others.update(name for name in eaf.get_tier_names() if name not in tiers)
        media, offset = _find_media(eaf, path, movies, options, notes)
        if media:
            labels.append((_event_labels(eaf, path, tiers, media, options), offset))
    stated = any(not np.isnan(event.intensity) for part, _ in labels for event in part.events)
    recordings = [
        label_frames(part, Clock(fps=options.fps, offset=offset), options.threshold, notes) for part, offset in labels
    ]
    if not stated:
        recordings = [replace(recording, intensity=None) for recording in recordings]
    notes.add("other tiers, left out", *(f"{name} ({count} files)" for name, count in others.items()))
    if options.videos or source.is_dir():
        notes.add("videos without labels, left out", *movies.unused())
    recordings = merge_recordings(recordings)
    return with_subjects(recordings, options.subjects, movies, notes) if options.subjects else recordings


def _parse(path: Path) -> Any:
    """Parse an .eaf file with pympi.

    Raises:
        DataError: the file is not a valid .eaf file.
    """
    from pympi import Eaf

    try:
        return Eaf(str(path), suppress_version_warning=True)
    except Exception as error:  # pympi does not wrap the errors of parsing: Exception, KeyError, ValueError
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError("not a readable ELAN file", where=path, got=reason, expected="an .eaf of ELAN") from error


def _choose_tiers(eaf: Any, path: Path, tiers: Mapping[str, str]) -> dict[str, str]:
    """Return the AU of each tier to read in a file.

    Raises:
        DataError: the file has no such tier.
    """
    names = list(eaf.get_tier_names())
    chosen = {name: tiers[name] for name in names if name in tiers}
    if not tiers:
        chosen = {name: name for name in names if _AU_TIER.fullmatch(name)}
    if not chosen:
        expected = ", ".join(tiers) if tiers else "names such as AU12"
        todo = "name the tiers by --tier AU12=TIER"
        raise DataError("no tier of an AU", where=path, got=", ".join(names) or "no tier", expected=expected, todo=todo)
    check_au_names(list(chosen.values()), path)
    return chosen


def _event_labels(eaf: Any, path: Path, tiers: Mapping[str, str], media: Media, options: ElanOptions) -> EventLabels:
    """Return the events of a file."""
    events = [event for tier, au in tiers.items() for event in _events(eaf, path, tier, au, options.ignore_text)]
    coded: dict[str, tuple[Span, ...]] = dict.fromkeys(sorted(tiers.values(), key=natural_key), ())
    subject = _participant(eaf, path, tiers)
    return EventLabels(media.path.stem, media, events, coded, path, subject, intensities=True)


def _annotations(eaf: Any, path: Path, tier: str) -> list[Any]:
    """Return start, end and text of each annotation of a tier.

    Raises:
        DataError: an annotation refers to a time slot or an annotation that the file does not contain.
    """
    try:
        return list(eaf.get_annotation_data_for_tier(tier))
    except KeyError as error:
        got = f"no time slot or annotation {error}"
        raise DataError("not a readable ELAN file", where=f"{path} tier {tier}", got=got) from error


def _events(eaf: Any, path: Path, tier: str, au: str, ignore_text: bool) -> Iterator[CodedEvent]:
    """Yield the annotations of a tier, with times in seconds.

    Raises:
        DataError: an annotation has no time, or its text is not an intensity.
    """
    for start, end, text, *_ in _annotations(eaf, path, tier):
        if start is None or end is None:
            todo = "set its times in ELAN"
            raise DataError(
                "an annotation without a time", where=f"{path} tier {tier}", got=text or "no text", todo=todo
            )
        where = f"{path} tier {tier} at {start / 1000:g} s"
        value = text.strip()
        level = LEVELS.get(value.upper(), value)
        if ignore_text or value in ("", au, tier):
            level = "nan"
        elif level not in LEVELS.values():
            todo = "correct it, or add --ignore-text"
            raise DataError(
                "not an intensity", where=where, got=value[:60], expected="1 to 5, A to E, or no text", todo=todo
            )
        yield CodedEvent(au, start / 1000, end / 1000, float(level), where)


def _participant(eaf: Any, path: Path, tiers: Mapping[str, str]) -> str:
    """Return the participant of the tiers; empty if none is stated.

    Raises:
        DataError: the tiers have different participants.
    """
    names = {tier: eaf.tiers[tier][2].get("PARTICIPANT", "").strip() for tier in tiers}
    participants = sorted(set(names.values()) - {""})
    if len(participants) > 1:
        todo = "choose the tiers of one person by --tier"
        raise DataError("tiers of two participants", where=path, got=", ".join(participants), expected="one", todo=todo)
    return participants[0] if participants else ""


def _find_media(eaf: Any, path: Path, movies: Movies, options: ElanOptions, notes: Notes) -> tuple[Media | None, float]:
    """Return the movie of a file, and the seconds to add to ELAN's times; None without a movie, if `allow_missing` is set.

    Raises:
        DataError: the file has no movie, or it cannot be opened, and `allow_missing` is not set.
    """
    linked = [media for media in eaf.media_descriptors if Path(_url_path(media)).suffix.lower() in EXTENSIONS]
    if len(linked) > 1:
        notes.add("files with several movies, the first is used", str(path))
    first = linked[0] if linked else {}
    movie = _locate(first, path, movies, options.videos is None)
    media = movies.open(movie) if movie else None
    if media:
        return media, int(first.get("TIME_ORIGIN", 0)) / 1000
    what = "the movie cannot be opened" if movie else "labels without a video"
    if not options.allow_missing:
        expected = Path(_url_path(first)).name if first else f"{path.stem}.mp4"
        todo = "name the folder of the movies by --videos, or omit such files by --allow-missing"
        raise DataError(what, where=path, got=movie or "no movie", expected=expected, todo=todo)
    notes.add(f"labelled videos left out: {what}", str(path))
    return None, 0.0


def _locate(linked: Mapping[str, str], path: Path, movies: Movies, follow_links: bool) -> Path | None:
    """Return the movie that a file links to, or the movie with the name of the file; None if there is none.

    A linked movie is searched at its relative path, at its absolute path, and by its name in the folder of movies.
    """
    if linked and follow_links:
        relative = unquote(linked.get("RELATIVE_MEDIA_URL", "")).replace("\\", "/").removeprefix("file:")
        for place in (path.parent / relative if relative else None, Path(_url_path(linked))):
            if place is not None and place.is_file():
                return place
    named = movies.find(Path(_url_path(linked)).name) if linked else None
    return named or movies.find(path.stem)


def _url_path(linked: Mapping[str, str]) -> str:
    """Return the path in the URL of a linked file."""
    url = linked.get("MEDIA_URL") or linked.get("RELATIVE_MEDIA_URL", "")
    return unquote(urlsplit(url).path) if url.startswith("file:") else url.replace("\\", "/")

"""Intensity levels, the labels if `target: intensity` is set: level = floor(intensity), 0..5."""

from pathlib import Path

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data import sheets as sh
from aupair.data import splits as sp
from aupair.errors import DataError

TOP = 5
"""The highest level."""


def level_sheets(
    occurrences: sh.Sheets, intensities: sh.Sheets | None, annotations: Path
) -> tuple[sh.Sheets, sh.Sheets]:
    """Return occurrences and levels, both (N, A) int16, of the AUs that have both, in the order of the occurrences.

    Args:
        intensities: None if there are no intensity files; values are not checked here.
        annotations: the folder that contains both sets.

    Raises:
        DataError: there are no intensities, a video has none or another number of rows than its occurrences, or no AU
            has both.
    """
    todo = "or set target: occurrence"
    if intensities is None:
        expected = "intensity/<video>.csv, or those of Aff-Wild2: AU_Intensity_Set/Train_Set/<video>.txt"
        raise DataError("no intensities", where=annotations, expected=expected, todo=f"put them there, {todo}")
    index_of = {annotation.video: k for k, annotation in enumerate(intensities.annotations)}
    missing = [annotation for annotation in occurrences.annotations if annotation.video not in index_of]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        got = f"no intensities of {missing[0].video}{more}"
        raise DataError("a labelled video has no intensities", where=missing[0].path, got=got, todo=f"add them, {todo}")
    order = [index_of[annotation.video] for annotation in occurrences.annotations]
    for annotation, rows, k in zip(occurrences.annotations, occurrences.lengths, order):
        if rows != intensities.lengths[k]:
            raise DataError(
                "the intensity and occurrence files differ in length",
                where=intensities.annotations[k].path,
                got=f"{intensities.lengths[k]} rows",
                expected=f"{rows}, as in {annotation.path}",
                todo=f"correct one of them, {todo}",
            )
    aus = tuple(au for au in occurrences.aus if au in intensities.aus)
    if not aus:
        got, expected = ",".join(intensities.aus), f"some of {','.join(occurrences.aus)}"
        raise DataError("no AU has occurrences and intensities", where=annotations, got=got, expected=expected)
    edges, columns = intensities.edges, [intensities.aus.index(au) for au in aus]
    values = np.concatenate([intensities.values[edges[k] : edges[k + 1], columns] for k in order])
    levels = np.floor(np.clip(values, NOT_ANNOTATED, TOP)).astype(np.int16)
    files = tuple(intensities.annotations[k] for k in order)
    return occurrences.select(aus), sh.Sheets(files, aus, occurrences.edges, levels)


def level_warnings(occurrences: sh.Sheets, levels: sh.Sheets, rows: list[sp.SplitRow]) -> list[str]:
    """Return warnings about cells in which occurrence and level disagree, and about levels that cannot be learned."""
    both = occurrences.labelled & levels.labelled
    differ = both & ((occurrences.values >= 1) != (levels.values >= 1))
    lines = []
    if differ.any():
        row, au = (int(k) for k in np.argwhere(differ)[0])
        video, frame = levels.annotations[levels.video[row]].video, int(levels.frame[row])
        example = f"{levels.aus[au]} in frame {frame} of {video}: {occurrences.values[row, au]} but level {levels.values[row, au]}"
        lines.append(
            f"occurrence and intensity disagree in {int(differ.sum()):,} of {int(both.sum()):,} cells, "
            f"the level counts; {example}"
        )
    if (one_sided := int((occurrences.labelled != levels.labelled).any(axis=1).sum())) > 0:
        lines.append(
            f"{one_sided:,} of {len(both):,} label rows have only an occurrence or only an intensity for some AU, "
            "intensity counts"
        )
    missing = _missing_levels(levels, rows)
    return lines + ([f"levels without a frame in fit: {', '.join(missing)}"] if missing else [])


def _missing_levels(levels: sh.Sheets, rows: list[sp.SplitRow]) -> list[str]:
    """Return the levels up to TOP that no annotated frame of fit has, by AU."""
    fit = {row.video for row in rows if row.split == "fit"}
    of_fit = np.array([annotation.video in fit for annotation in levels.annotations], bool)[levels.video]
    missing = [sorted({*range(TOP + 1)} - {*np.unique(column).tolist()}) for column in levels.values[of_fit].T]
    return [f"{au} ({' '.join(map(str, numbers))})" for au, numbers in zip(levels.aus, missing) if numbers]

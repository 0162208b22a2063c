"""Action Units (AUs): their names, the label of a missing annotation, and the data splits.

The AUs of a data set are those of its annotations, in the same order. Every artifact that depends on them stores their names.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aupair.errors import DataError

AFFWILD2: tuple[str, ...] = (
    "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26",
)  # fmt: skip
"""The 12 AUs of Aff-Wild2 (ABAW 2021): those of the demo corpus, and of files written before AUs were stored in them."""

NAMES: dict[str, str] = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU8": "lips toward each other",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU13": "sharp lip puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU19": "tongue show",
    "AU20": "lip stretcher",
    "AU21": "neck tightener",
    "AU22": "lip funneler",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU27": "mouth stretch",
    "AU28": "lip suck",
    "AU29": "jaw thrust",
    "AU30": "jaw sideways",
    "AU31": "jaw clencher",
    "AU32": "lip bite",
    "AU33": "cheek blow",
    "AU34": "cheek puff",
    "AU35": "cheek suck",
    "AU36": "tongue bulge",
    "AU37": "lip wipe",
    "AU38": "nostril dilator",
    "AU39": "nostril compressor",
    "AU41": "lid droop",
    "AU42": "slit",
    "AU43": "eyes closed",
    "AU44": "squint",
    "AU45": "blink",
    "AU46": "wink",
}
"""The name of each AU in the Facial Action Coding System."""

_SIDES = {"L": "left", "R": "right"}
_SIDE_IN_NAME = re.compile(r"Left|Right|(?i:(?<![a-z])(left|right)(?![a-z]))")
_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
_RESERVED = frozenset({
    "video", "subject", "split", "frame", "time", "status", "start", "end", "au", "aus", "intensity", "file", "line",
    "covered", "yaw", "trial", "trials", "target", "levels", "protocol", "thresholds", "tie", "comparisons", "route",
    "p1", "p2",
})  # fmt: skip
"""Names that an AU cannot have, since they are columns or keys of files in which AUs are columns or keys, too."""

NOT_ANNOTATED = -1
"""The label of an AU in a frame where it is not annotated."""

SPLITS: tuple[str, ...] = ("fit", "select", "validation")
"""Networks are trained on `fit`, all choices are made on `select`, and `validation` is used only to report scores."""


def describe_au(name: str) -> str:
    """Return the name of an AU in the Facial Action Coding System, with its side for `AU12L` or `AU12R`; else ""."""
    if name in NAMES:
        return NAMES[name]
    whole, side = name[:-1], _SIDES.get(name[-1:], "")
    return f"{NAMES[whole]}, {side}" if side and whole in NAMES else ""


def is_one_sided(name: str) -> bool:
    """Return whether an AU belongs to one side of the face, such as `AU12L` or `wink-right`; mirroring a face changes it."""
    return describe_au(name) != NAMES.get(name, "") or _SIDE_IN_NAME.search(name) is not None


def label_au(name: str) -> str:
    """Return the name of an AU followed by its description, such as `AU12 lip corner puller`, for a heading."""
    return f"{name} {describe_au(name)}".strip()


def compare_aus(aus: Collection[str], others: Collection[str]) -> str:
    """Return the difference between two lists of AUs as text; "" if they are equal, also in their order."""
    missing, added = ([au for au in a if au not in b] for a, b in ((others, aus), (aus, others)))
    parts = [f"{word} {', '.join(names)}" for word, names in (("without", missing), ("also", added)) if names]
    return " and ".join(parts) or ("" if list(aus) == list(others) else "in another order")


def check_au_names(names: Sequence[str], where: object) -> None:
    """Check that all names are valid names of AUs.

    Raises:
        DataError: there is no name, a name is malformed or reserved, or two names differ only in case.
    """
    if not names:
        raise DataError("no AU", where=where, expected="names such as AU1,AU2,AU12L")
    lower: dict[str, str] = {}
    for name in names:
        if not _PATTERN.fullmatch(name):
            got = name[:60] if name.isascii() and name.isprintable() else ascii(name[:40])
            expected = "a letter, then letters, digits or hyphens, 40 at most"
            raise DataError("not the name of an AU", where=where, got=got or "nothing", expected=expected)
        if name.lower() in _RESERVED:
            raise DataError("a reserved word as the name of an AU", where=where, got=name, expected="another name")
        if name.lower() in lower:
            got = name if lower[name.lower()] == name else f"{lower[name.lower()]} and {name}"
            raise DataError("an AU is named twice", where=where, got=got, expected="each AU once")
        lower[name.lower()] = name


def stored_aus(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the AUs stored in the content of a JSON file; those of Aff-Wild2 for a file written before AUs were stored."""
    return tuple(tree.get("aus", AFFWILD2))

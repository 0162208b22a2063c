"""ELAN files that tests write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pympi import Eaf

Annotations = Sequence[tuple[int, int, str]]
"""Start and end in milliseconds, and the text."""


def write_eaf(path: Path, tiers: Mapping[str, Annotations], media: str = "", participant: str = "") -> Path:
    """Write the annotations of each tier, and a link to a movie."""
    eaf = Eaf()
    eaf.remove_tier("default")
    for tier, annotations in tiers.items():
        eaf.add_tier(tier, part=participant or None)
        for start, end, value in annotations:
            eaf.add_annotation(tier, start, end, value)
    if media:
        eaf.add_linked_file(f"file:///C:/Users/Ann/{Path(media).name}", relpath=media, mimetype="video/mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    eaf.to_file(str(path))
    return path

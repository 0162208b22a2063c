"""The file summary.csv of `aupair predict`, with the result of each video."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from aupair import store
from aupair.errors import ArtifactError

SUMMARY = "summary"


@dataclass(frozen=True)
class Summary:
    """A row of summary.csv: the result of one video.

    Attributes:
        video: its path as given.
        status: ok | no_face (in no frame) | empty | unreadable | too_large (more than MAX_PIXELS a frame) | crashed (its
            process died, or a library failed at it; it is tried again).
        frames: the number of decoded frames.
        faces: the number of frames with a face.
        message: why the video is not ok, or that it is shorter than its header states.
        output: the name of its table and its picture, without suffix; empty if there are none.
        differs: the groups of signals in which it differs from the training videos, with the distance as a multiple of
            the limit, such as `appearance x2.41`; the confidence is not calibrated there. Empty if it does not differ.
    """

    video: str
    status: str
    frames: int
    faces: int
    message: str = ""
    output: str = ""
    differs: str = ""


def write_summary(path: Path, rows: Sequence[Summary]) -> None:
    """Write the results of videos as summary.csv."""
    with store.atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Summary)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_summary(path: Path) -> list[Summary]:
    """Read a summary.csv.

    Raises:
        ArtifactError: the file is not a summary that predict wrote.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if any("\0" in (row["video"] or "") for row in rows):
            raise ValueError("a video's path with a zero byte")
        return [
            Summary(
                row["video"], row["status"], int(row["frames"]), int(row["faces"]), row["message"], row["output"],
                row.get("differs", ""),  # an older version wrote no such column
            )
            for row in rows
        ]  # fmt: skip
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        expected = ",".join(field.name for field in fields(Summary))
        raise ArtifactError("not a summary", where=path, got=error, expected=expected, todo="predict again") from error


def describe_differences(rows: Sequence[Summary], training: str) -> str:
    """Return a line on the videos that differ from the training videos; "" if none does.

    Args:
        training: a description of the training videos, see `describe_training`.
    """
    differing = [row for row in rows if row.differs]
    if not differing:
        return ""
    groups = ", ".join(dict.fromkeys(part.rpartition(" ")[0] for row in differing for part in row.differs.split(", ")))
    videos = f"{len(differing)} of {len(rows)} videos" if len(rows) > 1 else "the video"
    verb = "differ" if len(differing) > 1 else "differs"
    return f"{videos} {verb} from {training} ({groups}): the confidence is not calibrated there"


def describe_training(synthetic: bool) -> str:
    """Return a description of the training videos."""
    return (
        "the synthetic faces that the model was trained on" if synthetic else "the videos that the model was trained on"
    )

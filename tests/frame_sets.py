"""Frames of made-up videos, which many tests share."""

from collections.abc import Sequence

import numpy as np

from aupair.aus import AFFWILD2
from aupair.data.frames import Frames


def make_frames(
    split: Sequence[int] | np.ndarray,
    labels: np.ndarray,
    subject: Sequence[int] | np.ndarray | None = None,
    ok: np.ndarray | None = None,
    *,
    lengths: Sequence[int] | np.ndarray | None = None,
    fps: float = 25.0,
    aus: Sequence[str] | None = None,
) -> Frames:
    """Return the frames of videos v0, v1 ...

    Args:
        split: of each video, an index into SPLITS.
        labels: (n, A) of all frames.
        subject: the person of each video; None: each shows another person.
        ok: (n,) bool, whether there is a face; None: in every frame.
        lengths: the number of frames of each video; None: all are of one length.
        aus: names of the AUs; None: those of Aff-Wild2 for twelve of them, else AU1, AU2 ...
    """
    if aus is None:
        aus = AFFWILD2 if labels.shape[1] == len(AFFWILD2) else [f"AU{k}" for k in range(1, labels.shape[1] + 1)]
    videos, n = len(split), len(labels)
    lengths = [n // videos] * videos if lengths is None else lengths
    video = np.repeat(np.arange(videos, dtype=np.int32), lengths)
    frame = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    people = np.arange(videos, dtype=np.int32) if subject is None else np.array(subject, np.int32)
    return Frames(
        tuple(aus), tuple(f"v{v}" for v in range(videos)), tuple(f"s{s}" for s in range(int(people.max()) + 1)), video,
        people[video], np.array(split, np.int8)[video], frame, frame / fps, np.ones(n, bool) if ok is None else ok,
        labels.astype(np.int8),
    )  # fmt: skip

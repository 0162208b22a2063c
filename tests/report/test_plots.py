"""Which videos are worth showing."""

import numpy as np

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.report.plots import SECONDS, stretch, video_to_show, videos_to_show


def frames_of(activity: list[int], subjects: list[int], length: int = 10) -> Frames:
    """Videos of validation in which as many AUs come and go as `activity` says."""
    labels = np.zeros((len(activity) * length, len(AUS)), np.int8)
    for video, changing in enumerate(activity):
        labels[video * length + 3 : video * length + 6, :changing] = 1
    video = np.repeat(np.arange(len(activity), dtype=np.int32), length)
    return Frames(
        videos=tuple(f"v{k}" for k in range(len(activity))), subjects=("a", "b", "c"), video=video,
        subject=np.array(subjects, np.int32)[video], split=np.full(len(video), 2, np.int8),
        frame=np.tile(np.arange(length, dtype=np.int32), len(activity)),
        time=np.tile(np.arange(length) / 2.0, len(activity)), ok=np.ones(len(video), bool), labels=labels,
    )  # fmt: skip


def test_the_second_video_shown_is_of_another_person() -> None:
    frames = frames_of([2, 9, 8, 3], subjects=[0, 1, 1, 2])
    assert video_to_show(frames) == 1
    assert videos_to_show(frames, count=3) == [1, 3, 0]
    assert videos_to_show(frames, count=4) == [1, 3, 0, 2], "of the same person where there is nobody else"
    assert videos_to_show(frames, count=9) == [1, 3, 0, 2]


def test_a_video_of_another_split_or_without_a_face_is_not_shown() -> None:
    frames = frames_of([2, 9, 8, 3], subjects=[0, 1, 1, 2])
    frames.split[frames.video == 1] = 0
    frames.ok[frames.video == 3] = False
    assert videos_to_show(frames, count=4) == [2, 0]


def test_the_stretch_of_a_long_video_holds_its_changes() -> None:
    frames = frames_of([5], subjects=[0], length=200)
    frames.labels[:] = 0
    frames.labels[150:160, :5] = 1
    rows = stretch(frames, slice(0, 200))
    assert rows.start <= 150
    assert rows.stop >= 160
    assert frames.time[rows][-1] - frames.time[rows][0] <= SECONDS

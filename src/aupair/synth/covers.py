"""Covers, objects that pass in front of a face, where they hide a part of it, or beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupair.synth.portrait import IOD, SIZE
from aupair.synth.script import Event
from aupair.synth.sprites import DRAW, ORIGIN, Sprite, choose_palette
from aupair.synth.subject import Subject

KINDS: dict[str, tuple[str, ...]] = {
    "fit": ("hand", "mug", "paper", "microphone", "strand", "cap"),
    "select": ("hand", "mug", "paper", "microphone", "strand", "cap", "phone"),
    "validation": ("hand", "mug", "paper", "microphone", "strand", "cap", "phone", "scarf", "glasses"),
}
"""Kinds of covers in each split: phones are not in fit, and scarves and glasses are in validation only."""
WORN = ("strand", "cap", "scarf", "glasses")
"""kinds that are worn on the head and turn with it; the others are carried by an arm"""
AIMS: dict[str, tuple[str, ...]] = {
    "hand": ("upper", "upper", "lower", "left", "right"),
    "mug": ("lower", "left", "right"),
    "paper": ("upper", "upper", "lower", "left", "right"),
    "microphone": ("lower", "left", "right"),
    "strand": ("left", "right"),
    "phone": ("upper", "lower", "left", "right"),
    "scarf": ("lower",),
    "cap": ("upper",),
    "glasses": ("upper",),
}
"""parts of the face that each kind hides; a part that is listed twice is chosen twice as often"""
_HELD = 4.0
"""length above which an expression counts as held, seconds; no cover accompanies it"""
BESIDE = 0.25
"""fraction of the passes that hide nothing"""
_UPPER = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU43")
"""AUs that the upper half of the face shows"""
HALF_WIDTH = {"hand": 0.8, "mug": 0.85, "paper": 0.9, "microphone": 0.5, "strand": 0.7, "phone": 0.6}
"""half the width of each kind, in IODs, with the arm upright"""


@dataclass(frozen=True)
class Pass:
    """A pass of an object, which enters the image, stays and leaves."""

    kind: str
    aim: str
    """upper | lower | left | right | beside"""
    start: float
    """seconds"""
    length: float
    """seconds"""
    angle: float
    """angle of the arm from upright, radians"""
    scale: float
    """relative size"""
    jitter: tuple[float, float]
    """x and y offset of the object from its aim, IODs"""
    side: int
    """side of a pass beside the face: -1 left, 1 right in the image"""
    sprite: Sprite

    def presence(self, time: float) -> float | None:
        """Return the position at `time`, from 0 (outside the image) to 1 (at its place); None before and after the pass."""
        inside = min(time - self.start, self.start + self.length - time)
        if inside < 0:
            return None
        return float(0.5 - 0.5 * np.cos(np.pi * min(1.0, inside / 0.2)))

    def overlaps(self, other: "Pass") -> bool:
        """Return whether two passes overlap in time."""
        return self.start < other.start + other.length and other.start < self.start + self.length


FROM = {"strand": -4.0, "cap": -3.2, "glasses": -3.2, "scarf": 3.2}
"""vertical start of each worn kind relative to its aim, IODs: above (-) or below (+)"""


def plan_passes(
    rng: np.random.Generator, seconds: float, split: str, subject: Subject, every: float = 1.8
) -> list[Pass]:
    """Plan the passes of a clip, one in each interval of about `every` seconds, independently of the expressions."""
    count = max(1, round(seconds / every))
    stretch = seconds / count
    return [_plan_pass(rng, k * stretch, stretch, split, subject) for k in range(count)]


def _plan_pass(rng: np.random.Generator, begin: float, stretch: float, split: str, subject: Subject) -> Pass:
    """Draw one random pass between `begin` and `begin + stretch`, seconds."""
    kind = str(rng.choice(KINDS[split]))
    aim = "beside" if rng.random() < BESIDE else str(rng.choice(AIMS[kind]))
    length = min(stretch, float(rng.uniform(0.85, 1.25)))
    return _draw_pass(rng, (kind, aim), (begin, stretch - length), length, subject)


def _draw_pass(
    rng: np.random.Generator, what: tuple[str, str], start: tuple[float, float], length: float, subject: Subject
) -> Pass:
    """Draw a random pass.

    Args:
        what: kind and aim.
        start: earliest start, and the maximum delay after it, seconds.
        length: seconds.
    """
    kind, aim = what
    tilt = 0.1 if kind in WORN else 0.3 if aim == "beside" else 1.2 if what == ("hand", "upper") else 0.9
    sprite = DRAW[kind](rng, choose_palette(rng, subject.skin, subject.hair))
    return Pass(
        kind=kind,
        aim=aim,
        start=start[0] + rng.uniform(0, start[1]),
        length=length,
        angle=float(rng.uniform(-tilt, tilt)),
        scale=float(rng.uniform(0.85, 1.1)),
        jitter=(float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.12, 0.12))),
        side=int(rng.choice([-1, 1])),
        sprite=sprite,
    )


def follow_expressions(
    rng: np.random.Generator,
    passes: Sequence[Pass],
    events: Sequence[Event],
    share: float,
    split: str,
    subject: Subject,
) -> list[Pass]:
    """Replace a fraction of the passes by passes that accompany an expression and last longer than it.

    They hide the half of the face that shows the expression, and most of them are hands. Other passes that overlap with them
    are removed.
    """
    brief = sorted((event for event in events if event.end - event.start < _HELD), key=lambda event: event.start)
    moved: list[Pass] = []
    rest: list[Pass] = []
    for one, moves in zip(passes, (rng.random(len(passes)) < share).tolist()):
        free = max([one.start - 1, *(other.start + other.length + 0.2 for other in moved)])
        event = next((event for event in brief if event.start > free), None) if moves else None
        if event is None:
            rest.append(one)
            continue
        aim = "upper" if event.au in _UPPER else "lower"
        kinds = [kind for kind in KINDS[split] if aim in AIMS[kind]]
        kind = "hand" if rng.random() < 0.6 else str(rng.choice(kinds))
        length = event.end - event.start + rng.uniform(0.3, 2.0)
        moved.append(_draw_pass(rng, (kind, aim), (event.start - 0.2, 0.3), length, subject))
    return sorted([*moved, *(one for one in rest if not any(map(one.overlaps, moved)))], key=lambda one: one.start)


def _placement(event: Pass, presence: float, points: np.ndarray) -> np.ndarray:
    """Return the transform that places the sprite in the frame: (2, 3), sprite pixels -> frame pixels.

    Args:
        points: (POINTS, 2), the control points of the face, which the sprite follows, pixels.
    """
    across = points[45] - points[36]
    roll = float(np.arctan2(across[1], across[0]))
    angle, scale = event.angle, event.scale
    if event.kind in WORN:
        angle, scale = event.angle + roll, 1.0
    target, start = _target(event, points), np.array([-np.sin(angle), np.cos(angle)]) * 4.2 * IOD
    if event.kind in WORN:
        start = np.array([0, FROM[event.kind] * IOD])
    x, y = target + (1 - presence) * start
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    u, v = ORIGIN
    return np.array([[c, -s, x - c * u + s * v], [s, c, y - s * u - c * v]])


def _target(event: Pass, points: np.ndarray) -> np.ndarray:
    """Return the position at which the object stays: (2,) pixels."""
    eyes, lips = points[36:48].mean(0), points[48:68].mean(0)
    jitter = IOD * np.array(event.jitter)
    if event.aim != "beside":
        parts = {
            "upper": eyes - (0, 0.25 * IOD) if event.kind != "glasses" else eyes,
            "lower": lips,
            "left": (points[36] + points[48]) / 2 - (0.15 * IOD, 0),
            "right": (points[45] + points[54]) / 2 + (0.15 * IOD, 0),
        }
        return parts[event.aim] + (jitter if event.kind not in WORN else jitter / 2)
    if event.kind == "scarf":  # around the neck
        return points[8] + (0, 0.75 * IOD)
    if event.kind in ("glasses", "cap"):  # on the hair
        return eyes - (0, 1.25 * IOD)
    edge = points[:68, 0].min() if event.side < 0 else points[:68, 0].max()
    reach = event.scale * HALF_WIDTH[event.kind] + 0.25
    return np.array([edge + event.side * reach * IOD, (eyes + lips)[1] / 2]) + abs(jitter) * [event.side, 1]


def overlay(image: np.ndarray, event: Pass, presence: float, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the object of a pass, with its shadow, over an image.

    Args:
        image: (SIZE, SIZE, 3) float32 BGR 0..255.

    Returns:
        The image, and the pixels that the object hides, (SIZE, SIZE) bool.
    """
    import cv2

    matrix = _placement(event, presence, points)
    colour = cv2.warpAffine(event.sprite.colour, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    alpha = cv2.warpAffine(event.sprite.alpha, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    shadow = cv2.GaussianBlur(np.roll(alpha, (5, 4), (0, 1)), (0, 0), 5)
    behind = image * (1 - 0.35 * shadow * (1 - alpha))[..., None]
    return behind + alpha[..., None] * (colour - behind), alpha > 0.5

"""A synthetic person, made from the portrait, who can be drawn with any expression and head pose."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aupair.aus import AFFWILD2
from aupair.synth import expression, lids, mouth
from aupair.synth.portrait import IOD, SEAM, SIZE, load_portrait, mirror_landmarks, relax
from aupair.synth.shape import Pose, control_points, estimate_depth, fit_warp, point_index, project, warp_portrait

LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
"""pairs of landmarks, upper and lower lid"""
LIPS = ((61, 67), (62, 66), (63, 65))
"""pairs of landmarks, inner upper and inner lower lip"""


@dataclass(frozen=True)
class Subject:
    """A synthetic person that can be drawn."""

    aus: tuple[str, ...]
    """the A AUs that the face can show"""
    landmarks: np.ndarray
    """(68, 2) pixels, of the face at rest"""
    image: np.ndarray
    """(SIZE, SIZE, 3) float32 BGR 0..255, the face at rest"""
    relief: np.ndarray
    """(A, SIZE, SIZE) float32, relative brightness of each AU's furrows at intensity 5"""
    moves: np.ndarray
    """(A, POINTS, 2) displacements of the control points at intensity 5, pixels"""

    @cached_property
    def points(self) -> np.ndarray:
        """Return all control points of the face at rest: (POINTS, 2) pixels."""
        return control_points(self.landmarks)

    @cached_property
    def depth(self) -> np.ndarray:
        """Return the depth of the control points: (POINTS,) pixels."""
        return estimate_depth(self.landmarks)

    @cached_property
    def skin(self) -> np.ndarray:
        """Return the mean colour of a cheek: (3,) BGR 0..255."""
        x, y = self.landmarks[31, 0], self.landmarks[2, 1]
        return self.image[int(y) - 4 : int(y) + 4, int(x) - 22 : int(x) - 10].reshape(-1, 3).mean(0)

    @cached_property
    def hair(self) -> np.ndarray:
        """Return the mean colour of the hair: (3,) BGR 0..255."""
        x, y = self.landmarks[27, 0], self.landmarks[19, 1] - 1.0 * IOD
        return self.image[int(y) - 8 : int(y) + 8, int(x) - 30 : int(x) + 30].reshape(-1, 3).mean(0)

    def draw(self, intensity: np.ndarray, pose: Pose, blink: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Draw the face.

        Args:
            intensity: (A,), 0..5.
            blink: 0 for open eyes to 1 for closed eyes.

        Returns:
            image: (SIZE, SIZE, 3) float32 BGR, about 0..255.
            points: (POINTS, 2), the control points in the image, pixels.
        """
        import cv2

        share = intensity / 5
        shown = dict(zip(self.aus, share.tolist()))
        shape = self.points + np.tensordot(share, self.moves, 1)
        _keep_lips_apart(shape)
        _close_lids(shape, blink)
        centre = np.array([self.landmarks[27, 0], self.landmarks[29, 1]])
        points = project(shape, self.depth, centre, pose)
        # A turned head compresses a cheek; a stiffer spline prevents folds there.
        x, y = fit_warp(points, self.points, stiffness=2e-3 + 0.03 * max(0.0, abs(pose.yaw) - 0.2))
        active = np.flatnonzero(share)
        shade = 1 + np.tensordot(share[active].astype(np.float32), self.relief[active], 1)
        image = cv2.remap(self.image * shade[..., None], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        mouth.paint_mouth(image, points, press=shown.get("AU24", 0.0), tongue=shown.get("AU19", 0.0))
        drop = shown.get("AU43", 0.0)
        if drop > 0:
            _close_lids(shape, drop)
            closed = project(shape, self.depth, centre, pose)
            lids.paint_lids(image, points, closed, drop)
            points = closed
        return image, points


def _keep_lips_apart(points: np.ndarray) -> None:
    """Move the inner lips apart to a distance of at least SEAM, in place."""
    for upper, lower in LIPS:
        missing = SEAM * IOD - (points[lower, 1] - points[upper, 1])
        if missing > 0:
            points[upper, 1] -= missing / 2
            points[lower, 1] += missing / 2


def _close_lids(points: np.ndarray, blink: float) -> None:
    """Lower the upper lids by `blink`, 0..1, without crossing the lower lids, in place."""
    for upper, lower in LIDS:
        points[upper] += 0.92 * blink * (points[lower] - points[upper] - [0, 0.02 * IOD])
        if points[lower, 1] - points[upper, 1] < 0.03 * IOD:
            middle = (points[upper, 1] + points[lower, 1]) / 2
            points[upper, 1], points[lower, 1] = middle - 0.015 * IOD, middle + 0.015 * IOD


def make_subject(rng: np.random.Generator, aus: Sequence[str] = AFFWILD2, asymmetry: float = 0.0) -> Subject:
    """Make a person with random traits who can show the AUs `aus`.

    Args:
        asymmetry: maximum relative difference in strength between the sides of the face, in addition to the usual .15.
    """
    image, portrait = load_portrait()
    if rng.random() < 0.5:
        image, portrait = np.ascontiguousarray(image[:, ::-1]), mirror_landmarks(portrait)
    landmarks = _reshape(relax(portrait), rng)
    face = warp_portrait(image, control_points(landmarks), control_points(portrait)).astype(np.float32)
    relief = expression.paint_furrows(aus, landmarks)
    face = _age(_recolour(np.clip(face, 0, 255), landmarks, rng), landmarks, relief, rng)
    count = len(aus)
    lean = _draw_lean(rng.spawn(1)[0], asymmetry, count)
    moves = expression.displacements(aus, rng.uniform(0.8, 1.25, count), rng.uniform(-0.15, 0.15, count) + lean)
    depth_of_furrows = rng.uniform(0.6, 1.3, count).astype(np.float32)
    relief *= depth_of_furrows[:, None, None]
    if asymmetry:
        left = np.tanh((landmarks[27, 0] - np.arange(SIZE)) / (0.15 * IOD))
        relief *= (1 + lean[:, None, None] * left).astype(np.float32)
    return Subject(tuple(aus), landmarks, face, relief, moves)


def _draw_lean(rng: np.random.Generator, asymmetry: float, count: int) -> np.ndarray:
    """Draw the fraction by which the left half shows each AU more strongly, (count,); most AUs favour the same side."""
    side = rng.choice([-1, 1]) * np.where(rng.random(count) < 0.8, 1, -1)
    return asymmetry * side * rng.uniform(0.5, 1, count)


def _reshape(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the proportions of a face at random: (68, 2) -> (68, 2), pixels."""
    centre = points[27].copy()
    p = (points - centre) / IOD
    p[:, 0] *= rng.uniform(0.93, 1.07)
    p[:, 1] *= np.where(p[:, 1] > 0, rng.uniform(0.95, 1.06), 1)
    limits = np.array([0.06, 0.05, 0.022, 0.065, 0.033, 0.05, 0.09, 0.085])
    brow, tilt, eye, corner, lip, nose, jaw, width = rng.uniform(-limits, limits)
    p[17:27, 1] += brow
    p[[17, 18, 25, 26], 1] += tilt
    p[[20, 21, 22, 23], 1] -= tilt
    p[[37, 38, 43, 44], 1] -= eye
    p[[40, 41, 46, 47], 1] += eye
    p[[48, 60, 54, 64], 1] += corner
    p[[49, 53, 55, 59], 1] += corner / 2
    p[48:68, 0] *= 1 + width
    p[50:53, 1] -= lip
    p[56:59, 1] += 1.2 * lip
    p[31:36, 0] *= 1 + 3 * nose
    p[3:14, 0] *= 1 + jaw * (1 - np.abs(np.arange(3, 14) - 8) / 8)
    return p * IOD + centre


def _recolour(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the colours of skin, hair and background at random: (SIZE, SIZE, 3) float32 BGR 0..255 -> the same."""
    import cv2

    skin = _skin(landmarks)
    # Hair and background are blurred as if out of focus, which also halves their bytes in the video.
    soft = cv2.GaussianBlur(image, (0, 0), 1.6)
    lab = cv2.cvtColor((soft + skin[..., None] * (image - soft)) / 255, cv2.COLOR_BGR2LAB)
    light = cv2.GaussianBlur(lab[..., 0], (0, 0), 1.5)
    behind = (1 - skin) * np.clip((light - 52) / 12, 0, 1)
    hair = (1 - skin) * (1 - behind)
    lightness, a, b = rng.uniform([-24, -4, -7], [10, 6, 8])
    lab[..., 0] += skin * lightness * np.clip((lab[..., 0] - 15) / 45, 0, 1)
    lab[..., 1] += skin * a
    lab[..., 2] += skin * b
    lab[..., 0] *= (1 - hair * rng.uniform(-0.25, 0.6)) * (1 - behind * rng.uniform(-0.05, 0.65))
    for part, reach in ((hair, 8), (behind, 14)):
        for channel, shift in zip((1, 2), rng.uniform(-reach, reach, 2)):
            lab[..., channel] += part * shift
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255, 0, 255)


def _skin(landmarks: np.ndarray) -> np.ndarray:
    """Return a soft mask of face and neck: (SIZE, SIZE) float32, 0..1."""
    import cv2

    beyond = [point_index(key, side) for key in ("brow_in", "brow_out", "hair_in", "neck") for side in (0, 1)]
    points = np.round(control_points(landmarks)[[*range(68), *beyond]]).astype(np.int32)
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points), 1.0)
    return cv2.GaussianBlur(mask, (0, 0), 4)


def _age(image: np.ndarray, landmarks: np.ndarray, relief: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add permanent wrinkles, which resemble those of AUs, and moles."""
    import cv2

    wrinkles = rng.uniform(0, 0.45, len(relief)) * (rng.random(len(relief)) < 0.5)
    image = image * (1 + 0.8 * np.tensordot(wrinkles.astype(np.float32), relief, 1))[..., None]
    for _ in range(rng.integers(0, 5)):
        x, y = landmarks[30] + IOD * rng.uniform([-0.8, -0.6], [0.8, 0.9])
        colour = tuple(0.55 * float(v) for v in image[int(y), int(x)])
        cv2.circle(image, (int(8 * x), int(8 * y)), int(rng.uniform(5, 12)), colour, -1, cv2.LINE_AA, 3)
    return np.clip(image, 0, 255).astype(np.float32)

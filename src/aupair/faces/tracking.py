"""Follow one face through a video: cheap while it is easy, the whole frame when it is lost."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aupair.data.layout import Side
from aupair.faces.landmarks import box_of_landmarks, find_landmarks, load_predictor
from aupair.faces.mtcnn import Mtcnn
from aupair.params import PreprocessFaces

REACH = 0.6
"""How far around the last face it is looked for first, in its widths: a region of 2.2 widths."""

AROUND = np.array([(x, y) for x in (-0.15, 0.0, 0.15) for y in (-0.15, 0.0, 0.15)])
SIZES = np.array([0.75, 0.87, 1.0, 1.15, 1.32])
"""Where O-Net looks for a covered face, in widths of the last one: (9, 2) shifts x, y; sides."""

SURE = 0.85
"""O-Net's probability that it must reach there: of so many places one may look like a face by chance."""

SMALLEST_LOCAL = 20
"""Smallest face in that region, pixels; else half the last one."""


@dataclass(frozen=True)
class Face:
    """A face in one frame."""

    landmarks: np.ndarray
    """(68, 2) float64, x, y in pixels"""
    score: float
    """O-Net's probability of a face, above .7"""
    tracked: bool
    """O-Net found it at or around the place of the frame before, without a search"""
    disagreement: float
    """mean distance of the two landmark passes, in inter-ocular distances"""


@dataclass(frozen=True)
class Models:
    """What finds faces and their points."""

    detector: Mtcnn
    predictor: Any


def load_models() -> Models:
    """Load the networks and the trees (1 to 2 seconds, 100 MB)."""
    return Models(Mtcnn(), load_predictor())


class Tracker:
    """Finds the one face of a video, frame by frame.

    `tracking`: O-Net judges and corrects the box of the last landmarks; where it sees no face there, a region of
    2.2 widths is searched, then the whole frame; at last O-Net looks at places around, since P-Net and R-Net lose a
    covered face before it does. `reference`: the whole frame, every frame.
    """

    def __init__(self, models: Models, params: PreprocessFaces, side: Side = "") -> None:
        self._models, self._params, self._side = models, params, side
        self._last: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> Face | None:
        """Find the face in the next frame, (H, W, 3) uint8 RGB."""
        found = self._find(image)
        if found is None:
            self._last = None
            return None
        landmarks, disagreement = find_landmarks(self._models.predictor, image, found.box)
        self._last = landmarks
        return Face(landmarks, found.score, found.tracked, disagreement)

    def _find(self, image: np.ndarray) -> "_Found | None":
        """Find the face's box: where it was, near there, anywhere; or else, covered, around where it was."""
        if self._last is None or self._params.detector == "reference":
            return self._search(image)
        box = box_of_landmarks(self._last)
        return (
            self._follow(image, box)
            or self._search_near(image, box)
            or self._search(image)
            or self._look_around(image, box)
        )

    def _follow(self, image: np.ndarray, box: np.ndarray) -> "_Found | None":
        """Let O-Net judge the place of the last face."""
        boxes, scores = self._models.detector.refine(image, box[None])
        return self._choose(image, boxes, scores, tracked=True)

    def _search_near(self, image: np.ndarray, box: np.ndarray) -> "_Found | None":
        """Search the region around the last face for the nearest one."""
        height, width = image.shape[:2]
        side = box[2] - box[0]
        left, top = np.clip(box[:2] - REACH * side, 0, (width, height)).astype(int)
        right, bottom = np.clip(box[2:] + REACH * side, 0, (width, height)).astype(int)
        region = np.ascontiguousarray(image[top:bottom, left:right])
        boxes, scores = self._models.detector.detect(region, max(SMALLEST_LOCAL, int(side / 2)))
        return self._choose(image, boxes + np.array([left, top, left, top]), scores, near=_centre(box))

    def _search(self, image: np.ndarray) -> "_Found | None":
        """Search the whole frame: for the largest face, or the one nearest to the middle of its half."""
        height, width = image.shape[:2]
        middle = {"": None, "left": (width / 4, height / 2), "right": (3 * width / 4, height / 2)}[self._side]
        boxes, scores = self._models.detector.detect(image, self._params.min_face)
        return self._choose(image, boxes, scores, near=None if middle is None else np.array(middle))

    def _look_around(self, image: np.ndarray, box: np.ndarray) -> "_Found | None":
        """Let O-Net judge places around the last face."""
        middles = (_centre(box) + (box[2] - box[0]) * AROUND)[:, None]
        half = (box[2] - box[0]) * SIZES[:, None] / 2
        places = np.concatenate([middles - half, middles + half], axis=2).reshape(-1, 4)
        boxes, scores = self._models.detector.refine(image, places)
        sure = scores > SURE
        return self._choose(image, boxes[sure], scores[sure], near=_centre(box), tracked=True)

    def _choose(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        near: np.ndarray | None = None,
        tracked: bool = False,
    ) -> "_Found | None":
        """Choose the largest face of our half, or the one whose centre is nearest to `near`."""
        centre = _centre(boxes)
        left = centre[:, 0] < image.shape[1] / 2
        ours = np.flatnonzero({"": left | True, "left": left, "right": ~left}[self._side])
        if not ours.size:
            return None
        rank = (
            np.linalg.norm(centre - near, axis=1) if near is not None else -np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        )
        best = ours[rank[ours].argmin()]
        return _Found(boxes[best], float(scores[best]), tracked)


class _Found(NamedTuple):
    """A box (4,), O-Net's score, and whether O-Net judged places of the frame before instead of a search."""

    box: np.ndarray
    score: float
    tracked: bool


def _centre(boxes: np.ndarray) -> np.ndarray:
    """Give the centres (..., 2) of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2

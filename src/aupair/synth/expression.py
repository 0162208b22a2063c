"""The effects of each AU on a face: displacements of control points, and furrows of the skin."""

from collections.abc import Mapping, Sequence

import numpy as np

from aupair.aus import check_au_names
from aupair.errors import ParamsError
from aupair.synth.portrait import IOD, MIRROR, SIZE, mirror_landmarks
from aupair.synth.shape import POINTS, Key, point_index

Offsets = Mapping[Key, tuple[float, float]]

MOVES: dict[str, Offsets] = {
    "AU1": {21: (0, -0.17), 20: (0, -0.14), 19: (0, -0.07), 18: (0, -0.02), "brow_in": (0, -0.07), 27: (0, -0.02)},
    "AU2": {17: (-0.01, -0.13), 18: (0, -0.17), 19: (0, -0.13), 20: (0, -0.05), "brow_out": (0, -0.07), 37: (0, -0.01)},
    "AU4": {
        21: (0.075, 0.12), 20: (0.06, 0.11), 19: (0.04, 0.075), 18: (0.02, 0.04), 17: (0.01, 0.02),
        "brow_in": (0.02, 0.06), 37: (0, 0.012), 38: (0, 0.018), 27: (0, 0.03),
    },
    "AU6": {
        "lid_cheek": (0, -0.15), "cheek_out": (0, -0.13), "cheek": (0, -0.07), 40: (0, -0.03), 41: (0, -0.04),
        36: (0.015, 0.01), 17: (0.01, 0.035), 18: (0, 0.02),
    },
    "AU7": {40: (0, -0.055), 41: (0, -0.055), 37: (0, 0.028), 38: (0, 0.028)},
    "AU10": {
        50: (0, -0.12), 51: (0, -0.12), 49: (-0.01, -0.08), 61: (0, -0.05), 62: (0, -0.05), 67: (0, -0.045),
        66: (0, -0.045), 31: (-0.035, -0.07), 32: (-0.01, -0.05), 33: (0, -0.03), "cheek": (0, -0.05),
    },
    "AU12": {
        48: (-0.19, -0.15), 60: (-0.17, -0.135), 49: (-0.11, -0.07), 59: (-0.10, -0.05), 50: (-0.05, 0), 58: (-0.05, 0),
        61: (-0.06, -0.03), 67: (-0.06, -0.03), 51: (0, 0.02), 57: (0, -0.015),
        "cheek": (-0.04, -0.08), "cheek_out": (-0.02, -0.05),
    },
    "AU15": {
        48: (-0.01, 0.16), 60: (-0.01, 0.14), 49: (0, 0.06), 59: (-0.01, 0.09), 58: (0, 0.03), 61: (0, 0.03),
        67: (0, 0.03), "mouth_jaw": (-0.01, 0.06),
    },
    "AU23": {
        48: (0.10, 0), 60: (0.09, 0), 49: (0.06, 0.05), 50: (0.02, 0.055), 51: (0, 0.05), 57: (0, -0.06),
        58: (0.03, -0.06), 59: (0.06, -0.03),
    },
    "AU24": {
        49: (0, 0.035), 50: (0, 0.055), 51: (0, 0.05), 57: (0, -0.095), 58: (0, -0.09), 59: (0, -0.045),
        8: (0, -0.05), 7: (0, -0.04), "chin": (0, -0.06),
    },
    "AU25": {
        61: (0, -0.035), 62: (0, -0.04), 50: (0, -0.02), 51: (0, -0.02), 67: (0, 0.09), 66: (0, 0.10),
        58: (0, 0.085), 57: (0, 0.09), 59: (0, 0.03),
    },
    "AU26": {
        67: (0.01, 0.24), 66: (0, 0.27), 58: (0.02, 0.26), 57: (0, 0.27), 59: (0.03, 0.14), 48: (0.035, 0.06),
        60: (0.03, 0.06), 8: (0, 0.30), 7: (0, 0.29), 6: (0.01, 0.25), 5: (0.02, 0.17), 4: (0.02, 0.09),
        3: (0.01, 0.04), "mouth_jaw": (0.02, 0.14), "chin": (0, 0.27), "neck": (0, 0.12),
    },
    "AU18": {
        48: (0.17, 0), 60: (0.16, 0), 49: (0.10, -0.03), 59: (0.09, 0.03), 50: (0.04, -0.035), 51: (0, -0.02),
        58: (0.04, 0.05), 57: (0, 0.055), "mouth_jaw": (0.05, 0), "cheek": (0.03, 0),
    },
    "AU19": {
        61: (0, -0.03), 62: (0, -0.035), 50: (0, -0.02), 51: (0, -0.02), 67: (0, 0.10), 66: (0, 0.11), 58: (0, 0.10),
        57: (0, 0.11), 59: (0, 0.04), 8: (0, 0.06), 7: (0, 0.05), "chin": (0, 0.06),
    },
    "AU33": {
        2: (-0.03, 0), 3: (-0.12, 0), 4: (-0.17, 0), 5: (-0.13, 0.02), 6: (-0.04, 0.01), "cheek": (-0.07, 0),
        "mouth_jaw": (-0.15, 0), "jaw_out": (-0.06, 0), 48: (0.035, 0), 60: (0.03, 0), 49: (0.02, 0.01),
        59: (0.02, -0.01),
    },
    "AU43": {17: (0, 0.01), 18: (0, 0.015), 19: (0, 0.015), 20: (0, 0.01), 40: (0, -0.015), 41: (0, -0.015)},
}  # fmt: skip
"""Displacements of the left half's control points at intensity 5, x, y in IODs (x > 0: toward the midline)."""
REPERTOIRE: tuple[str, ...] = tuple(MOVES)
"""The AUs that can be drawn."""


def check_repertoire(aus: Sequence[str]) -> None:
    """Check that AUs can be drawn.

    Raises:
        DataError: there is no AU, or one is listed twice.
        ParamsError: an AU is not in REPERTOIRE.
    """
    check_au_names(aus, "the AUs to draw")
    for au in aus:
        if au not in REPERTOIRE:
            raise ParamsError("this AU cannot be drawn", got=au, expected=f"some of {','.join(REPERTOIRE)}")


def displacements(aus: Sequence[str], gain: np.ndarray, asymmetry: np.ndarray) -> np.ndarray:
    """Return the displacements of MOVES for both halves of one person's face.

    Args:
        aus: the A AUs, of REPERTOIRE.
        gain: (A,), factor of the person's displacements, about 1.
        asymmetry: (A,), fraction by which the left half moves more and the right half less.

    Returns:
        (A, POINTS, 2) pixels at intensity 5.
    """
    moves = np.zeros((len(aus), POINTS, 2))
    for a, au in enumerate(aus):
        for key, (dx, dy) in MOVES[au].items():
            central = not isinstance(key, str) and MIRROR[key] == key
            for side, sign in enumerate((1, -1)):
                if not (central and side):
                    x = 0 if central else sign * dx
                    moves[a, point_index(key, side)] = IOD * gain[a] * (1 + sign * asymmetry[a]) * np.array([x, dy])
    return moves


def paint_furrows(aus: Sequence[str], landmarks: np.ndarray) -> np.ndarray:
    """Paint each AU's furrows and bulges at intensity 5.

    Args:
        aus: the A AUs, of REPERTOIRE.
        landmarks: (68, 2) pixels of the face at rest.

    Returns:
        (A, SIZE, SIZE) float32, relative brightness; 0: unchanged.
    """
    left, right = _left_furrows(landmarks), _left_furrows(mirror_landmarks(landmarks))
    return np.stack([left[au] + right[au][:, ::-1] for au in aus])


def _left_furrows(p: np.ndarray) -> dict[str, np.ndarray]:
    """Paint the furrows of the left half: (68, 2) pixels -> by AU (SIZE, SIZE) float32."""
    maps = {au: np.zeros((SIZE, SIZE), np.float32) for au in REPERTOIRE}
    _brow_furrows(p, maps)
    _eye_furrows(p, maps)
    _mouth_furrows(p, maps)
    _pucker_and_cheek(p, maps)
    return maps


def _brow_furrows(p: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """Paint lines across the forehead (AU1, AU2) and between the brows (AU4)."""
    for height in (0.15, 0.22, 0.29):
        middle = np.array([p[27, 0], p[21, 1]])
        path = [_at(p[20], 0, -height), _at(p[21], 0, -height - 0.02), _at(middle, 0, 0.01 - height)]
        _line(maps["AU1"], path, 0.32)
    for height in (0.14, 0.21, 0.28):
        path = [_at(p[17], 0.05, 0.06 - height), _at(p[18], 0, -height), _at(p[19], 0, -height - 0.02)]
        _line(maps["AU2"], path, 0.32)
    _line(maps["AU4"], [_at(p[21], 0.04, 0.10), _at(p[21], 0.055, -0.02), _at(p[21], 0.05, -0.20)], 0.45)
    _blob(maps["AU4"], (p[21] + p[27]) / 2, (0.13, 0.12), -0.12)


def _eye_furrows(p: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """Paint crow's feet and a raised cheek (AU6), and the creases of a tight lower lid (AU7) and a closed eye (AU43)."""
    lid, corner = (p[40] + p[41]) / 2, _at(p[36], -0.09, 0)
    for degrees in (-35, -8, 20):
        angle = np.deg2rad(degrees)
        _line(maps["AU6"], [corner, _at(corner, -0.24 * np.cos(angle), 0.24 * np.sin(angle))], 0.34)
    _line(maps["AU6"], [_at(lid, -0.28, 0.10), _at(lid, 0, 0.19), _at(lid, 0.2, 0.15)], 0.28)
    _blob(maps["AU6"], _at(lid, -0.1, 0.36), (0.2, 0.12), 0.13)
    _line(maps["AU7"], [_at(p[36], 0, 0.07), _at(lid, 0, 0.085), _at(p[39], 0, 0.06)], 0.34)
    _line(maps["AU43"], [_at(p[36], 0.02, 0.06), _at(lid, 0, 0.06), _at(p[39], -0.02, 0.05)], 0.2)


def _mouth_furrows(p: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """Paint folds beside the nose (AU10, AU12), corners (AU12, AU15, AU23), tight lips (AU23, AU24) and the chin."""
    lid, chin = (p[40] + p[41]) / 2, 0.4 * p[57] + 0.6 * p[8]
    fold = [_at(p[31], -0.05, -0.06), _at(p[31], -0.17, 0.08), _at((p[48] + p[31]) / 2, -0.2, 0)]
    _line(maps["AU10"], fold, 0.48)
    _blob(maps["AU10"], _at(p[31], -0.16, -0.02), (0.1, 0.1), 0.08)
    _line(maps["AU12"], [*fold[1:], _at(p[48], -0.17, -0.02), _at(p[48], -0.15, 0.12)], 0.36)
    _blob(maps["AU12"], _at(p[48], -0.06, 0), (0.05, 0.06), -0.25)
    _blob(maps["AU12"], _at(lid, -0.1, 0.5), (0.2, 0.14), 0.08)
    _line(maps["AU15"], [_at(p[48], -0.05, 0.02), _at(p[48], -0.08, 0.16), _at(p[48], -0.06, 0.30)], 0.42)
    _blob(maps["AU15"], chin, (0.22, 0.1), -0.06)
    for point, rise in ((49, -0.02), (50, -0.02), (58, 0.02), (59, 0.02)):
        _line(maps["AU23"], [_at(p[point], 0, rise), _at(p[point], -0.01, 6 * rise)], 0.30)
    _blob(maps["AU23"], _at(p[48], -0.05, 0), (0.05, 0.05), -0.22)
    upper = [_at(p[48], 0, -0.09), _at(p[49], 0, -0.07), _at(p[50], 0, -0.06), _at(p[51], 0, -0.06)]
    _line(maps["AU24"], upper, 0.22, 2)
    _line(maps["AU24"], [_at(p[59], 0, 0.06), _at(p[58], 0, 0.09), _at(p[57], 0, 0.10)], 0.40, 2)
    _blob(maps["AU24"], chin, (0.16, 0.09), 0.10)
    _blob(maps["AU26"], _at(p[8], 0, -0.12), (0.2, 0.06), -0.05)


def _pucker_and_cheek(p: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """Paint creases around puckered lips (AU18), the shadow below a tongue (AU19) and a puffed, shining cheek (AU33)."""
    for point, rise in ((49, -0.03), (50, -0.03), (58, 0.03)):
        _line(maps["AU18"], [_at(p[point], 0, rise), _at(p[point], -0.01, 3.5 * rise)], 0.16)
    _blob(maps["AU18"], p[51], (0.14, 0.05), 0.05)
    _blob(maps["AU18"], (p[57] + p[66]) / 2, (0.13, 0.04), 0.07)
    _blob(maps["AU18"], _at(p[57], 0, 0.12), (0.2, 0.04), -0.13)
    _blob(maps["AU18"], _at(p[48], 0.06, 0), (0.05, 0.06), -0.2)
    _blob(maps["AU19"], _at(p[57], 0, 0.1), (0.16, 0.06), -0.1)
    cheek = (p[4] + 2 * p[48]) / 3
    _blob(maps["AU33"], _at(cheek, 0, -0.06), (0.16, 0.2), 0.17)
    _line(maps["AU33"], [_at(p[48], -0.05, -0.16), _at(p[48], -0.02, 0), _at(p[48], -0.05, 0.16)], 0.34)
    _blob(maps["AU33"], _at(cheek, -0.1, 0.32), (0.2, 0.07), -0.12)


def _at(point: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Return a point shifted by dx, dy IODs."""
    return point + IOD * np.array([dx, dy])


def _line(relief: np.ndarray, points: Sequence[np.ndarray], amount: float, width: int = 1) -> None:
    """Engrave a soft dark line with a faint bright rim below it."""
    import cv2

    stroke: np.ndarray = np.zeros_like(relief)
    cv2.polylines(stroke, [np.round(np.array(points) * 8).astype(np.int32)], False, 1.0, width, cv2.LINE_AA, 3)
    stroke = cv2.GaussianBlur(stroke, (0, 0), 0.018 * IOD)
    stroke = (amount / max(float(stroke.max()), 1e-6) * stroke).astype(np.float32)
    relief -= stroke
    relief += 0.35 * np.roll(stroke, 1 + int(0.035 * IOD), 0)


def _blob(relief: np.ndarray, centre: np.ndarray, spread: tuple[float, float], amount: float) -> None:
    """Brighten, or with a negative amount darken, a Gaussian spot; `spread` is in IODs."""
    x, y = ((np.arange(SIZE) - centre[k]) / (spread[k] * IOD) for k in (0, 1))
    relief += (amount * np.exp(-0.5 * y**2)[:, None] * np.exp(-0.5 * x**2)).astype(np.float32)

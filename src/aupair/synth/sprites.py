"""Drawings of the objects that pass between a face and the camera, as images with transparency.

Coordinates are in IODs relative to the point that is placed on the aim, with y downward; an arm extends downward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from aupair.synth.portrait import IOD

WIDTH, HEIGHT = 340, 480
ORIGIN = (170.0, 170.0)
"""position of the point that is placed on the aim, in pixels of the sprite"""
Xy = tuple[float, float]
Colour = np.ndarray


@dataclass
class Sprite:
    """An image with transparency."""

    colour: np.ndarray = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH, 3), np.float32))
    """(HEIGHT, WIDTH, 3) BGR 0..255, not multiplied by alpha"""
    alpha: np.ndarray = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.float32))
    """(HEIGHT, WIDTH) 0..1"""

    def draw(self, mask: np.ndarray, colour: Colour, rounding: float = 0.15) -> None:
        """Draw a shape over the image, with a darker rim of `rounding` IODs that makes it look round.

        Args:
            mask: (HEIGHT, WIDTH) uint8, 255 inside.
            colour: (3,) BGR.
        """
        import cv2

        x, y, width, height = cv2.boundingRect(mask)
        box = np.s_[max(0, y - 4) : y + height + 4, max(0, x - 4) : x + width + 4]
        mask = mask[box]
        rim = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / max(rounding * IOD, 1e-3)
        shade = 0.68 + 0.36 * np.sin(np.pi / 2 * np.clip(rim, 0, 1))
        over = cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32) / 255
        lit = np.asarray(colour, np.float32) * shade[..., None].astype(np.float32)
        self.colour[box] += over[..., None] * (lit - self.colour[box])
        self.alpha[box] = np.maximum(self.alpha[box], over)

    def texture(self, rng: np.random.Generator, amount: float, grain: int = 8) -> None:
        """Vary the brightness by smooth noise with spots of about `grain` pixels."""
        import cv2

        noise = rng.standard_normal((HEIGHT // grain, WIDTH // grain)).astype(np.float32)
        self.colour *= 1 + amount * cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]


def _capsule(start: Xy, end: Xy, radius: float) -> np.ndarray:
    """Return the mask of a thick line with round ends."""
    import cv2

    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    a, b = (tuple(int(16 * v) for v in _pixels([p])[0]) for p in (start, end))
    cv2.line(mask, a, b, 255, max(1, round(2 * radius * IOD)), cv2.LINE_AA, 4)
    return mask


def _polygon(points: Sequence[Xy] | np.ndarray) -> np.ndarray:
    """Return the mask of a filled polygon."""
    import cv2

    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(16 * _pixels(points)).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _ellipse(centre: Xy, rx: float, ry: float) -> np.ndarray:
    """Return the mask of a filled ellipse."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return _polygon(np.stack([centre[0] + rx * np.cos(t), centre[1] + ry * np.sin(t)], 1))


def _rectangle(x: Xy, y: Xy, corner: float = 0.0) -> np.ndarray:
    """Return the mask of a rectangle x[0]..x[1], y[0]..y[1] with rounded corners."""
    import cv2

    mask = _polygon([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
    size = 2 * round(corner * IOD) + 1
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))


def _pixels(points: Sequence[Xy] | np.ndarray) -> np.ndarray:
    """Convert points in IODs around the origin to sprite pixels: (N, 2)."""
    return np.asarray(points, np.float64) * IOD + ORIGIN


@dataclass(frozen=True)
class _Palette:
    """Colours of one pass, (3,) BGR 0..255."""

    skin: Colour
    hair: Colour
    cloth: Colour
    thing: Colour


def choose_palette(rng: np.random.Generator, skin: Colour, hair: Colour) -> _Palette:
    """Choose random colours: skin and hair similar to those of the person, any colours for sleeve and object."""
    return _Palette(
        skin=np.clip(skin * rng.uniform(0.75, 1.1) * np.array([0.97, 1, 1.03]), 0, 255),
        hair=np.clip(hair * rng.uniform(0.6, 1.0), 0, 255),
        cloth=rng.uniform(25, 200) + rng.uniform(-35, 35, 3),
        thing=np.clip(rng.uniform(40, 220) + rng.uniform(-50, 50, 3), 0, 245),
    )


def _draw_arm(sprite: Sprite, colours: _Palette, x: float = 0.0, top: float = 0.5) -> None:
    """Draw a forearm with a sleeve that extends downward out of the image."""
    sprite.draw(_capsule((x, top), (x, 1.7), 0.3), colours.skin, 0.25)
    sprite.draw(_polygon([(x - 0.38, 1.3), (x + 0.38, 1.3), (x + 0.55, 5.5), (x - 0.55, 5.5)]), colours.cloth, 0.4)


def _draw_grip(sprite: Sprite, colours: _Palette, side: float, low: float, reach: float = 0.45) -> None:
    """Draw four fingers around an object from its left (side -1) or right (+1) edge, the lowest at y = `low`."""
    for k in range(4):
        y = low - 0.21 * k
        sprite.draw(_capsule((side * (reach + 0.12), y + 0.04), (side * (reach - 0.28), y), 0.105), colours.skin, 0.1)


def _draw_hand(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw the back of a hand with slightly spread fingers."""
    sprite = Sprite()
    _draw_arm(sprite, colours)
    thumb, spread = rng.choice([-1.0, 1.0]), rng.uniform(0.8, 1.6)
    sprite.draw(_capsule((0.3 * thumb, 0.6), (0.72 * thumb, 0.15), 0.13), colours.skin, 0.12)
    sprite.draw(_capsule((0, 0.3), (0, 0.65), 0.42), colours.skin, 0.3)
    for x, tip in ((-0.3, -0.58), (-0.1, -0.75), (0.1, -0.7), (0.3, -0.5)):
        sprite.draw(_capsule((x, 0.15), (x * spread, tip), 0.125), colours.skin, 0.12)
    sprite.texture(rng, 0.04)
    return sprite


def _draw_mug(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a mug with a stripe, held at its side."""
    sprite, side = Sprite(), rng.choice([-1.0, 1.0])
    _draw_arm(sprite, colours, 0.25 * side, 0.6)
    ring = _ellipse((-0.5 * side, 0.05), 0.3, 0.34)
    ring[_ellipse((-0.5 * side, 0.05), 0.18, 0.22) > 127] = 0
    sprite.draw(ring, 0.85 * colours.thing, 0.08)
    sprite.draw(_rectangle((-0.48, 0.48), (-0.5, 0.62), 0.12), colours.thing, 0.35)
    sprite.draw(_rectangle((-0.48, 0.48), (rng.uniform(-0.2, 0.1), 0.25)), colours.cloth, 0.3)
    sprite.draw(_ellipse((0, -0.5), 0.48, 0.1), 0.75 * colours.thing, 0.06)
    sprite.draw(_ellipse((0, -0.49), 0.42, 0.07), np.array([25.0, 35, 50]), 0.05)
    _draw_grip(sprite, colours, side, 0.5)
    sprite.texture(rng, 0.03, 16)
    return sprite


def _draw_phone(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw the back of a phone with its lenses, held upright."""
    sprite, side = Sprite(), rng.choice([-1.0, 1.0])
    _draw_arm(sprite, colours, 0.15 * side, 0.6)
    body = 0.35 * colours.thing
    sprite.draw(_rectangle((-0.42, 0.42), (-0.85, 0.85), 0.1), body, 0.06)
    sprite.draw(_rectangle((-0.34, -0.02), (-0.77, -0.45), 0.06), 0.6 * body, 0.04)
    for x, y in ((-0.25, -0.68), (-0.25, -0.54), (-0.1, -0.61)):
        sprite.draw(_ellipse((x, y), 0.055, 0.055), np.array([60.0, 50, 45]), 0.04)
    sprite.draw(_polygon([(-0.1, -0.83), (0.1, -0.83), (-0.25, 0.83), (-0.4, 0.83)]), 1.25 * body + 12, 0.01)
    _draw_grip(sprite, colours, side, 0.65, 0.42)
    sprite.texture(rng, 0.02, 16)
    return sprite


def _draw_paper(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a slightly bent sheet of paper with lines of text, held at its lower edge."""
    sprite = Sprite()
    _draw_arm(sprite, colours, 0.0, 1.0)
    sheet = rng.uniform(205, 245) * np.array([0.97, 1.0, 1.0])
    bend = rng.uniform(-0.08, 0.08)
    corners = [(-0.85, -0.9), (0, -0.9 + bend), (0.85, -0.9), (0.85, 1.0), (0, 1.0 + bend), (-0.85, 1.0)]
    sprite.draw(_polygon(corners), sheet, 0.03)
    for y in np.arange(-0.7, 0.75, 0.14):
        sprite.draw(_rectangle((-0.68, rng.uniform(0.2, 0.68)), (y, y + 0.045)), np.array([95.0, 85, 80]), 0.01)
    sprite.draw(_capsule((-0.05, 1.25), (0.02, 0.82), 0.13), colours.skin, 0.12)
    sprite.texture(rng, 0.03, 24)
    return sprite


def _draw_microphone(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a microphone with a wire mesh, held in a fist."""
    sprite, side = Sprite(), rng.choice([-1.0, 1.0])
    _draw_arm(sprite, colours, 0.0, 0.9)
    sprite.draw(_polygon([(-0.19, 0.2), (0.19, 0.2), (0.13, 1.5), (-0.13, 1.5)]), np.array([48.0, 45, 45]), 0.15)
    sprite.draw(_ellipse((0, -0.05), 0.36, 0.4), 60 + 0.45 * colours.thing, 0.3)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    mesh = (((x + y) % 6 < 2) | ((x - y) % 6 < 2)) & (_ellipse((0, -0.05), 0.34, 0.38) > 127)
    sprite.colour[mesh] *= 0.7
    sprite.draw(_rectangle((-0.36, 0.36), (0.0, 0.09)), np.array([120.0, 120, 125]), 0.04)
    _draw_grip(sprite, colours, side, 1.3, 0.25)
    return sprite


def _draw_strand(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a thick strand of hair that falls from above."""
    import cv2

    sprite, curl = Sprite(), rng.uniform(-0.3, 0.3)
    t = np.linspace(0, 1, 24)
    for _ in range(90):
        x0, x1 = rng.normal(0, 0.17, 2)
        wave = curl * np.sin(np.pi * t) + 0.04 * np.sin(2 * np.pi * (2 * t + rng.random()))
        root = rng.uniform(-1.45, -1.15)
        line = np.stack([0.4 * x0 + 1.2 * x1 * np.sqrt(t) + wave, root + t * rng.uniform(2.0, 2.8)], 1)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        path = [np.round(16 * _pixels(line)).astype(np.int32)]
        cv2.polylines(mask, path, False, 255, int(rng.integers(3, 7)), cv2.LINE_AA, 4)
        sprite.draw(mask, colours.hair * rng.uniform(0.6, 1.35), 0.05)
    return sprite


def _draw_scarf(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a striped scarf with a sagging upper edge."""
    sprite = Sprite()
    x = np.linspace(-1.05, 1.05, 24)
    top = -0.3 - 0.35 * (x / 1.05) ** 2
    hem = [(1.2, 0.4), (1.45, 1.6), (-1.45, 1.6), (-1.2, 0.4)]
    sprite.draw(_polygon(np.concatenate([np.stack([x, top], 1), hem])), colours.cloth, 0.2)
    for k in range(4):
        drop = 0.18 + 0.32 * k + 0.12 * np.sin(x + rng.uniform(0, 6))
        fold = np.concatenate([np.stack([x, top + drop], 1), np.stack([x, top + drop + 0.1], 1)[::-1]])
        sprite.draw(_polygon(fold), colours.thing if k % 2 else 0.8 * colours.cloth, 0.05)
    sprite.texture(rng, 0.06, 3)
    return sprite


def _draw_cap(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw a knitted cap with a turned-up brim; its lower edge is at the origin."""
    sprite = Sprite()
    t = np.linspace(np.pi, 2 * np.pi, 24)
    sprite.draw(_polygon(np.stack([1.12 * np.cos(t), 1.5 * np.sin(t)], 1)), colours.cloth, 0.4)
    x = np.linspace(-1.15, 1.15, 24)
    brim = np.concatenate([np.stack([x, 0.16 - 0.1 * x**2], 1), np.stack([x, -0.3 - 0.1 * x**2], 1)[::-1]])
    sprite.draw(_polygon(brim), 0.85 * colours.cloth + 0.15 * colours.thing, 0.1)
    ribs = 1 + 0.1 * np.sin(np.arange(WIDTH) * 2 * np.pi / rng.uniform(6, 10) + rng.uniform(0, 6))
    sprite.colour *= ribs.astype(np.float32)[:, None]
    return sprite


def _draw_glasses(rng: np.random.Generator, colours: _Palette) -> Sprite:
    """Draw dark glasses: two lenses with a reflex, bridge and temples."""
    sprite, frame = Sprite(), 0.3 * colours.thing
    rx, ry = rng.uniform(0.38, 0.44), rng.uniform(0.26, 0.36)
    sprite.draw(_capsule((-0.95, -0.06), (0.95, -0.06), 0.045), frame, 0.04)
    for x in (-0.5, 0.5):
        lens = _rectangle((x - rx, x + rx), (-ry, ry), 0.2) if ry < 0.31 else _ellipse((x, 0), rx, ry)
        sprite.draw(lens, frame, 0.04)
        sprite.draw(_ellipse((x, 0), rx - 0.05, ry - 0.05), np.array([32.0, 28, 26]), 0.1)
        reflex = [(x - 0.2, -0.2), (x - 0.08, -0.2), (x - 0.2, 0.14), (x - 0.27, 0.08)]
        sprite.draw(_polygon(reflex), np.array([85.0, 80, 78]), 0.01)
    return sprite


DRAW: dict[str, Callable[[np.random.Generator, _Palette], Sprite]] = {
    "hand": _draw_hand,
    "mug": _draw_mug,
    "paper": _draw_paper,
    "microphone": _draw_microphone,
    "strand": _draw_strand,
    "cap": _draw_cap,
    "phone": _draw_phone,
    "scarf": _draw_scarf,
    "glasses": _draw_glasses,
}

"""What happens in a clip, in seconds: expressions, head pose, blinks, light, and what passes before the face."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupair.aus import AUS
from aupair.synth.shape import Pose

MAX_YAW = 0.48
"""radians; beyond .5 the cheeks fold"""

CARDS: tuple[dict[str, float], ...] = (
    {"AU1": 1, "AU2": 0.9},
    {"AU1": 1},
    {"AU2": 1},
    {"AU4": 1},
    {"AU4": 0.8, "AU7": 0.9},
    {"AU4": 0.7, "AU10": 0.9},
    {"AU4": 0.8, "AU23": 0.9},
    {"AU1": 0.8, "AU4": 0.7, "AU15": 0.9},
    {"AU6": 1},
    {"AU6": 0.9, "AU12": 1},
    {"AU6": 0.8, "AU12": 1, "AU25": 0.8},
    {"AU7": 1},
    {"AU7": 0.8, "AU24": 1},
    {"AU10": 1},
    {"AU10": 0.9, "AU25": 0.7},
    {"AU12": 1},
    {"AU15": 1},
    {"AU15": 0.9, "AU24": 0.8},
    {"AU23": 1},
    {"AU24": 1},
    {"AU25": 1},
    {"AU25": 1, "AU26": 0.9},
    {"AU1": 0.9, "AU2": 0.9, "AU25": 0.9, "AU26": 0.8},
)
"""Expressions: AUs that act together, with their share of the expression's strength."""
CLASHES = (("AU12", "AU15"), ("AU23", "AU25"), ("AU23", "AU26"), ("AU24", "AU25"), ("AU24", "AU26"), ("AU10", "AU24"))
"""Pairs that a mouth cannot show at once."""


@dataclass(frozen=True)
class Event:
    """One AU that rises, holds and falls; all times in seconds."""

    au: int
    start: float
    onset: float
    hold: float
    offset: float
    peak: float
    """intensity 0..5"""

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.onset + self.hold + self.offset

    def at(self, times: np.ndarray) -> np.ndarray:
        """Give the intensity at `times` (N,): raised cosines around a hold."""
        rise = np.clip((times - self.start) / self.onset, 0, 1)
        fall = np.clip((self.end - times) / self.offset, 0, 1)
        return self.peak * (0.5 - 0.5 * np.cos(np.pi * np.minimum(rise, fall)))


def expressions(rng: np.random.Generator, seconds: float, deck: "Deck") -> list[Event]:
    """Play cards one after another, each before the last is over, so that several AUs are active at once."""
    events: list[Event] = []
    now = rng.uniform(0.25, 0.7)
    while now < seconds - 0.5:
        onset, hold, offset = rng.uniform([0.2, 0.12, 0.24], [0.55, 0.85, 0.7])
        running = {e.au for e in events if e.end > now - 0.1}
        strength = rng.choice([1.7, 2.7, 3.7, 4.7, 5.6]) * rng.uniform(0.9, 1.0)
        for name, weight in deck.play(running, onset + hold + offset).items():
            # The peak clears level 1, or a weak card would show an AU that counts as absent.
            peak = float(np.clip(strength * weight, 1.2, 5))
            start = max(0.0, now + rng.uniform(-0.08, 0.12))
            events.append(Event(AUS.index(name), start, onset, hold, offset, peak))
        now += max(0.2, 0.27 * (onset + hold + offset) + rng.uniform(-0.16, 0.16))
    return events


class Deck:
    """A shuffled deck of cards that plays first what a subject has shown least."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.shown = rng.uniform(0, 0.5, len(AUS))
        """seconds of each AU so far, with a random head start"""

    def play(self, running: set[int], seconds: float) -> dict[str, float]:
        """Take the card whose AUs were shown least, among those that clash with nothing running.

        Args:
            running: AUs (indices) that are active now.
            seconds: how long the card will be shown.
        """
        order = self.rng.permutation(len(CARDS))
        # Nothing that would keep the rarest AU waiting, either.
        taken = running | {int(np.argmin(self.shown))}
        fitting = [CARDS[k] for k in order if not _clashes(CARDS[k], taken)] or [CARDS[0]]
        card = min(fitting, key=lambda card: self.cost(card, running))
        for name in card:
            self.shown[AUS.index(name)] += seconds
        return card

    def cost(self, card: dict[str, float], running: set[int]) -> float:
        """Seconds that the card's rarest AU was shown, and a little for the others; one active now costs more."""
        costs = [self.shown[AUS.index(name)] + 2 * (AUS.index(name) in running) for name in card]
        return float(min(costs) + 0.2 * np.mean(costs))


def _clashes(card: dict[str, float], running: set[int]) -> bool:
    """Tell whether a card needs what the mouth cannot do beside the running AUs."""
    mine = {AUS.index(name) for name in card}
    pairs = [(AUS.index(a), AUS.index(b)) for a, b in CLASHES]
    return any((a in mine and b in running) or (b in mine and a in running) for a, b in pairs)


def intensities(events: Sequence[Event], times: np.ndarray) -> np.ndarray:
    """Give each AU's intensity at `times` (N,): (N, A) 0..5. The strongest event counts; a dropped jaw parts the lips."""
    values = np.zeros((len(times), len(AUS)))
    for event in events:
        values[:, event.au] = np.maximum(values[:, event.au], event.at(times))
    part, jaw = AUS.index("AU25"), AUS.index("AU26")
    values[:, part] = np.maximum(values[:, part], 0.9 * values[:, jaw])
    return values


def wander(rng: np.random.Generator, times: np.ndarray, amount: float, period: float) -> np.ndarray:
    """Drift smoothly around 0, within about +-amount: (N,) at `times`; period in seconds."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = zip((1, 0.61, 2.3), phases, (0.5, 0.25, 0.35))
    return amount * sum(w * np.sin(2 * np.pi * times / (period * k) + p) for k, p, w in waves)


def poses(rng: np.random.Generator, times: np.ndarray) -> list[Pose]:
    """Move the head mildly; in most clips it also turns aside once."""
    yaw = wander(rng, times, 0.16, 3.6)
    pitch, roll = wander(rng, times, 0.08, 4.4), wander(rng, times, 0.06, 5.2)
    x, y, scale = wander(rng, times, 5, 4.8), wander(rng, times, 4, 5.6), 1 + wander(rng, times, 0.04, 6.0)
    turns, start, length = rng.random() < 0.7, rng.uniform(0, 1), rng.uniform(0.8, 1.5)
    angle = rng.choice([-1, 1]) * rng.uniform(0.3, 0.5)
    if turns:
        begin = start * max(0.0, times[-1] - length)
        yaw += angle * np.sin(np.pi * np.clip((times - begin) / length, 0, 1))
    yaw = np.clip(yaw, -MAX_YAW, MAX_YAW)
    columns = zip(*(column.tolist() for column in (yaw, pitch, roll, scale, x, y)))
    return [Pose(a, b, c, s, (u, v)) for a, b, c, s, u, v in columns]


def blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Close the eyes for a quarter of a second every two to five seconds: (N,) 0 open, 1 closed."""
    closed = np.zeros(len(times))
    now = rng.uniform(0.4, 2.5)
    while now < times[-1]:
        closed = np.maximum(closed, np.clip(1.6 * np.cos(np.clip((times - now) / 0.14, -1, 1) * np.pi / 2), 0, 1))
        now += rng.uniform(1.8, 4.8)
    return closed

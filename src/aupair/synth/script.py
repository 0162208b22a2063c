"""Random plans of a clip over time: expressions, head poses and blinks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from aupair.aus import AFFWILD2
from aupair.synth.shape import Pose

MAX_YAW = 0.48
"""radians; see `Pose.yaw`"""

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
    {"AU18": 1},
    {"AU19": 1},
    {"AU33": 1},
    {"AU43": 1},
    {"AU18": 0.9, "AU43": 1},
    {"AU19": 1, "AU43": 0.8},
    {"AU33": 1, "AU43": 0.9},
    {"AU4": 0.8, "AU18": 1},
    {"AU1": 0.9, "AU2": 0.9, "AU33": 0.9},
    {"AU12": 0.9, "AU19": 1},
    {"AU12": 0.9, "AU43": 0.9},
)
"""Expressions: AUs that occur together, with their relative strengths."""
CLASHES = (
    ("AU12", "AU15"), ("AU23", "AU25"), ("AU23", "AU26"), ("AU24", "AU25"), ("AU24", "AU26"), ("AU10", "AU24"),
    ("AU10", "AU18"), ("AU12", "AU18"), ("AU15", "AU18"), ("AU18", "AU23"), ("AU18", "AU24"), ("AU18", "AU25"),
    ("AU18", "AU26"), ("AU18", "AU19"), ("AU15", "AU19"), ("AU19", "AU23"), ("AU19", "AU24"), ("AU19", "AU33"),
    ("AU10", "AU33"), ("AU12", "AU33"), ("AU15", "AU33"), ("AU18", "AU33"), ("AU25", "AU33"), ("AU26", "AU33"),
    ("AU7", "AU43"),
)  # fmt: skip
"""Pairs of AUs that a face cannot show at the same time."""
PARTED = (("AU26", 0.9), ("AU19", 0.6))
"""AUs that part the lips (AU25), with the ratio of AU25's intensity to theirs."""


@dataclass(frozen=True)
class Event:
    """An activation of one AU, which rises, stays at its peak and falls; all times are in seconds."""

    au: str
    start: float
    onset: float
    hold: float
    offset: float
    peak: float
    """intensity 0..5"""

    @property
    def end(self) -> float:
        """Return the time at which the AU is at 0 again."""
        return self.start + self.onset + self.hold + self.offset

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the intensity at `times` (N,): raised cosines around the constant peak."""
        rise = np.clip((times - self.start) / self.onset, 0, 1)
        fall = np.clip((self.end - times) / self.offset, 0, 1)
        return self.peak * (0.5 - 0.5 * np.cos(np.pi * np.minimum(rise, fall)))


def plan_expressions(
    rng: np.random.Generator, seconds: float, deck: "Deck", beside: Sequence[Event] = ()
) -> list[Event]:
    """Plan expressions that overlap in time, so that several AUs are active at once.

    Args:
        beside: existing events, with which no new event may clash.
    """
    events: list[Event] = []
    now = rng.uniform(0.25, 0.7)
    while now < seconds - 0.5:
        onset, hold, offset = rng.uniform([0.2, 0.12, 0.24], [0.55, 0.85, 0.7])
        running = {e.au for e in (*beside, *events) if e.end > now - 0.1}
        strength = rng.choice([1.7, 2.7, 3.7, 4.7, 5.6]) * rng.uniform(0.9, 1.0)
        for name, weight in deck.draw_card(running, onset + hold + offset).items():
            # The peak is above level 1, so that the AU of a weak expression counts as active.
            peak = float(np.clip(strength * weight, 1.2, 5))
            start = max(0.0, now + rng.uniform(-0.08, 0.12))
            events.append(Event(name, start, onset, hold, offset, peak))
        now += max(0.2, deck.pace * (0.27 * (onset + hold + offset) + rng.uniform(-0.16, 0.16)))
    return events


class Deck:
    """A deck of expressions from which those that a subject has shown least are drawn first."""

    def __init__(self, rng: np.random.Generator, aus: Sequence[str] = AFFWILD2) -> None:
        self.rng = rng
        self.aus = tuple(aus)
        self.cards = _cards(aus)
        self.pace = (len(AFFWILD2) / len(aus)) ** 0.75
        """factor of the interval between expressions, 1 for twelve AUs, so that a few AUs are not active all the time"""
        self.seconds_shown = dict(zip(aus, rng.uniform(0, 0.5, len(aus)).tolist()))
        """seconds that each AU has been shown, from a random start"""

    def draw_card(self, running: set[str], seconds: float) -> dict[str, float]:
        """Draw the expression whose AUs have been shown least, among those that do not clash with active AUs.

        Args:
            running: AUs that are active now.
            seconds: the time for which the expression will be shown.

        Returns:
            AUs with their relative strengths; empty if all expressions clash.
        """
        order = self.rng.permutation(len(self.cards))
        # An expression must not clash with the rarest AU either, which would otherwise be delayed further.
        reserved = {*running, min(self.aus, key=self.seconds_shown.__getitem__)}
        fitting = [self.cards[k] for k in order if not _clash(self.cards[k], reserved)]
        if not fitting:
            return {}
        card = min(fitting, key=lambda card: self._cost(card, running))
        for name in card:
            self.seconds_shown[name] += seconds
        return card

    def _cost(self, card: dict[str, float], running: set[str]) -> float:
        """Return the seconds for which the card's rarest AU was shown, plus penalties for its other and for running AUs."""
        costs = [self.seconds_shown[name] + 2 * (name in running) for name in card]
        return float(min(costs) + 0.2 * np.mean(costs))


def _cards(aus: Sequence[str]) -> list[dict[str, float]]:
    """Return the expressions restricted to `aus`; of those with equal sets of AUs, only the first."""
    cards: dict[frozenset[str], dict[str, float]] = {}
    for card in CARDS:
        rest = {name: weight for name, weight in card.items() if name in aus}
        if rest:
            cards.setdefault(frozenset(rest), rest)
    return list(cards.values())


def _clash(one: Collection[str], other: Collection[str]) -> bool:
    """Return whether a face cannot show two sets of AUs at the same time."""
    return any((a in one and b in other) or (b in one and a in other) for a, b in CLASHES)


def intensity_curves(events: Sequence[Event], times: np.ndarray, aus: Sequence[str] = AFFWILD2) -> np.ndarray:
    """Return the intensity of each AU at `times` (N,): (N, A), 0..5, the maximum over events; AUs of PARTED raise AU25."""
    curves = {au: np.zeros(len(times)) for au in aus}
    for event in events:
        curves[event.au] = np.maximum(curves[event.au], event.at(times))
    for au, share in PARTED:
        if au in curves and "AU25" in curves:
            curves["AU25"] = np.maximum(curves["AU25"], share * curves[au])
    return np.stack([curves[au] for au in aus], 1)


def wander(rng: np.random.Generator, times: np.ndarray, amount: float, period: float) -> np.ndarray:
    """Return a smooth random curve at `times` (N,) with values within about +-amount; `period` is in seconds."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = zip((1, 0.61, 2.3), phases, (0.5, 0.25, 0.35))
    return amount * sum(w * np.sin(2 * np.pi * times / (period * k) + p) for k, p, w in waves)


def plan_poses(rng: np.random.Generator, times: np.ndarray) -> list[Pose]:
    """Plan head poses at `times` (N,): small movements, and in most periods of about ten seconds a turn to one side."""
    yaw = wander(rng, times, 0.16, 3.6)
    pitch, roll = wander(rng, times, 0.08, 4.4), wander(rng, times, 0.06, 5.2)
    x, y, scale = wander(rng, times, 5, 4.8), wander(rng, times, 4, 5.6), 1 + wander(rng, times, 0.04, 6.0)
    count = max(1, int(times[-1] // 10))
    for k in range(count):
        turns, start, length = rng.random() < 0.7, rng.uniform(0, 1), rng.uniform(0.8, 1.5)
        angle = rng.choice([-1, 1]) * rng.uniform(0.3, 0.5)
        if turns:
            stretch = times[-1] / count
            begin = k * stretch + start * max(0.0, stretch - length)
            yaw += angle * np.sin(np.pi * np.clip((times - begin) / length, 0, 1))
    yaw = np.clip(yaw, -MAX_YAW, MAX_YAW)
    columns = zip(*(column.tolist() for column in (yaw, pitch, roll, scale, x, y)))
    return [Pose(a, b, c, s, (u, v)) for a, b, c, s, u, v in columns]


def plan_blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Plan blinks of about a quarter of a second every two to five seconds: (N,), 0 open to 1 closed."""
    closed = np.zeros(len(times))
    now = rng.uniform(0.4, 2.5)
    while now < times[-1]:
        closed = np.maximum(closed, np.clip(1.6 * np.cos(np.clip((times - now) / 0.14, -1, 1) * np.pi / 2), 0, 1))
        now += rng.uniform(1.8, 4.8)
    return closed

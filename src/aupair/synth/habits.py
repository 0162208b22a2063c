"""Habits of people beyond the demo's: pauses between expressions, held expressions, and rare AUs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aupair.synth.options import People
from aupair.synth.script import Deck, Event, intensity_curves, plan_expressions

_SPELL = (2.0, 5.0)
"""shortest and longest spell of expressions between two pauses, seconds"""


def plan_events(
    rng: np.random.Generator, seconds: float, deck: Deck, people: People, own: np.random.Generator
) -> list[Event]:
    """Plan the events of a clip; without options exactly those of `plan_expressions`.

    Args:
        rng: draws the expressions.
        own: draws what the options need.
    """
    held_rng, pause_rng, rare_rng = own.spawn(3)
    held = _plan_held(held_rng, seconds, deck, people.rare) if held_rng.random() < people.held else []
    if people.pauses:
        events = _plan_spells(rng, seconds, deck, held, pause_rng.exponential(people.pauses, 1 + int(seconds)))
    else:
        events = plan_expressions(rng, seconds, deck, held)
    return [*held, *_thin(rare_rng, events, people, seconds, deck.aus)]


def _plan_held(rng: np.random.Generator, seconds: float, deck: Deck, rare: Sequence[str]) -> list[Event]:
    """Plan an expression that lasts from before the clip, or soon after its start, until its end or nearly so."""
    cards = [card for card in deck.cards if card.keys().isdisjoint(rare)] or [{}]
    card = cards[rng.integers(len(cards))]
    strength, ramp = rng.uniform(1.8, 3.2), 0.05 * seconds
    start, end = rng.uniform(-0.4, 0.04) * seconds, rng.uniform(0.98, 1.4) * seconds
    return [
        Event(name, start, ramp, end - start - 2 * ramp, ramp, float(np.clip(strength * weight, 1.2, 5)))
        for name, weight in card.items()
    ]


def _plan_spells(
    rng: np.random.Generator, seconds: float, deck: Deck, held: Sequence[Event], pauses: np.ndarray
) -> list[Event]:
    """Plan spells of a few seconds of expressions, with a pause before each in which the face returns to rest."""
    events: list[Event] = []
    now = 0.0
    for pause in pauses.tolist():
        now += pause
        if now >= seconds:
            break
        length = min(rng.uniform(*_SPELL), seconds - now)
        spell = plan_expressions(rng, length, deck, [replace(event, start=event.start - now) for event in held])
        events += [replace(event, start=event.start + now) for event in spell]
        now = max([now + length, *(event.end for event in events)])
    return events


def _thin(
    rng: np.random.Generator, events: Sequence[Event], people: People, seconds: float, aus: Sequence[str]
) -> list[Event]:
    """Drop most events of the rare AUs, so that each is active for about `rare_rate` of the time on average.

    The deck shows all AUs for about the same time; the mean over AUs therefore says how much that is in this clip.
    """
    times = np.arange(0, seconds, 0.05)
    usual = float((intensity_curves(events, times, aus) >= 1).mean())
    share = people.rare_rate / max(usual, 1e-9)
    return [event for event in events if event.au not in people.rare or rng.random() < share]

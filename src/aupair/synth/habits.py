"""The options of `People`: pauses between expressions, held expressions, and rare AUs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aupair.synth.options import People
from aupair.synth.script import Deck, Event, intensity_curves, plan_expressions

_SPELL = (2.0, 5.0)
"""minimum and maximum length of a period of expressions between two pauses, seconds"""


def plan_events(
    rng: np.random.Generator, seconds: float, deck: Deck, people: People, own: np.random.Generator
) -> list[Event]:
    """Plan the events of a clip; without options they are those of `plan_expressions`.

    Args:
        rng: the random generator of the expressions.
        own: the random generator of the options.
    """
    held_rng, pause_rng, rare_rng = own.spawn(3)
    held = _plan_held(held_rng, seconds, deck, people.rare) if held_rng.random() < people.held else []
    if people.pauses:
        events = _plan_spells(rng, seconds, deck, held, pause_rng.exponential(people.pauses, 1 + int(seconds)))
    else:
        events = plan_expressions(rng, seconds, deck, held)
    return [*held, *_thin(rare_rng, events, people, seconds, deck.aus)]


def _plan_held(rng: np.random.Generator, seconds: float, deck: Deck, rare: Sequence[str]) -> list[Event]:
    """Plan an expression that starts before or soon after the start of the clip and lasts about until its end."""
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
    """Plan periods of a few seconds of expressions, each after a pause in which the face is at rest."""
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
    """Drop events of the rare AUs at random, so that each is active for about `rare_rate` of the time on average.

    Since the deck shows all AUs for about the same time, the mean over AUs estimates the time of a rare AU before that.
    """
    times = np.arange(0, seconds, 0.05)
    usual = float((intensity_curves(events, times, aus) >= 1).mean())
    share = people.rare_rate / max(usual, 1e-9)
    return [event for event in events if event.au not in people.rare or rng.random() < share]

"""Options of a synthetic corpus beyond the demo's: one record for each group of options, all of it off by default.

Each option draws from a random stream of its own, so that it changes what it is about and nothing else.
"""

from typing import Annotated

from pydantic import Field

from aupair.record import Record, Share


class People(Record):
    """Options of how people use their faces."""

    rare: tuple[str, ...] = ()
    """AUs that are active in few frames"""
    rare_rate: Annotated[float, Field(gt=0, le=1)] = 0.03
    """share of the frames in which a rare AU is active"""
    held: Share = 0.0
    """share of the clips in which a person keeps an expression nearly all the time, so that no frame is neutral"""
    pauses: Annotated[float, Field(ge=0)] = 0.0
    """mean pause between spells of expressions, seconds; 0: none, one expression follows the other"""
    asymmetry: Annotated[float, Field(ge=0, le=0.8)] = 0.0
    """how much more, at most, one side of the face shows than the other; .8: about nine times as much"""


class Coder(Record):
    """Options of errors in the labels; the movies stay as they are."""

    shift: Annotated[float, Field(ge=0)] = 0.0
    """standard deviation of the error of each onset and offset, seconds"""
    missed: Share = 0.0
    """share of the events that the coder does not see"""


class CoverHabits(Record):
    """Options of the frequency and the times of covers."""

    every: Annotated[float, Field(gt=1.25)] = 1.8
    """one cover comes in every so many seconds"""
    with_expressions: Share = 0.0
    """share of the covers that come with an expression, hide the part of the face that shows it, and stay for longer"""

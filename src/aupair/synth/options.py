"""Options of a synthetic corpus that the demo does not use, all of them off by default.

Each option has a separate random stream, so that it does not affect anything else.
"""

from typing import Annotated

from pydantic import Field

from aupair.record import Record, Share


class People(Record):
    """Options of the expressions of people."""

    rare: tuple[str, ...] = ()
    """AUs that are active in few frames"""
    rare_rate: Annotated[float, Field(gt=0, le=1)] = 0.03
    """fraction of the frames in which a rare AU is active"""
    held: Share = 0.0
    """fraction of the clips in which a person holds an expression nearly all the time, so that no frame is neutral"""
    pauses: Annotated[float, Field(ge=0)] = 0.0
    """mean pause between periods of expressions, seconds; 0: no pauses"""
    asymmetry: Annotated[float, Field(ge=0, le=0.8)] = 0.0
    """maximum relative difference in strength between the sides of the face; .8: a ratio of about nine"""


class Coder(Record):
    """Options of errors in the labels, which do not affect the movies."""

    shift: Annotated[float, Field(ge=0)] = 0.0
    """standard deviation of the error of each onset and offset, seconds"""
    missed: Share = 0.0
    """fraction of the events that the coder misses"""


class CoverHabits(Record):
    """Options of the frequency and the times of covers."""

    every: Annotated[float, Field(gt=1.25)] = 1.8
    """mean interval between covers, seconds"""
    with_expressions: Share = 0.0
    """fraction of the covers that occur with an expression, hide the part of the face that shows it, and last longer"""

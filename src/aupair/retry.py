"""Retries of calls to a service that has answered before, so that a wrong address still fails at once."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from aupair.errors import scrub

T = TypeVar("T")

LONGEST = 600.0
"""Seconds after the first failure of a call within which it is tried again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

_LOG = logging.getLogger(__name__)

_answered: set[str] = set()
"""The services that have answered in this process."""

_once: ContextVar[bool] = ContextVar("once", default=False)


def has_answered(service: str) -> bool:
    """Return whether a service has answered in this process."""
    return service in _answered


def note_answer(service: str) -> None:
    """Remember that a service has answered, where `retry` cannot see it: the call failed later."""
    _answered.add(service)


@contextmanager
def once() -> Iterator[None]:
    """Let no call in the block be repeated: for a caller that cannot wait, or that repeats the whole block."""
    token = _once.set(True)
    try:
        yield
    finally:
        _once.reset(token)


def retry(
    call: Callable[[], T], what: str, service: str, is_transient: Callable[[Exception], bool], longest: float = LONGEST
) -> T:
    """Return what `call` returns; call it again after a transient failure of a service that has answered before.

    The pauses double from 1 s to 60 s, each shortened by up to a half at random. Inside another `retry` the call is
    made once, since the outer one repeats it: so the time does not multiply.

    Args:
        call: something that may be done twice: after a lost answer the service has already done it once.
        what, service: the action and the service, for the line that is logged.
        is_transient: whether a failure can pass by itself.
        longest: seconds after the first failure within which another try begins.

    Raises:
        Exception: what `call` raises at the end.
    """
    pause, end = _FIRST_PAUSE, None
    while True:
        try:
            with once():
                result = call()
        except Exception as error:
            now, wait = time.monotonic(), random.uniform(pause / 2, pause)
            end = now + longest if end is None else end
            if _once.get() or not has_answered(service) or not is_transient(error) or now + wait > end:
                raise
            cause = scrub(" ".join(str(error).split()))[:300] or type(error).__name__
            _LOG.warning(
                "%s: %s failed (%s); trying again in %.0f s, for %.0f s more", service, what, cause, wait, end - now
            )
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            note_answer(service)
            return result

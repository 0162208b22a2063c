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
"""How long after its first failure a call may be tried again, in seconds."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

_LOG = logging.getLogger(__name__)

_answered: set[str] = set()
"""The services that have answered in this process."""

_no_retries: ContextVar[bool] = ContextVar("no_retries", default=False)


def has_answered(service: str) -> bool:
    """Return whether a service has answered in this process."""
    return service in _answered


def note_answer(service: str) -> None:
    """Record that a service has answered, for a caller whose call failed only after it had received data."""
    _answered.add(service)


@contextmanager
def no_retries() -> Iterator[None]:
    """Disable retries inside the block, for a caller that cannot wait, or that repeats the whole block."""
    token = _no_retries.set(True)
    try:
        yield
    finally:
        _no_retries.reset(token)


def retry(
    call: Callable[[], T],
    what: str,
    service: str,
    is_transient: Callable[[Exception], bool],
    longest: float = LONGEST,
    first: float = 0.0,
) -> T:
    """Return what `call` returns; call it again after a transient failure of a service that has answered before.

    The pauses double from 1 s to 60 s, each shortened by up to a half at random. Inside another `retry` the call is
    made once, since the outer one repeats it; otherwise the waiting times would multiply.

    Args:
        call: an idempotent action: if only the answer was lost, the service has already done it.
        what, service: the action and the service, for the line that is logged.
        is_transient: whether a failure can pass by itself.
        longest: seconds after the first failure during which a new attempt may start.
        first: the same for a service that has not answered yet.

    Raises:
        Exception: what `call` raises at the end.
    """
    pause, end = _FIRST_PAUSE, None
    while True:
        try:
            with no_retries():
                result = call()
        except Exception as error:
            now, wait = time.monotonic(), random.uniform(pause / 2, pause)
            end = now + (longest if has_answered(service) else first) if end is None else end
            if not has_answered(service):
                wait = min(wait, end - now)  # a user who waits expects the last attempt at the end
            if _no_retries.get() or wait <= 0 or now + wait > end or not is_transient(error):
                raise
            cause = scrub(" ".join(str(error).split()))[:300] or type(error).__name__
            _LOG.warning(
                "%s: %s failed (%s); retrying in %.0f s, giving up in %.0f s", service, what, cause, wait, end - now
            )
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            note_answer(service)
            return result

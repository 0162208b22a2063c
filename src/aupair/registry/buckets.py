"""The first contact with the S3 bucket of MLflow's artifacts, which MLflow's client reads and writes directly.

botocore waits a minute for a connection and tries it five times, and a store that answers says nothing about its bucket.
"""

import os
import re
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from aupair.registry.contact import seconds_to_wait
from aupair.retry import has_answered, note_answer

T = TypeVar("T")

BUCKET = "the bucket of MLflow's artifacts"
_CONNECT_SECONDS, _ATTEMPTS = 5, "2"
_NO_ANSWER = re.compile(r"(Could not connect to the|Connect timeout on) endpoint")


def use_bucket(call: Callable[[], T]) -> T:
    """Return what `call` returns, which may read or write artifacts, and note that the bucket has answered.

    Artifacts may lie elsewhere, too: their place counts as a bucket that has answered.
    """
    _limit_connections()
    result = call()
    note_answer(BUCKET)
    return result


def may_pass(start: float) -> Callable[[Exception], bool]:
    """Return a test of whether a failure can pass by itself: not that of a bucket that never answered, unless the user waits.

    Args:
        start: when the action began, by the monotonic clock.
    """
    return lambda error: not is_silent(error) or has_answered(BUCKET) or time.monotonic() - start < seconds_to_wait()


def is_silent(error: BaseException | None) -> bool:
    """Return whether an exception or one of its causes means that nothing answered at a bucket's address."""
    while error is not None:
        if _NO_ANSWER.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@cache
def _limit_connections() -> None:
    """Limit the attempts and seconds of the connections of boto3's default session, which MLflow uses."""
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    os.environ.setdefault("AWS_MAX_ATTEMPTS", _ATTEMPTS)  # `retrying` repeats the whole call
    session = get_session()
    session.set_default_client_config(Config(connect_timeout=_CONNECT_SECONDS))
    boto3.setup_default_session(botocore_session=session)

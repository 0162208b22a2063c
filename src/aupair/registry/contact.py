"""A quick check that the server or database of an MLflow store answers, since MLflow itself retries for minutes."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_ATTEMPT_SECONDS = 12.0
"""Maximum duration of one attempt, including the resolution of the host name."""

WAIT_VARIABLE = "AUPAIR_STORE_WAIT"
"""The environment variable with the seconds to wait for a store that has not answered yet; child processes inherit it."""

_PROBE_SECONDS = 5.0
_CONNECT_TIMEOUTS = {"psycopg": "connect_timeout", "psycopg2": "connect_timeout", "pymysql": "connect_timeout"}
"""Database driver -> its option for the connection timeout."""


def seconds_to_wait() -> float:
    """Return the time to wait for a store that has not answered yet, in seconds."""
    return float(os.environ.get(WAIT_VARIABLE) or 0)


def contact(uri: str) -> None:
    """Contact a server or database once; other kinds of stores are not contacted.

    Raises:
        Exception: an exception of requests or sqlalchemy, or TimeoutError, if it does not answer.
    """
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        _within(_ATTEMPT_SECONDS, lambda: _ask_server(uri))
    elif scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        _within(_ATTEMPT_SECONDS, lambda: _ask_database(uri))


def _ask_server(uri: str) -> None:
    """Check the health of a server."""
    import requests

    response = requests.get(uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS)
    if response.status_code >= 500:  # sent by a gateway whose server does not answer
        response.raise_for_status()


def _ask_database(uri: str) -> None:
    """Connect to a database."""
    from sqlalchemy import NullPool, create_engine, make_url

    url = make_url(uri)
    limit = _CONNECT_TIMEOUTS.get(url.get_dialect().driver, "")
    options: dict[str, Any] = {limit: int(_PROBE_SECONDS)} if limit and limit not in url.query else {}
    create_engine(url, poolclass=NullPool, connect_args=options).connect().close()


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call, or raise TimeoutError; the call then continues in a daemon thread."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future.result(seconds)

"""Locks that serialise commands on one MLflow store, for stores that support locks.

For a sqlite store there is a lock file beside it, for PostgreSQL an advisory lock on a separate connection. Both are released
when the process ends, even if it is killed. A store behind a server has no lock, see `aupair.registry.moves`.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aupair.errors import RegistryError, scrub
from aupair.registry import mlflow_store

_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's error code for a lock that was not obtained in time."""


@contextmanager
def exclusive(
    purpose: str, name: str, seconds: float = 60.0, waiting: Callable[[], object] = lambda: None
) -> Iterator[bool]:
    """Acquire the lock for a purpose during the block, and yield whether the store has locks; without, do not wait.

    Args:
        purpose: `aliases` or `register`, two independent locks.
        name: the name of the registered model.
        seconds: the maximum time to wait for another process.
        waiting: called once before waiting for another process.

    Raises:
        RegistryError: another process held the lock for all that time.
    """
    uri = mlflow_store.tracking_uri()
    database = mlflow_store.sqlite_path(uri)
    if not has_lock():
        yield False
    elif database is not None:
        with _file_lock(Path(f"{database}.{purpose}.lock"), seconds, waiting):
            yield True
    else:
        with _advisory_lock(uri, f"aupair {purpose} {name}", seconds, waiting):
            yield True


def has_lock() -> bool:
    """Return whether the store has locks: a sqlite file, or PostgreSQL without an MLflow server in between."""
    return bool(re.match(r"sqlite:///|postgresql(\+\w+)?://", mlflow_store.tracking_uri()))


@contextmanager
def _file_lock(path: Path, seconds: float, waiting: Callable[[], object]) -> Iterator[None]:
    """Acquire a lock file for the block."""
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(timeout=seconds)
    except Timeout as error:
        raise _busy_error(path, seconds) from error
    except OSError as error:
        got = error.strerror or error
        raise RegistryError(
            "the MLflow store cannot be locked", where=path, got=got, expected="a writable folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(uri: str, key: str, seconds: float, waiting: Callable[[], object]) -> Iterator[None]:
    """Acquire an advisory lock of PostgreSQL for the block.

    It belongs to a transaction, since a session's lock could be lost behind a connection pooler.
    """
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    engine = create_engine(uri, poolclass=NullPool, pool_reset_on_return=None)
    with mlflow_store.mlflow_errors("the registry's lock"):
        connection = mlflow_store.retrying("the registry's lock", engine.connect)
    try:

        def execute(statement: str, **values: Any) -> Any:
            return connection.execute(text(statement), values).scalar()

        try:
            with mlflow_store.mlflow_errors("the registry's lock"):
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                connection.execute(text(f"SET LOCAL lock_timeout = {int(seconds * 1000)}"))
                if not execute("SELECT pg_try_advisory_xact_lock(:key)", key=number):
                    waiting()
                    execute("SELECT pg_advisory_xact_lock(:key)", key=number)
        except RegistryError as error:
            cause = error.__cause__
            if isinstance(cause, OperationalError) and getattr(cause.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
                raise _busy_error(scrub(uri), seconds) from error
            raise
        yield
    finally:
        with suppress(SQLAlchemyError, engine.dialect.loaded_dbapi.Error):  # the server ended, and the lock with it
            connection.close()


def _busy_error(where: object, seconds: float) -> RegistryError:
    """Return the error for a lock that another process holds."""
    todo = "wait for it, and try again"
    got = f"locked for more than {seconds:.0f} s"
    return RegistryError("another command is changing the registry", where=where, got=got, todo=todo)

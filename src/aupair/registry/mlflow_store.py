"""Access to the MLflow store: find or create it, retry calls, and translate failures into errors of one line."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from filelock import FileLock

from aupair import store
from aupair.errors import RegistryError, scrub
from aupair.extras import require
from aupair.registry.buckets import BUCKET, is_silent, may_pass, use_bucket
from aupair.registry.contact import contact, seconds_to_wait
from aupair.registry.moved_store import follow_moved_store, other_version_error
from aupair.retry import retry

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
"""The store in the working folder, which is used unless MLFLOW_TRACKING_URI is set."""

_TRANSIENT_STATUS = {429, *range(500, 600)} - {501}
_TRANSIENT_TEXT = re.compile(
    r"API request to \S+ failed with (timeout )?exception|failed with error code (429|5\d\d)"
    r"|(429 Client|5\d\d Server) Error|Connection (aborted|broken|reset|was closed)|IncompleteRead"
    r"|An error occurred \((429|50[0234]|SlowDown|InternalError|ServiceUnavailable|RequestTimeout|Throttling\w*)\)"
    r"|(Could not connect to the|(Connect|Read) timeout on) endpoint|database( table)? is locked"
)
"""Messages of transient failures: MLflow's, and boto3's for artifacts that MLflow's client reads or writes in a bucket directly."""

_INCOMPLETE = re.compile("duplicate column name|table .* already exists|no such table")
"""MLflow's messages for a store whose creation was interrupted."""


def tracking_uri() -> str:
    """Return the URI of the store; a database file has its absolute path, since MLflow caches connections by URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    database = sqlite_path(uri)
    return uri if database is None else f"sqlite:///{(_project_folder() / database).resolve()}"


def _project_folder() -> Path:
    """Return the working folder; for a DVC experiment in a temporary copy, the same folder of the user's checkout."""
    folder = Path.cwd()
    checkout = os.environ.get("DVC_ROOT")
    if "DVC_EXP_NAME" not in os.environ or not checkout:
        return folder
    copy = next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), folder)
    return Path(checkout) / folder.relative_to(copy)


def open_mlflow(create: bool = False) -> "MlflowClient":
    """Open the store, set it as MLflow's current one, and return a client.

    Args:
        create: create a local store if there is none; otherwise this is an error.

    Raises:
        RegistryError: there is no store, it cannot be opened, its version differs, or its server does not answer.
    """
    require("mlflow")
    uri = tracking_uri()
    _check_address(uri)
    _set_defaults()
    database = sqlite_path(uri)
    if database is not None:
        _create_database(uri, database, create)
        follow_moved_store(database)
    else:
        _check_contact(uri)
    import mlflow

    try:
        with mlflow_errors("opening the store"):
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            return cast("MlflowClient", _RetryingClient(mlflow.MlflowClient(uri)))
    except RegistryError as error:
        if explained := other_version_error(error, scrub(uri)):
            raise explained from error
        if database is not None and _INCOMPLETE.search(str(error)):
            todo = "delete it if it has no runs yet, and run the command again; else restore a copy"
            first = str(error.__cause__).strip().splitlines()[0][:200]
            raise RegistryError("an incomplete MLflow store", where=database, got=first, todo=todo) from error
        raise


class _RetryingClient:
    """An MlflowClient that repeats its calls while MLflow's server or database does not answer.

    Calls that create something are not repeated, since after a lost answer it would exist twice. Their callers pass a
    function to `retrying` that searches for it first.
    """

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name.startswith("create_"):
            return method
        return lambda *args, **kwargs: retrying(name, lambda: method(*args, **kwargs), "artifact" in name)


def retrying(what: str, call: Callable[[], T], artifacts: bool = False) -> T:
    """Return the result of `call`, which is repeated while MLflow's server or database does not answer.

    This applies only to a server that has answered before, see `retry`.

    Args:
        what: the action, for the log.
        call: an idempotent action, see `retry`.
        artifacts: whether it reads or writes artifacts, which may be in a bucket.
    """
    passes = may_pass(time.monotonic())
    return retry(
        (lambda: use_bucket(call)) if artifacts else call,
        what,
        f"MLflow at {scrub(tracking_uri())}",
        lambda error: passes(error) and _is_transient(error),
    )


def _is_transient(error: Exception) -> bool:
    """Return whether a failure is transient: no answer, throttling, 5xx, a locked database or a lost connection."""
    import requests
    from sqlalchemy.exc import OperationalError

    if isinstance(error, TimeoutError):
        return True
    if isinstance(error, requests.HTTPError):  # raised by requests for artifacts
        return error.response.status_code in _TRANSIENT_STATUS
    if type(error).__module__.startswith("mlflow"):
        from mlflow.exceptions import RestException  # imported here, since the first contact does not need MLflow

        if isinstance(error, RestException):
            return error.get_http_status_code() in _TRANSIENT_STATUS
    if isinstance(error, OperationalError) and sqlite_path(tracking_uri()) is None:
        return True
    if isinstance(error, requests.RequestException) or _TRANSIENT_TEXT.search(str(error)):
        return True
    cause = error.__cause__ or error.__context__
    return isinstance(cause, Exception) and _is_transient(cause)


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a sqlite URI; None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def get_or_create_experiment(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, which is created if needed; a local store keeps files in `mlruns` beside the database."""
    from mlflow import MlflowException

    database = sqlite_path(tracking_uri())
    location = None if database is None else str(database.parent / "mlruns")

    def find_or_create() -> str:
        if experiment := client.get_experiment_by_name(name):
            if experiment.lifecycle_stage == "deleted":
                number = experiment.experiment_id
                todo = (
                    f"`mlflow experiments restore --experiment-id {number}`, or set another register_model.experiment"
                )
                raise RegistryError("the experiment was deleted", where=scrub(tracking_uri()), got=name, todo=todo)
            return str(experiment.experiment_id)
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            if experiment := client.get_experiment_by_name(name):  # another process created it meanwhile
                return str(experiment.experiment_id)
            raise

    with mlflow_errors(f"experiment {name}"):
        return retrying(f"experiment {name}", find_or_create)


@contextmanager
def mlflow_errors(where: str) -> Iterator[None]:
    """Translate exceptions of MLflow and its database in the block into an error of one line.

    Args:
        where: the run, model or version concerned, for the message.

    Raises:
        RegistryError: MLflow or its database failed; the message contains the first line of the original one.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, _store_exceptions()):
            raise
        first = scrub(str(error).strip().splitlines()[0][:300])
        if is_silent(error):
            todo = "start its server, or correct MLFLOW_S3_ENDPOINT_URL; --wait SECONDS waits for it"
            raise RegistryError(f"{BUCKET} does not answer", where=where, got=first, todo=todo) from error
        raise RegistryError(f"MLflow at {scrub(tracking_uri())} failed", where=where, got=first) from error


def _store_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions of MLflow, its database and its transport, imported here, since boto3 takes a third of a second."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError, Boto3Error, BotoCoreError, ClientError


def _set_defaults() -> None:
    """Disable MLflow's telemetry, pickles, log output and retries; for log output, the user's settings take precedence."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # aupair's models contain no pickle, which could execute any code
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # MLflow repeats every request, also one that creates something: after a lost answer it would exist twice
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _create_database(uri: str, database: Path, create: bool) -> None:
    """Create a new database, under a lock, since two processes at once would fail on a duplicate column."""
    if database.exists() and database.stat().st_size:
        return
    if not create:
        todo = "run `dvc repro`, set MLFLOW_TRACKING_URI to a store that has the model, or name a bundle: --model work/bundle"
        raise RegistryError("no MLflow store yet", where=uri, todo=todo)
    if not os.access(database.parent, os.W_OK):
        raise RegistryError("the MLflow store cannot be written", where=uri, expected="a writable folder")
    with FileLock(f"{database}.lock"):
        if database.exists() and database.stat().st_size:
            return
        with store.atomic(database) as temporary:  # an incomplete store could neither be used nor completed
            _create_tables(f"sqlite:///{temporary}")


def _create_tables(uri: str) -> None:
    """Create MLflow's tables in a new database, in this process, since `mlflow db upgrade` takes seconds to import."""
    import logging

    from mlflow.db import commands

    logging.getLogger("alembic").setLevel(logging.WARNING)
    with mlflow_errors("db upgrade"):
        commands.main(["upgrade", uri], standalone_mode=False)


def _check_address(uri: str) -> None:
    """Check an address for mistakes for which MLflow has no clear message."""
    expected = ""
    try:
        if urlsplit(uri).scheme == "databricks" and "@" in uri:
            expected = "databricks://PROFILE, a profile of ~/.databrickscfg"
    except ValueError:
        expected = "an address, whose password has %5B for [ and %5D for ]"
    if expected:
        what = "not an address of an MLflow store"
        raise RegistryError(what, where="MLFLOW_TRACKING_URI", got=scrub(uri), expected=expected)


def _check_contact(uri: str) -> None:
    """Check that a server or database answers; retry if it has answered before, or if the user set --wait."""
    import requests
    from sqlalchemy.exc import SQLAlchemyError

    service = f"MLflow at {scrub(uri)}"
    try:
        retry(lambda: contact(uri), "the first contact", service, _is_transient, first=seconds_to_wait())
    except (requests.RequestException, SQLAlchemyError, TimeoutError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        cause = (
            getattr(error, "orig", None) or error
        )  # the database's own message, without sqlalchemy's link to its docs
        first = "" if isinstance(error, requests.RequestException) else str(cause).strip().partition("\n")[0][:200]
        got = f"HTTP {status}" if status else scrub(first) or type(error).__name__
        what = f"the MLflow {'server' if uri.startswith('http') else 'database'} does not answer"
        todo = "start it, or correct MLFLOW_TRACKING_URI; --wait SECONDS waits for it"
        raise RegistryError(what, where=scrub(uri), got=got, todo=todo) from error
    except ModuleNotFoundError as error:
        what = "the driver of the MLflow database is not installed"
        raise RegistryError(
            what, where=scrub(uri), got=f"no module {error.name}", todo="install the package that has it"
        ) from error

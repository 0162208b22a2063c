"""A real MLflow server on loopback: its store in PostgreSQL, its artifacts in S3, no key of either with the client."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.s3 import S3, free_ports

READY_SECONDS = 90.0
BUCKET = "mlflow"


@dataclass(frozen=True)
class MLflowServer:
    """Where a server is."""

    port: int

    @property
    def uri(self) -> str:
        """The address that a client uses."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Give the variables of a client: an address, and not one key."""
        return {"MLFLOW_TRACKING_URI": self.uri}


@contextmanager
def mlflow_server(folder: Path, s3: S3) -> Iterator[MLflowServer]:
    """Run a server on 127.0.0.1 until the block ends, its log in a folder; skip the test where PostgreSQL is missing.

    Args:
        folder: an existing one; gets mlflow.log.
        s3: a server that has the bucket "mlflow".
    """
    server = MLflowServer(free_ports(1)[0])
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(server.port),
        "--workers", "1", "--artifacts-destination", f"s3://{BUCKET}/artifacts",
    ]  # fmt: skip
    with postgres() as database:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))},
            **s3.environment(),
            **database,
            "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }
        with open(folder / "mlflow.log", "wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            _wait(server, process, folder / "mlflow.log")
            yield server
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers of uvicorn, too
            process.wait()


@dataclass
class Postgres:
    """A PostgreSQL cluster on a Unix socket, which can be stopped and started.

    Attributes:
        uri: its address for MLflow, without the password.
        password: that of the user `mlflow`.
    """

    uri: str
    password: str
    _control: Sequence[object]
    _options: str
    _become: Mapping[str, Any]
    running: bool = False

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self.running:
            _run(self._become, *self._control, "-o", self._options, "start")
            self.running = True

    def stop(self) -> None:
        """Stop it without waiting for its clients, unless it does not run."""
        if self.running:
            _run(self._become, *self._control, "-m", "immediate", "stop")
            self.running = False


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run a new PostgreSQL cluster on a Unix socket until the block ends.

    It lies in a folder of its own: PostgreSQL refuses to run as root, and a socket's path has at most 107 characters.
    """
    programs = _programs()
    password = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="aupair-pg-") as name:
        home = Path(name)
        (home / "password").write_text(password)
        become = _change_owner(home)
        _run(
            become, programs / "initdb", "-D", home / "data", "-U", "mlflow", "--auth=scram-sha-256",
            f"--pwfile={home / 'password'}", "-E", "UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip
        control = (programs / "pg_ctl", "-D", home / "data", "-w", "-t", "30")
        options, uri = (
            f"-k {home} -c listen_addresses= -c fsync=off",
            f"postgresql+psycopg://mlflow@/postgres?host={home}",
        )
        database = Postgres(uri, password, control, options, become)
        database.start()
        try:
            yield database
        finally:
            database.stop()


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Run a new PostgreSQL cluster until the block ends; yield the variables that make MLflow use it as its store."""
    with postgres_server() as database:
        yield {
            "PGPASSWORD": database.password,  # libpq reads it: it is in no command line and no address
            "MLFLOW_BACKEND_STORE_URI": database.uri,
        }


def _programs() -> Path:
    """Find the folder of PostgreSQL's server programs, or skip the test."""
    folders = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "pg_ctl", "postgres")):
            return folder
    pytest.skip("no PostgreSQL: initdb is neither on PATH nor in /usr/lib/postgresql (apt-get install postgresql)")


def _change_owner(folder: Path) -> dict[str, Any]:
    """Make a user who may run PostgreSQL the owner of a folder, if we are root; return the arguments to run as that user."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known.get("nobody")
    if user is None:
        pytest.skip("no PostgreSQL: root may not run it, and there is neither a user postgres nor nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _run(become: Mapping[str, Any], *command: object) -> None:
    """Run a program as a user; if it fails, raise an error with its output."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    with tempfile.TemporaryFile() as output:  # not a pipe: the server that pg_ctl starts keeps it open
        arguments, quiet = [str(word) for word in command], subprocess.DEVNULL
        done = subprocess.run(arguments, stdin=quiet, stdout=output, stderr=output, cwd="/", env=own, **become)
        output.seek(0)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {output.read().decode(errors='replace')}")


def _wait(server: MLflowServer, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server reports that it is ready."""
    import requests

    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            if requests.get(f"{server.uri}/health", timeout=5).ok:
                return
        except requests.RequestException as error:
            if process.poll() is not None or time.monotonic() > end:
                output = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise RuntimeError(f"the MLflow server is not ready: {error}\n{output}") from error
        time.sleep(0.2)

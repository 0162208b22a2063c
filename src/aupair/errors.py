"""Errors that a user can cause: one class for each exit code, each with a message of one line."""

import difflib
import os
import re
import signal
from collections.abc import Iterable
from urllib.parse import quote, unquote

TERMINATED = 128 + signal.SIGTERM
"""the exit code of a process that SIGTERM has ended, as shells have it"""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint for an unknown name: the nearest known one, or `otherwise` if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


class AupairError(Exception):
    """A problem that the user can solve, with a message of one line: what, where, got, expected, what to do.

    Args:
        what: the problem, preferably as a short sentence.
        where: file, row or key.
        got: the value found there.
        expected: what is valid there.
        todo: the next step for the user.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: object = "", got: object = "", expected: object = "", todo: str = ""
    ) -> None:
        place = f": in {where}" if where != "" else ""
        values = [
            f", {name} {_shorten(value)}" for name, value in (("got", got), ("expected", expected)) if value != ""
        ]
        text = "".join([what, place, *values]) + (f"; {todo}" if todo else "")
        super().__init__(_printable(" ".join(text.split())))


class ParamsError(AupairError):
    """A parameter that is unknown, of the wrong type or out of range (exit code 2, as for wrong usage)."""

    exit_code = 2


class DataError(AupairError):
    """Missing or wrong videos, annotations or splits."""

    exit_code = 3


class ArtifactError(AupairError):
    """A stage's output file that is missing, is corrupt, or does not fit the other files."""

    exit_code = 4


class RegistryError(AupairError):
    """A failed request to MLflow, a missing entry of the registry, or a refusal of the promotion gate."""

    exit_code = 5


class AuthError(AupairError):
    """A request that a server denied: a token or key is missing, is wrong, or does not permit the request."""

    exit_code = 6


class UnreachableError(AupairError):
    """An unreachable server: its name, port, network or certificate is wrong, or it is down."""

    exit_code = 7


class RejectedError(AupairError):
    """A request that a server rejected for a reason other than access."""

    exit_code = 8


class RunFailedError(AupairError):
    """A pipeline run that ended without success."""

    exit_code = 9


class TimedOutError(AupairError):
    """A pipeline run that has not ended within the waiting time."""

    exit_code = 10


class Stopped(AupairError):
    """A process that ended after SIGTERM, with its checkpoint written."""

    exit_code = TERMINATED


class MissingPackageError(AupairError):
    """A package that the command needs and that is not installed; the message names the extra to install."""

    exit_code = 11


def _shorten(value: object, most: int = 500) -> str:
    """Return a value as printable text, with the middle cut out if it is longer than `most` characters."""
    text = _printable(" ".join(str(value).split()))
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _printable(text: str) -> str:
    """Return a text with unprintable characters, such as a terminal's control codes, escaped as in Python."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def scrub(text: str) -> str:
    """Remove user names and passwords from every URL in a text, up to the last @, since a password may contain a slash.

    Those of MLFLOW_TRACKING_URI are removed whatever characters they contain, quoted or not.
    """
    known = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2].rpartition("@")[0]
    for form in {known, unquote(known), quote(known, safe=":@")} - {""}:
        text = text.replace(f"{form}@", "")
    return re.sub(r"(?<!file)(://)[^\s'\"]*@", r"\1", text)

"""The option `--wait` of the commands that open an MLflow store."""

import os
from typing import Annotated

import typer

from aupair.registry.contact import WAIT_VARIABLE


def _set_wait(seconds: float | None) -> float | None:
    """Set the environment variable by which this process, and those that it starts, wait for a store."""
    if seconds is not None:
        os.environ[WAIT_VARIABLE] = str(seconds)
    return seconds


Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        envvar=WAIT_VARIABLE,
        callback=_set_wait,
        help="How long to retry if an MLflow server or database does not answer; default: one attempt.",
    ),
]

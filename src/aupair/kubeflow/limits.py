"""Limits on the number of trials and shards of a run on Kubeflow.

KFP passes all inputs of a task as one text. Argo stores this text, escaped twice, in one environment variable of the task's
pod, for which Linux allows 128 KiB. This limits the lists that the stages after train-pseudo-intensity (one artifact for each
trial) and gather-predictions (one for each shard) receive. A shard holds any number of videos.
"""

from aupair.errors import ParamsError

MAX_TRIALS = 80
"""Maximum number of trials of a run."""

MAX_SHARDS = 100
"""Maximum number of shards of a run."""


def check_trials(number: int) -> None:
    """Check that the outputs of this many trials fit into the input of one task.

    Raises:
        ParamsError: they do not.
    """
    _check_number("trials", number, MAX_TRIALS, "split them among several runs, or use `dvc repro`")


def check_shards(number: int) -> None:
    """Check that the outputs of this many shards fit into the input of one task.

    Raises:
        ParamsError: they do not.
    """
    _check_number("shards", number, MAX_SHARDS, "a shard holds any number of videos")


def _check_number(name: str, number: int, most: int, todo: str) -> None:
    if number > most:
        expected = f"at most {most}, since Kubeflow passes the outputs of all {name} to one task as one argument"
        raise ParamsError(f"too many {name}", got=number, expected=expected, todo=todo)

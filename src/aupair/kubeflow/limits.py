"""How many trials and shards a run on Kubeflow can have.

KFP hands a task all its inputs as one text. Linux accepts 128 KiB in one argument or variable of a process, and Argo puts
the text, escaped twice, into one variable of the task's pod. So the lists that evaluate, register-model (four artifacts a
trial) and gather-predictions (one a shard) get have a greatest length. A shard holds any number of videos.
"""

from aupair.errors import ParamsError

MAX_TRIALS = 20
MAX_SHARDS = 100


def check_trials(number: int) -> None:
    """Check that the outputs of so many trials fit into the input of one task.

    Raises:
        ParamsError: they do not.
    """
    _check_number("trials", number, MAX_TRIALS, "split them among several runs, or use `dvc repro`")


def check_shards(number: int) -> None:
    """Check that the outputs of so many shards fit into the input of one task.

    Raises:
        ParamsError: they do not.
    """
    _check_number("shards", number, MAX_SHARDS, "a shard holds any number of videos")


def _check_number(name: str, number: int, most: int, todo: str) -> None:
    if number > most:
        expected = f"at most {most}, since Kubeflow passes the outputs of all {name} to one task as one argument"
        raise ParamsError(f"parameter {name}", got=f"{number} {name}", expected=expected, todo=todo)

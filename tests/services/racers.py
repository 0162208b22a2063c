"""Commands on the registry in processes of their own, at the same moment, some of which are killed on the way."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

GATE = Path(__file__).parents[2] / "mlflow" / "registry.yaml"
SECONDS = 300.0
_WRITES = (
    "set_registered_model_alias", "delete_registered_model_alias", "set_registered_model_tag",
    "delete_registered_model_tag", "set_model_version_tag",
)  # fmt: skip


def race(commands: Sequence[Sequence[Any]], environment: Mapping[str, str], die_after: int = -1) -> list[str]:
    """Run commands at once; return what each said: `ok ...`, the line of its error, or `killed`.

    Args:
        commands: ("promote", version, name), ("rollback", name), ("register", folder, name) or ("call", folder, callable).
        environment: variables of the store.
        die_after: the number of writes to MLflow after which each is killed; -1: never.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "sqlalchemy", "aupair.registry.register", "bundle_parts"])
    barrier, results = context.Barrier(len(commands)), context.Queue()
    processes = [
        context.Process(target=_run, args=(k, command, dict(environment), die_after, barrier, results))
        for k, command in enumerate(commands)
    ]
    for process in processes:
        process.start()
    said = {}
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}"
    while not results.empty():
        index, text = results.get()
        said[index] = text
    return [said.get(k, "killed") for k in range(len(commands))]


def _run(
    index: int, command: Sequence[Any], environment: Mapping[str, str], die_after: int, barrier: Any, results: Any
) -> None:
    """Run a command when all processes are there."""
    from aupair.errors import AupairError

    os.environ.update(environment)
    if die_after >= 0:
        _die_after(die_after)
    verb, *arguments = command
    barrier.wait()
    try:
        results.put((index, f"ok {_ACTIONS[verb](*arguments)}"))
    except AupairError as error:
        results.put((index, str(error)))


def _promote(version: int, name: str) -> int:
    from aupair.registry.promotion import promote_version

    return promote_version(version, gate=GATE, name=name).number


def _roll_back(name: str) -> int:
    from aupair.registry.promotion import roll_back

    return roll_back(name).number


def _register(folder: str, name: str) -> int:
    from aupair.params import parse_params
    from aupair.registry.register import register_bundle
    from bundle_parts import write_parts

    params = parse_params({"register_model": {"name": name, "experiment": name}})
    work = Path(folder) / str(os.getpid())
    return register_bundle(work / "bundle", write_parts(work), (), (), params).version


def _call(folder: str, call: Callable[[], object]) -> object:
    os.chdir(folder)
    return call()


_ACTIONS: dict[str, Callable[..., object]] = {
    "promote": _promote, "rollback": _roll_back, "register": _register, "call": _call,
}  # fmt: skip


def _die_after(count: int) -> None:
    """Kill this process after that number of writes to the registry."""
    from mlflow import MlflowClient

    done = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if done == count:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            return write(*arguments, **named)

        return call

    for name in _WRITES:
        setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))

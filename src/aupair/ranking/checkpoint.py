"""Checkpoints, from which an interrupted training stage continues and gives the same bits as an uninterrupted one.

They are written outside the stage's output, since DVC deletes the output before it runs a stage again, and are deleted
when the output has been written.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aupair import __version__, store
from aupair.disk import exclusive
from aupair.errors import Stopped
from aupair.log import SILENT, Log
from aupair.ranking.distributed import broadcast_from_main, catch_sigterm, check_device, is_main, world_size
from aupair.ranking.networks import pick_device
from aupair.training_params import TrainPseudoIntensity, TrainUncertainty

FOLDER_VARIABLE = "AUPAIR_CHECKPOINTS"
"""environment variable that names a persistent folder, such as a volume of a cluster; several runs may share it"""

SECONDS = 60.0
"""minimum time between two checkpoints"""
SHARE = 0.05
"""maximum fraction of the time that is spent on writing checkpoints; the time between them is longer if necessary"""


@dataclass
class TrainingState:
    """The state of a fit, on which its next step depends.

    Attributes:
        generator: random numbers of the augmentation.
        step: number of completed steps.
        losses: the losses of the steps since the last evaluation, on the device, since reading one waits for the device.
        best_loss, best_weights: the lowest loss of an evaluation and the weights at that evaluation (`keep: best`).
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    device: torch.device
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] | None = None

    def read_losses(self) -> list[float]:
        """Return the losses since the last evaluation; this waits for the device."""
        return torch.stack(self.losses).tolist() if self.losses else []

    def out_of_patience(self, patience: int) -> bool:
        """Return whether the last `patience` evaluations brought no lower loss; False for a patience of 0.

        It depends only on the curves, which a finished fit stores as well, so that such a fit is not continued.
        """
        losses = [row["loss"] for row in self.curves]
        return 0 < patience < len(losses) and min(losses[:-patience]) <= min(losses[-patience:])

    def finished(self) -> dict[str, Any]:
        """Return the part of the state that is stored after the end of the fit: step, weights and curves."""
        return {"step": self.step, "model": self.model.state_dict(), "curves": self.curves}

    def unfinished(self) -> dict[str, Any]:
        """Return the whole state as plain values, including the state of torch's global generators."""
        return self.finished() | {
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "losses": self.read_losses(), "best": self.best_loss, "kept": self.best_weights,
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the state that `unfinished` or `finished` returned."""
        self.step, self.curves = saved["step"], saved["curves"]
        self.model.load_state_dict(saved["model"])
        if "optimiser" not in saved:
            return
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"] is not None:
            torch.cuda.set_rng_state(saved["cuda"], self.device)
        self.losses = list(torch.tensor(saved["losses"], device=self.device))
        self.best_loss, self.best_weights = saved["best"], saved["kept"]


@dataclass
class Checkpoint:
    """A file with the training state of one network; only a run with the same key can continue from it."""

    path: Path
    key: str
    _next: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def load(self, log: Log = SILENT) -> dict[str, Any] | None:
        """Return the last saved state, with tensors on the CPU, or None; the first process reads it for all."""
        return broadcast_from_main(self._read(log) if is_main() else None)

    def _read(self, log: Log) -> dict[str, Any] | None:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            key, state = content["key"], content["state"]
        except FileNotFoundError:
            return None
        # torch and pickle raise many types of exception for a broken file, none of which may end the stage
        except Exception as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            log.line(f"starting over: {self.path} cannot be read: {reason}")
            return None
        if key != self.key:
            log.line(f"starting over: {self.path} was written with other settings or data")
            return None
        return state

    def due(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() >= self._next

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file; only the first process writes. A state contains tensors, numbers, strings, lists and dicts.

        Raises:
            AupairError: the file cannot be written.
        """
        start = time.monotonic()
        if is_main():
            with store.atomic(self.path) as temporary, open(temporary, "wb") as file:
                torch.save(
                    {"key": self.key, "state": dict(state)}, file
                )  # with a path, torch hides the cause of an error
        now = time.monotonic()
        self._next = now + max(SECONDS, (now - start) / SHARE)


@contextmanager
def resumable(
    state: TrainingState, checkpoint: Checkpoint | None, name: str, steps: int, log: Log
) -> Iterator[Callable[[bool], None]]:
    """Restore a fit from its checkpoint, and save its end when the block ends; without a checkpoint do nothing.

    Yields:
        A function to call after each step, with whether the model was evaluated after the step. It saves the state after
        an evaluation and when a checkpoint is due; after SIGTERM it saves the state and raises Stopped.

    Raises:
        Stopped: a process received SIGTERM.
    """
    if checkpoint is None:
        yield lambda evaluated: None
        return
    with catch_sigterm() as stop_requested:
        if saved := checkpoint.load(log):
            state.restore(saved)
            log.line(f"resuming {name} at step {state.step} of {steps}")
        first = state.step

        def save_if_due(evaluated: bool) -> None:
            stop = stop_requested()
            if stop or (state.step < steps and (evaluated or checkpoint.due())):
                checkpoint.save(state.unfinished())
            if stop:
                at = f"SIGTERM at step {state.step} of {steps}"
                raise Stopped("stopped", where=name, got=at, todo="run it again to continue")

        yield save_if_due
        if first < steps:
            checkpoint.save(state.finished())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run of a stage, with one file per network."""

    folder: Path
    key: str

    def for_network(self, name: str) -> Checkpoint:
        """Return the checkpoint of one network."""
        return Checkpoint(self.folder / f"{name}.pt", self.key)


@contextmanager
def checkpointing(
    name: str, folder: Path | None, inputs: Mapping[str, Path], settings: Mapping[str, Any], log: Log = SILENT
) -> Iterator[Checkpoints | None]:
    """Yield the checkpoints of a stage, and delete them when the block ends without an error.

    A run waits while another run uses the same folder. A volume named by AUPAIR_CHECKPOINTS is not locked, since a machine
    that was lost could hold the lock for hours.

    Args:
        name: name of the stage and the trial.
        folder: folder of the checkpoints, unless AUPAIR_CHECKPOINTS names another; without either there are none.
        inputs: files and folders that the stage reads.
        settings: everything else on which the results of the stage depend, as JSON.
    """
    shared = os.environ.get(FOLDER_VARIABLE)
    if not shared and folder is None:
        yield None
        return
    machine = {"version": __version__, "torch": torch.__version__, "processes": world_size()}
    key = digest(inputs, {"stage": name, **machine, **settings}) if is_main() else ""
    if shared:  # in the default folder no key is needed: the next run of the stage replaces the files
        folder, name = Path(shared), f"{name}-{key[:16]}"
    checkpoints = Checkpoints(Path(folder or "") / name, key)
    if is_main():
        store.check_writable(checkpoints.folder)
    with ExitStack() as stack:
        if is_main() and not shared:
            stack.enter_context(exclusive(checkpoints.folder, partial(log.line, f"waiting for another {name}")))
        yield checkpoints
        if is_main():
            shutil.rmtree(checkpoints.folder, ignore_errors=True)


def training_settings(section: TrainPseudoIntensity | TrainUncertainty, seed: int) -> dict[str, Any]:
    """Return the settings on which the results of a training depend: section of the params, seed and type of device.

    Raises:
        ParamsError: there is no such device, or there are fewer GPUs than processes.
    """
    device = pick_device(section.device)
    check_device(device)
    return {"seed": seed, "device": device.type, "section": section.model_dump(mode="json")}


def digest(inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings and of the contents of files and folders, wherever these are."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, root in sorted(inputs.items()):
        for path in sorted(path for path in (root, *root.rglob("*")) if path.is_file()):
            with open(path, "rb") as file:
                total.update(f"\0{name}/{path.relative_to(root)}\0".encode())
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()

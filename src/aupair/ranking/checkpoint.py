"""Checkpoints, from which an interrupted training stage continues where it stopped, and ends with the same bits.

They are written outside the stage's output, since DVC deletes that before it runs a stage again, and are deleted when the
output has been written.
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
"""environment variable with a folder that outlives the machine, such as a volume of a cluster; many runs may share it"""

SECONDS = 60.0
"""a checkpoint is due this long after the last one"""
SHARE = 0.05
"""a checkpoint is due later than that if writing would otherwise take more than this share of the time"""


@dataclass
class TrainingState:
    """All that the next step of a fit depends on.

    Attributes:
        generator: random numbers of the augmentation.
        step: number of steps done.
        losses: those of the steps since the last evaluation, left on the device, since reading one waits for the device.
        best_loss, best_weights: the lowest loss of an evaluation, and the weights that had it (`keep: best`).
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
        """Wait for the steps and return their losses."""
        return torch.stack(self.losses).tolist() if self.losses else []

    def out_of_patience(self, patience: int) -> bool:
        """Return whether the last `patience` evaluations brought no lower loss; False for a patience of 0.

        It follows from the curves, which are stored with a finished fit, too: that fit is not taken up again.
        """
        losses = [row["loss"] for row in self.curves]
        return 0 < patience < len(losses) and min(losses[:-patience]) <= min(losses[-patience:])

    def finished(self) -> dict[str, Any]:
        """Return the part of the state that is stored after the end of the fit: step, weights and curves."""
        return {"step": self.step, "model": self.model.state_dict(), "curves": self.curves}

    def unfinished(self) -> dict[str, Any]:
        """Return the whole state as plain values; torch's own generators are part of it."""
        return self.finished() | {
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "losses": self.read_losses(), "best": self.best_loss, "kept": self.best_weights,
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to the state that `unfinished` or `finished` returned."""
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
    """A file with the training state of one network; only a run with the same key continues from it."""

    path: Path
    key: str
    _next: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def load(self, log: Log = SILENT) -> dict[str, Any] | None:
        """Return the last saved state, with tensors on the CPU, or None; all processes get that of the first."""
        return broadcast_from_main(self._read(log) if is_main() else None)

    def _read(self, log: Log) -> dict[str, Any] | None:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            key, state = content["key"], content["state"]
        except FileNotFoundError:
            return None
        except (
            Exception
        ) as error:  # torch and pickle raise a dozen types for a broken file; for none should the stage fail
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            log.line(f"starting over: {self.path} cannot be read: {reason}")
            return None
        if key != self.key:
            log.line(f"starting over: {self.path} is of other settings or data")
            return None
        return state

    def due(self) -> bool:
        """Return whether the last checkpoint is so old that an interruption would lose too much."""
        return time.monotonic() >= self._next

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file; only the first process writes. A state holds tensors, numbers, strings, lists and dicts.

        Raises:
            AupairError: the file cannot be written.
        """
        start = time.monotonic()
        if is_main():
            with store.atomic(self.path) as temporary, open(temporary, "wb") as file:
                torch.save({"key": self.key, "state": dict(state)}, file)  # a path would lose the reason of a failure
        now = time.monotonic()
        self._next = now + max(SECONDS, (now - start) / SHARE)


@contextmanager
def resumable(
    state: TrainingState, checkpoint: Checkpoint | None, name: str, steps: int, log: Log
) -> Iterator[Callable[[bool], None]]:
    """Restore a fit from its checkpoint, and save it again when the block ends; without a checkpoint do nothing.

    Yields:
        A function to call after each step with whether the model was evaluated after it. It saves the state after an
        evaluation and when a checkpoint is due; after SIGTERM it saves the state and raises.

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
    """The checkpoints of one run of a stage, one file per network."""

    folder: Path
    key: str

    def for_network(self, name: str) -> Checkpoint:
        """Return the checkpoint of one network."""
        return Checkpoint(self.folder / f"{name}.pt", self.key)


@contextmanager
def checkpointing(
    name: str, folder: Path | None, inputs: Mapping[str, Path], settings: Mapping[str, Any], log: Log = SILENT
) -> Iterator[Checkpoints | None]:
    """Yield the checkpoints of a stage; delete them when the block ends, unless it fails.

    Of two runs at once in one working folder, the second one waits. A volume that AUPAIR_CHECKPOINTS names is not locked:
    a machine that was lost may hold the lock for hours.

    Args:
        name: name of the stage and the trial.
        folder: folder of the checkpoints, unless AUPAIR_CHECKPOINTS names another; without either there are none.
        inputs: files and folders that the stage reads.
        settings: everything else that its results depend on, as JSON.
    """
    shared = os.environ.get(FOLDER_VARIABLE)
    if not shared and folder is None:
        yield None
        return
    machine = {"version": __version__, "torch": torch.__version__, "processes": world_size()}
    key = digest(inputs, {"stage": name, **machine, **settings}) if is_main() else ""
    if shared:  # in the default folder the next run of the stage replaces the files, so that they do not accumulate
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
    """Return what the results of a training depend on besides its inputs: section of the params, seed, kind of device.

    Raises:
        ParamsError: there is no such device, or not one for each process.
    """
    device = pick_device(section.device)
    check_device(device)
    return {"seed": seed, "device": device.type, "section": section.model_dump(mode="json")}


def digest(inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    """Return a hash of settings and of the content of files and folders; their location does not matter."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, root in sorted(inputs.items()):
        for path in sorted(path for path in (root, *root.rglob("*")) if path.is_file()):
            with open(path, "rb") as file:
                total.update(f"\0{name}/{path.relative_to(root)}\0".encode())
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()

"""Checkpoints: a training stage that was killed goes on where it stood, and ends with the same bits.

They lie outside the stage's output, since DVC deletes that before it runs a stage again, and go when it is written.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aupair import __version__, store
from aupair.errors import AupairError
from aupair.log import SILENT, Log
from aupair.params import TrainPseudoIntensity, TrainUncertainty
from aupair.ranking.distributed import broadcast_from_main, check_device, is_main, world_size
from aupair.ranking.networks import pick_device

SHARED = "AUPAIR_CHECKPOINTS"
"""names a folder that outlives the machine, such as a volume of a cluster; many runs may share it"""

SECONDS = 60.0
"""a step that ends longer than this after the last checkpoint writes one"""
SHARE = 0.05
"""but writing must not take more than this of the time"""


@dataclass
class Checkpoint:
    """The state of one network's training, as a file that only runs of the same key take up."""

    path: Path
    key: str
    _next: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def load(self, log: Log = SILENT) -> dict[str, Any] | None:
        """Give the state that was saved last, tensors on the CPU, or None; all processes get the first one's."""
        return broadcast_from_main(self._read(log) if is_main() else None)

    def _read(self, log: Log) -> dict[str, Any] | None:
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            key, state = found["key"], found["state"]
        except FileNotFoundError:
            return None
        except Exception as error:  # torch and pickle raise a dozen kinds on a broken file; none is worth stopping for
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            log.line(f"starting over: {self.path} cannot be read: {reason}")
            return None
        if key != self.key:
            log.line(f"starting over: {self.path} is of other settings or data")
            return None
        return state

    def due(self) -> bool:
        """Whether the last one is so old that too much would be lost."""
        return time.monotonic() >= self._next

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the last one: tensors, numbers, strings, lists and dicts; the first process alone writes.

        Raises:
            AupairError: it cannot be written.
        """
        start = time.monotonic()
        if is_main():
            try:
                with store.atomic(self.path) as temporary:
                    torch.save({"key": self.key, "state": dict(state)}, temporary)
            except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
                raise AupairError(
                    "cannot write a checkpoint", where=self.path, got=str(error).partition("\n")[0],
                    todo=f"make room, or name another folder in {SHARED}",
                ) from error  # fmt: skip
        now = time.monotonic()
        self._next = now + max(SECONDS, (now - start) / SHARE)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run of a stage, a file for each network."""

    folder: Path
    key: str

    def for_network(self, name: str) -> Checkpoint:
        """Give a network's."""
        return Checkpoint(self.folder / f"{name}.pt", self.key)


@contextmanager
def checkpointing(
    name: str, folder: Path | None, inputs: Mapping[str, Path], settings: Mapping[str, Any]
) -> Iterator[Checkpoints | None]:
    """Keep checkpoints while a stage runs; they are deleted when the block ends, and stay when it fails.

    Args:
        name: the stage and the trial.
        folder: where they lie, unless AUPAIR_CHECKPOINTS names another; None: without it there are none.
        inputs: files and folders that the stage reads.
        settings: what else its numbers depend on, as JSON.
    """
    shared = os.environ.get(SHARED)
    if not shared and folder is None:
        yield None
        return
    machine = {"version": __version__, "torch": torch.__version__, "processes": world_size()}
    key = digest(inputs, {"stage": name, **machine, **settings}) if is_main() else ""
    if shared:
        folder, name = Path(shared), f"{name}-{key[:16]}"  # elsewhere another run replaces what it finds: no pile grows
    checkpoints = Checkpoints(Path(folder or "") / name, key)
    if is_main():
        store.check_writable(checkpoints.folder)
    yield checkpoints
    if is_main():
        shutil.rmtree(checkpoints.folder, ignore_errors=True)


def training_settings(section: TrainPseudoIntensity | TrainUncertainty, seed: int) -> dict[str, Any]:
    """Give what a training's numbers depend on besides its inputs: its section of the params, seed, kind of device.

    Raises:
        ParamsError: there is no such device, or not one for each process: told before anything is loaded.
    """
    device = pick_device(section.device)
    check_device(device)
    return {"seed": seed, "device": device.type, "section": section.model_dump(mode="json")}


def digest(inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    """Hash settings and the content of files and folders; where those lie does not matter."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, root in sorted(inputs.items()):
        for path in sorted(path for path in (root, *root.rglob("*")) if path.is_file()):
            with open(path, "rb") as file:
                total.update(f"\0{name}/{path.relative_to(root)}\0".encode())
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()

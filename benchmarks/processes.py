"""How much faster is a training step of f with two processes?

torchrun and gloo, one thread each, against one process of one thread; the same batches, at the demo's size, without
batch norms as at Aff-Wild2's and with them as in the demo.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, main
from pairs import make_demo_frames

from aupair.params import load_params
from aupair.ranking.distributed import is_main, process_group
from aupair.ranking.fit import FitJob, fit
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import draw_groups
from aupair.ranking.sampling import GroupSampler

ROOT = Path(__file__).parents[1]
GOAL = 1.7
STEPS, UNTIMED_STEPS, ROUNDS = 24, 2, 2
SMALL_SIZE, SMALL_WIDTH = 32, 0.05
"""pixels and width of the networks whose curves are compared"""
TOLERANCE = 1e-9
"""largest difference of their losses, in float64: in float32 another order of sums changes the course of Adam, which
divides by a gradient's size"""


def measure() -> list[Row]:
    """Compare both kinds of network."""
    return [compare("without batch norms", False), compare("with 13 batch norms of the whole batch", True)]


def compare(kind: str, batch_norm: bool) -> Row:
    """Train with one process and with two, in turn."""
    runs = [[train(processes, batch_norm) for processes in (1, 2)] for _ in range(ROUNDS)]
    one, two = (min(run["seconds"] for run in column) for column in zip(*runs))
    rough = loss_differences(*runs[0])
    exact = [train(processes, batch_norm, exact=True) for processes in (1, 2)]
    close = loss_differences(*exact)
    assert close.max() < TOLERANCE, close
    losses = exact[0]["losses"]
    return Row(
        question=f"seconds a training step, two processes of one thread, {kind}",
        ours=f"{two:.3f} ({len(os.sched_getaffinity(0))} cores)",
        reference=f"one process of one thread: {one:.3f}", ratio=one / two, goal=f"{GOAL:g} x", met=one / two >= GOAL,
        same=f"{runs[0][0]['frames']} frames a step; in float64 on {SMALL_SIZE} pixels, {STEPS} steps, loss "
        f"{losses[0]:.3f} to {losses[-1]:.3f}: at most {close.max():.0e} apart; in the float32 that is timed "
        f"{rough[0]:.0e} at the first step, {rough.max():.0e} at most",
    )  # fmt: skip


def loss_differences(one: dict[str, Any], two: dict[str, Any]) -> np.ndarray:
    """Return the difference of the losses of each step, (steps,)."""
    return np.abs(np.subtract(one["losses"], two["losses"]))


def train(processes: int, batch_norm: bool, *, exact: bool = False) -> dict[str, Any]:
    """Train in processes of their own; return the seconds of a step, its frames and the loss of each step."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        flags = [*(["--exact"] if exact else []), *(["--batch-norm"] if batch_norm else [])]
        command = [sys.executable, *(torchrun if processes > 1 else []), __file__, "--child", str(out), *flags]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return json.loads(out.read_text())


def train_in_this_process(out: Path, exact: bool, batch_norm: bool) -> None:
    """Fit f for some steps, with an evaluation that only takes the time after each, and write the results."""
    torch.set_num_threads(1)
    frames, f = make_demo_frames(), "train_pseudo_intensity"
    overrides = [f"{f}.optimiser.evaluate_every=1", f"{f}.network.batch_norm={batch_norm}"]
    if exact:
        overrides += [f"preprocess_faces.size={SMALL_SIZE}", f"{f}.network.width={SMALL_WIDTH}"]
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # for explicit casts to float32
    params = load_params(ROOT / "params.yaml", overrides)
    section, size = params.train_pseudo_intensity, params.preprocess_faces.size
    groups = draw_groups(frames, params.sample_pairs.frames, 4, (0, 1))
    sampler = GroupSampler(frames, groups, section.optimiser.batch // groups.shape[1], (0, 0))
    noise = np.random.default_rng(0).integers(0, 128, (len(frames), size, size, 3), np.uint8)
    images = noise + (frames.labels.sum(1)[:, None, None, None] * 8).astype(np.uint8)
    ends: list[float] = []

    def evaluate_on_select(model: torch.nn.Module) -> dict[str, float]:
        ends.append(time.perf_counter())
        return {"loss": 0.0}

    job = FitJob(
        images=images.__getitem__, sampler=sampler, evaluate_on_select=evaluate_on_select, seed=0, name="f",
        augment=section.augment,
        batch_loss=lambda outputs, rows, pairs: ranking_loss(outputs, pairs, section.margin),
    )  # fmt: skip
    with process_group():
        curves = fit(build_network(section.network, size, 0), job, section.optimiser, STEPS)
        if is_main():
            seconds = (ends[-1] - ends[UNTIMED_STEPS - 1]) / (STEPS - UNTIMED_STEPS)
            losses = [row["train_loss"] for row in curves]
            out.write_text(json.dumps({"seconds": seconds, "losses": losses, "frames": len(sampler(0)[0])}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--batch-norm", action="store_true")
    options, _ = parser.parse_known_args()
    if options.child:
        train_in_this_process(options.child, options.exact, options.batch_norm)
    else:
        main(measure)

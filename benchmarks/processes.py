"""What do two processes bring to a training step of f? torchrun and gloo, one thread each, against one process of one
thread; the same batches, at the demo's size, without batch norms as at Aff-Wild2's and with them as in the demo."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import Row, main
from pairs import demo_frames

from aupair.params import load_params
from aupair.ranking.distributed import is_main, process_group
from aupair.ranking.fit import FitJob, fit
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import draw_groups
from aupair.ranking.sampling import GroupSampler

ROOT = Path(__file__).parents[1]
GOAL = 1.7
STEPS = 24
WARM = 2
"""steps that are not timed"""
ROUNDS = 2
SMALL, WIDTH = 32, 0.05
"""pixels and width of the run whose curves are compared"""
APART = 1e-9
"""How far its losses may be apart, in float64: in float32 another order of sums is enough for Adam, which divides by a
gradient's size, to part the ways."""


def measure() -> list[Row]:
    """Ask for both kinds of network."""
    return [compare("without batch norms", False), compare("with 13 batch norms of the whole batch", True)]


def compare(kind: str, batch_norm: bool) -> Row:
    """Train with one process and with two, in turn."""
    results: dict[int, list[dict]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for processes, kept in results.items():
            kept.append(train(processes, batch_norm))
    one, two = (min(result["seconds"] for result in results[processes]) for processes in (1, 2))
    rough = apart(results[1][0], results[2][0])
    exact = train(1, batch_norm, exact=True)
    close = apart(exact, train(2, batch_norm, exact=True))
    assert close.max() < APART, close
    curve = f"{STEPS} steps, loss {exact['losses'][0]:.3f} to {exact['losses'][-1]:.3f}"
    return Row(
        question=f"seconds a training step, two processes of one thread, {kind}",
        ours=f"{two:.3f} ({len(os.sched_getaffinity(0))} cores)",
        reference=f"one process of one thread: {one:.3f}", ratio=one / two, goal=f"{GOAL:g} x", met=one / two >= GOAL,
        same=f"{results[1][0]['frames']} frames a step; in float64 on {SMALL} pixels, {curve}: at most {close.max():.0e} "
        f"apart; in the float32 that is timed {rough[0]:.0e} at the first step, {rough.max():.0e} at most",
    )  # fmt: skip


def apart(one: dict, two: dict) -> np.ndarray:
    """Give how far the losses of each step are apart."""
    return np.abs(np.subtract(one["losses"], two["losses"]))


def train(processes: int, batch_norm: bool, *, exact: bool = False) -> dict:
    """Train in processes of their own; give the seconds of a step, its frames and the loss of each step."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        flags = [*(["--exact"] if exact else []), *(["--batch-norm"] if batch_norm else [])]
        command = [*start, __file__, "--child", str(out), *flags]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return json.loads(out.read_text())


def child(out: Path, exact: bool, batch_norm: bool) -> None:
    """Fit f for some steps, a look after each, and write what came of it."""
    torch.set_num_threads(1)
    frames, f = demo_frames(), "train_pseudo_intensity"
    settings = [f"{f}.optimiser.evaluate_every=1", f"{f}.network.batch_norm={batch_norm}"]
    if exact:
        settings += [f"preprocess_faces.size={SMALL}", f"{f}.network.width={WIDTH}"]
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # what takes care to be float32
    params = load_params(ROOT / "params.yaml", settings)
    section, size = params.train_pseudo_intensity, params.preprocess_faces.size
    groups = draw_groups(frames, params.sample_pairs.frames, 4, (0, 1))
    sampler = GroupSampler(frames, groups, section.optimiser.batch // groups.shape[1], (0, 0))
    noise = np.random.default_rng(0).integers(0, 128, (len(frames), size, size, 3), np.uint8)
    pixels = noise + (frames.labels.sum(1)[:, None, None, None] * 8).astype(np.uint8)
    ends: list[float] = []

    def evaluate_on_select(model: torch.nn.Module) -> dict[str, float]:
        ends.append(time.perf_counter())
        return {"loss": 0.0}

    job = FitJob(
        images=pixels.__getitem__, sampler=sampler, evaluate_on_select=evaluate_on_select, seed=0, name="f",
        augment=section.augment,
        batch_loss=lambda outputs, rows, pairs: ranking_loss(outputs, pairs, section.margin),
    )  # fmt: skip
    with process_group():
        curves = fit(build_network(section.network, size, 0), job, section.optimiser, STEPS)
        if is_main():
            seconds = (ends[-1] - ends[WARM - 1]) / (STEPS - WARM)
            losses = [row["train_loss"] for row in curves]
            out.write_text(json.dumps({"seconds": seconds, "losses": losses, "frames": len(sampler(0)[0])}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--batch-norm", action="store_true")
    options, _ = parser.parse_known_args()
    if options.child:
        child(options.child, options.exact, options.batch_norm)
    else:
        main(measure)

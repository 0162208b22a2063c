"""Do two nodes, by a TrainJob of Kubeflow Trainer, give the loss curve of one process with the same global batch?

Both train f in containers of the image, by the component's own code and the container backend of Kubeflow's SDK: on two
nodes, and on one, which is a single process. In float32 two orders of a sum part: batch norms and Adam, which divides by
a gradient's size, make more of the last digit at each step, until the curves only look alike. So the curves are held
against each other in float64, and both figures are given. Here the nodes share one machine's cores: seconds a step (in
float32) tell what the way between them costs, not what a second machine brings. Needs an image of this checkout
(`make image`), docker or `podman system service` (DOCKER_HOST), and then

    IMAGE=aupair:1a2b3c4 python benchmarks/nodes.py
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, main

from aupair import stages, store
from aupair.kubeflow import nodes
from aupair.kubeflow.trainjob import TrainJob
from aupair.log import Log
from aupair.params import Params, check
from aupair.synth.corpus import Corpus, synthesise

STEPS, EVERY = 20, 5
TOLERANCE = 1e-6
"""of a loss near 1, in float64"""
FLOAT64 = """import torch
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # what takes care to be float32
"""
"""What the nodes' Python runs when it starts."""
NETWORK = {"width": 0.25, "batch_norm": True, "weights": "none", "frozen_convolutions": 0, "dropout": 0.0}
OPTIMISER = {"name": "adamw", "learning_rate": 3e-4, "steps": STEPS, "videos": 4, "evaluate_every": EVERY}
SETTINGS: dict[str, Any] = {
    "trials": [0],
    "preprocess_faces": {"size": 64},
    "sample_pairs": {"folds": 1},
    "train_pseudo_intensity": {"network": NETWORK, "optimiser": OPTIMISER, "device": "cpu"},
}


class Looks(Log):
    """Passes lines on, and notes when each look at the loss was told."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def line(self, text: str) -> None:
        print(f"  {text}", flush=True)
        if found := re.search(r"step (\d+): f\.final", text):
            self.times[int(found[1])] = time.perf_counter()

    def seconds_a_step(self) -> float:
        """Give the time of a step, with its share of a look; the first look is left out, since it comes after a start."""
        return (self.times[STEPS] - self.times[EVERY]) / (STEPS - EVERY)


def train(params: Params, root: Path, count: int, env: dict[str, str]) -> tuple[np.ndarray, float]:
    """Train f on some nodes; give (looks, 2), the loss of the batches and of fixed pairs, and seconds a step."""
    print(f"f on {count} node{'s' * (count > 1)}{', float64' * bool(env)}", flush=True)
    looks, job = Looks(), TrainJob(nodes=count, image=os.environ["IMAGE"], env=env)
    nodes.train(stages.find("train-pseudo-intensity"), params, root, 0, job, looks)
    rows = store.read_jsonl(root / stages.ARTIFACTS["f"].format(trial=0) / "curves.jsonl")
    return np.array([[row["train_loss"], row["loss"]] for row in rows]), looks.seconds_a_step()


def measure() -> list[Row]:
    """Train both ways on the synthetic corpus and compare the curves."""
    if "IMAGE" not in os.environ:
        sys.exit("nodes: set IMAGE to what `make image` printed")
    params = check(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesise(root / "data", Corpus(subjects=8, seconds=5, fps=6))
        for name in ("check-data", "preprocess-faces", "sample-pairs"):
            stages.run(name, params, root=root)
        os.environ["AUPAIR_CHECKPOINTS"] = str(root / "shared")
        store.write_text(root / "shared" / "float64" / "sitecustomize.py", FLOAT64)
        env = {"PYTHONPATH": str(root / "shared" / "float64")}
        (two, two_seconds), (one, one_seconds) = (train(params, root, count, {}) for count in (2, 1))
        (two64, _), (one64, _) = (train(params, root, count, env) for count in (2, 1))
    apart, apart32 = np.abs(two64 - one64), np.abs(two - one)
    return [
        Row(
            "two nodes (TrainJob, containers on this machine)",
            f"{two_seconds:.2f} s a step",
            f"one process: {one_seconds:.2f} s a step",
            None,
            "the same loss curve",
            bool(apart.max() <= TOLERANCE),
            f"float64, {len(one64)} looks: losses at most {apart.max():.1e} apart (allowed {TOLERANCE}), while those of the "
            f"batches fell from {one64[0, 0]:.2f} to {one64[-1, 0]:.2f}; float32: {apart32[0, 0]:.1e} at step {EVERY}, "
            f"{apart32[-1, 0]:.1e} at step {STEPS}",
        )
    ]


if __name__ == "__main__":
    main(measure)

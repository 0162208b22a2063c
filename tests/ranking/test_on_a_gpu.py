"""On a GPU: compiled steps, replayed as CUDA graphs while a thread makes the next batches, and scoring."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.fit import forward_all
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import Pairs
from aupair.training_params import Backbone, Network
from face_files import FaceFiles, train_toy
from listener import Listener
from training_sets import alternating_labels, make_batch

LABELS = alternating_labels(24)
STEPS = 12
"""the first full batches are warmed up and recorded, the others replayed"""
RATE = 1e-4
"""so small that a gradient of nearly zero, whose sign other kernels may turn, moves no loss by much"""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def full_precision() -> Any:
    """Compute convolutions in float32, not in TF32, so that two ways can be compared."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def full(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
    """Return a batch of always the same size, so that each is compiled."""
    return make_batch(np.random.default_rng(step).choice(24, 8, replace=False), LABELS)


def losses(fitted: Any) -> list[float]:
    """Return the mean loss between evaluations."""
    return [row["train_loss"] for row in fitted[1]]


def test_compiled_fits_one_after_another_follow_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces, log, replayed = FaceFiles(tmp_path, "cuda"), Listener(), list[torch.cuda.CUDAGraph]()
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replayed.append(graph), replay(graph)))
    counters.clear()
    plain = [losses(train_toy(faces.job(seed=seed, sampler=full), steps=STEPS, rate=RATE)) for seed in range(3)]
    compiled = [
        losses(train_toy(faces.job(seed=seed, sampler=full, compile=True), log, STEPS, RATE)) for seed in range(3)
    ]
    np.testing.assert_allclose(compiled, plain, rtol=2e-3)  # float32 and other kernels, over twelve steps
    assert np.ptp(plain, axis=0).max() > 0.05  # each seed has its own masks: with others the curves would not agree
    assert log.lines == []
    assert counters["inductor"]["cudagraph_skips"] == 0, counters
    assert len(replayed) >= 3 * (STEPS - 3)  # a fit's first steps compile, warm up and record


@pytest.mark.parametrize("compiled", [False, True])
def test_interrupted_and_resumed_it_follows_the_same_curve(tmp_path: Path, compiled: bool) -> None:
    faces, log = FaceFiles(tmp_path / "faces", "cuda"), Listener()
    whole = losses(train_toy(faces.job(sampler=full, compile=compiled), steps=STEPS, rate=RATE))

    def breaks(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step == 8:
            raise InterruptedError
        return full(step)

    state_file = Checkpoint(tmp_path / "toy.pt", "key")
    torch.compiler.reset()  # another process would have nothing compiled
    with pytest.raises(InterruptedError):
        train_toy(faces.job(sampler=breaks, checkpoint=state_file, compile=compiled), steps=STEPS, rate=RATE)
    torch.compiler.reset()
    again = losses(train_toy(faces.job(sampler=full, checkpoint=state_file, compile=compiled), log, STEPS, RATE))
    np.testing.assert_allclose(again, whole, rtol=2e-3)
    assert log.lines == ["resuming toy at step 6 of 12"]


def test_a_gpu_scores_as_a_cpu_does(tmp_path: Path) -> None:
    faces, rows = FaceFiles(tmp_path), np.arange(24)
    network = Network(width=0.1, batch_norm=True, weights="none", frozen_convolutions=0)
    scores = [
        forward_all(build_network(network, 32, 0, 12), faces.images, rows, torch.device(device))
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3, atol=1e-4)
    assert scores[0].std(axis=0).min() > 0.001


def test_compiled_scoring_has_the_scores_of_plain_scoring(tmp_path: Path) -> None:
    faces, rows, log = FaceFiles(tmp_path), np.arange(24), Listener()
    network = Network(width=0.1, batch_norm=True, weights="none", frozen_convolutions=0)
    plain, compiled = (
        forward_all(build_network(network, 32, 0, 12), faces.images, rows, torch.device("cuda"), log, compiled=flag)
        for flag in (False, True)
    )
    np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)
    assert log.lines == []


@pytest.mark.parametrize("kind", ["efficientnet_b0", "resnet50"])
def test_a_backbones_compiled_step_follows_a_plain_one(kind: str) -> None:
    x = torch.rand(8, 3, 32, 32, device="cuda") * 255
    gradients = []
    for compiled in (False, True):
        model = build_network(Backbone(kind=kind, weights="none", trained_blocks=1), 32, 0, 12).cuda().eval()
        forward = torch.compile(model, fullgraph=True, dynamic=False) if compiled else model
        forward(x).square().mean().backward()
        gradients.append(model.heads()[0].weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-2, atol=1e-4)

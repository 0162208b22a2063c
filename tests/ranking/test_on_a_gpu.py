"""What only a GPU can show: compiled steps replayed as CUDA graphs beside the thread that makes batches, and scoring."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aupair.log import Log
from aupair.params import Network
from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.fit import forward_all
from aupair.ranking.networks import build
from aupair.ranking.pairs import Pairs
from face_files import Faces, trained

STEPS = 12
"""the first full batches are warmed up and recorded, the others replayed"""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Listener(Log):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def full_precision() -> Any:
    """Let convolutions compute in float32, not in TF32, so that two ways can be compared."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def close(one: Any, other: Any) -> None:
    """The losses and the last layer of two fits are the same but for the order of sums."""
    np.testing.assert_allclose(*([row["train_loss"] for row in curves] for _, curves in (one, other)), rtol=1e-3)
    weight = "networks.0.classifier.6.weight"
    np.testing.assert_allclose(one[0][weight], other[0][weight], rtol=2e-2, atol=1e-3)


def test_compiled_fits_one_after_another_follow_plain_ones(tmp_path: Path) -> None:
    faces, log = Faces(tmp_path, "cuda"), Listener()
    plain = [trained(faces.job(seed=seed), steps=STEPS) for seed in range(3)]
    compiled = [trained(faces.job(seed=seed, compile=True), log, STEPS) for seed in range(3)]
    for one, other in zip(compiled, plain):
        close(one, other)
    assert log.lines == []
    losses = [fit[1][0]["train_loss"] for fit in plain]
    assert np.ptp(losses) > 0.01, losses  # each seed has its own masks: with others the curves would not agree


@pytest.mark.parametrize("compiled", [False, True])
def test_broken_off_and_taken_up_it_ends_where_it_would_have(tmp_path: Path, compiled: bool) -> None:
    faces, log = Faces(tmp_path / "faces", "cuda"), Listener()
    whole = trained(faces.job(compile=compiled), steps=STEPS)

    def breaks(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step == 11:
            raise InterruptedError
        return faces.sampler(step)

    kept = Checkpoint(tmp_path / "toy.pt", "key")
    with pytest.raises(InterruptedError):
        trained(faces.job(sampler=breaks, checkpoint=kept, compile=compiled), steps=STEPS)
    close(trained(faces.job(checkpoint=kept, compile=compiled), log, STEPS), whole)
    assert log.lines == ["taking up toy at step 9 of 12"]


def test_a_gpu_scores_as_a_cpu_does(tmp_path: Path) -> None:
    faces, rows = Faces(tmp_path), np.arange(24)
    network = Network(width=0.1, batch_norm=True, weights="none", frozen_convolutions=0)
    scores = [
        forward_all(build(network, 32, 0), faces.images, rows, torch.device(device)) for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3, atol=1e-4)
    assert scores[0].std(axis=0).min() > 0.001

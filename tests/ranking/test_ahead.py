"""Batches made ahead: the same ones in the same order, errors where they belong, nothing left running."""

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair import store
from aupair.data.frames import Frames
from aupair.log import SILENT
from aupair.params import Network, Optimiser
from aupair.ranking import fit as loop
from aupair.ranking.ahead import DEPTH, ahead, batches, depth_for
from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.fit import Fit, fit, forward_all
from aupair.ranking.images import FaceImages
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build
from aupair.ranking.pairs import Pairs, draw_pairs
from aupair.ranking.sampling import ListSampler

CPU = torch.device("cpu")
SIZE, LENGTHS, STEPS = 32, (12, 12), 6


@pytest.mark.parametrize("depth", [0, 1, 2, 9])
def test_all_come_in_order_whatever_the_depth(depth: int) -> None:
    def make(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))  # some take longer than the next
        return item * item

    assert list(ahead(make, range(3, 11), depth)) == [item * item for item in range(3, 11)]
    assert list(ahead(make, range(0), depth)) == []


@pytest.mark.parametrize("depth", [0, 2])
def test_so_many_are_made_before_they_are_asked_for(depth: int) -> None:
    made: list[int] = []
    with closing(ahead(lambda item: made.append(item) or item, range(9), depth)) as items:  # type: ignore[func-returns-value]
        assert next(items) == 0
        end = time.monotonic() + 10
        while len(made) < 1 + depth and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == list(range(1 + depth))
    before = len(made)
    time.sleep(0.02)
    assert len(made) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_item_is_asked_for(depth: int) -> None:
    def make(item: int) -> int:
        if item == 3:
            raise InterruptedError
        return item

    items = ahead(make, range(9), depth)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InterruptedError):
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_cpu_makes_none_ahead() -> None:
    assert depth_for(CPU) == 0
    assert depth_for(torch.device("cuda")) == DEPTH > 0


class Faces:
    """Files of faces, decoded anew each time, and pairs among them."""

    def __init__(self, folder: Path) -> None:
        rng, count = np.random.default_rng(0), sum(LENGTHS)
        video = np.repeat(np.arange(2, dtype=np.int32), LENGTHS)
        frame = np.concatenate([np.arange(n, dtype=np.int32) for n in LENGTHS])
        for v, n in enumerate(LENGTHS):
            nan = np.full(n, np.nan, np.float32)
            columns = {
                "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 25.0, "status": ["ok"] * n,
                "jpeg": [store.encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)) for _ in range(n)],
                "landmarks": [np.zeros(136, np.float32)] * n, "transform": [np.zeros(6, np.float32)] * n,
                "detector_score": nan, "tracked": np.zeros(n, bool), "pass_disagreement": nan,
                "procrustes_residual": nan,
            }  # fmt: skip
            store.write_faces(folder / f"v{v}.arrow", [columns], {})
        labels = np.zeros((count, 12), np.int8)
        labels[:, 0] = np.arange(count) % 2
        names, fit_rows = ("v0", "v1"), np.zeros(count, np.int8)
        self.frames = Frames(names, names, video, video, fit_rows, frame, frame / 25.0, np.ones(count, bool), labels)
        self.images = FaceImages(folder, self.frames, cache_bytes=0)
        self.sampler = ListSampler(draw_pairs(self.frames, "fit", 40, (0,)), 4, (0,))

    def job(self, **changes: Any) -> Fit:
        def look(model: nn.Module) -> dict[str, float]:
            return {"loss": float(forward_all(model, self.images, np.arange(24), CPU)[:, 0].mean())}

        values: dict[str, Any] = {
            "images": self.images, "sampler": self.sampler, "look": look, "seed": 3, "name": "toy", "augment": 0.5,
            "loss_of": lambda outputs, rows, pairs: ranking_loss(outputs, pairs),
        }  # fmt: skip
        return Fit(**{**values, **changes})


def trained(job: Fit) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    network = Network(width=0.03, batch_norm=True, weights="none", frozen_convolutions=0, dropout=0.5)
    model = build(network, SIZE, 0)
    params = Optimiser(name="adamw", learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, evaluate_every=3)
    curves = fit(model, job, params, STEPS, SILENT)
    return {key: value.numpy() for key, value in model.state_dict().items()}, curves


def equal(one: Any, other: Any) -> bool:
    return one[1] == other[1] and all((one[0][key] == other[0][key]).all() for key in one[0])


def test_a_fit_has_the_same_bits_with_batches_made_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = Faces(tmp_path / "faces")
    plain = trained(faces.job())
    monkeypatch.setattr(loop, "depth_for", lambda device: 2)
    assert equal(trained(faces.job()), plain)

    def breaks(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step == 5:
            raise InterruptedError
        return faces.sampler(step)

    kept = Checkpoint(tmp_path / "toy.pt", "key")
    with pytest.raises(InterruptedError):
        trained(faces.job(sampler=breaks, checkpoint=kept))
    assert kept.load() is not None
    assert equal(trained(faces.job(checkpoint=kept)), plain)


def test_a_batch_is_what_the_sampler_says(tmp_path: Path) -> None:
    faces = Faces(tmp_path)
    for step, batch in zip(range(4, 7), batches(faces.sampler, faces.images, range(4, 7), CPU, 2)):
        rows, pairs, weight = faces.sampler(step)
        assert (batch.rows == rows).all()
        assert (batch.images.numpy() == faces.images(rows)).all()
        assert batch.images.dtype == torch.uint8
        moved = batch.to(CPU)
        for key in ("i", "j", "au", "r"):
            assert (getattr(moved.pairs, key).numpy() == getattr(pairs, key)).all()
        assert (moved.pairs.weight.numpy() == weight).all()

"""Prefetching: the same items in the same order, errors where they belong, no thread left running."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from aupair.ranking import fit as loop
from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.pairs import Pairs
from aupair.ranking.prefetch import DEPTH, batch_loader, prefetch, prefetch_depth, prefetch_items
from face_files import FaceFiles, train_toy
from training_sets import same_fit

CPU = torch.device("cpu")


@pytest.mark.parametrize("depth", [0, 1, 2, 9])
def test_all_come_in_order_whatever_the_depth(depth: int) -> None:
    def make(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))  # some take longer than the next
        return item * item

    assert list(prefetch(make, range(3, 11), depth)) == [item * item for item in range(3, 11)]
    assert list(prefetch(make, range(0), depth)) == []


@pytest.mark.parametrize("depth", [0, 2])
def test_depth_is_the_number_of_items_made_in_advance(depth: int) -> None:
    made: list[int] = []
    with closing(prefetch(lambda item: made.append(item) or item, range(9), depth)) as items:
        assert next(items) == 0
        end = time.monotonic() + 10
        while len(made) < 1 + depth and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == list(range(1 + depth))
    before = len(made)
    time.sleep(0.02)
    assert len(made) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_item_is_asked_for(depth: int) -> None:
    def make(item: int) -> int:
        if item == 3:
            raise InterruptedError
        return item

    items = prefetch(make, range(9), depth)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InterruptedError):
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_cpu_prefetches_nothing() -> None:
    assert prefetch_depth(CPU) == 0
    assert prefetch_depth(torch.device("cuda")) == DEPTH > 0


def test_prefetching_does_not_change_a_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = FaceFiles(tmp_path / "faces")
    plain = train_toy(faces.job())
    monkeypatch.setattr(loop, "prefetch_depth", lambda device: 2)
    assert same_fit(train_toy(faces.job()), plain)

    def breaks(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step == 5:
            raise InterruptedError
        return faces.sampler(step)

    state_file = Checkpoint(tmp_path / "toy.pt", "key")
    with pytest.raises(InterruptedError):
        train_toy(faces.job(sampler=breaks, checkpoint=state_file))
    assert state_file.load() is not None
    assert same_fit(train_toy(faces.job(checkpoint=state_file)), plain)


def test_a_batch_is_that_of_the_sampler(tmp_path: Path) -> None:
    faces = FaceFiles(tmp_path)
    for step, batch in zip(
        range(4, 7), batch_loader(faces.sampler, lambda rows, _: faces.images(rows), range(4, 7), CPU, 2)
    ):
        rows, pairs, weight = faces.sampler(step)
        assert (batch.rows == rows).all()
        assert (batch.images.numpy() == faces.images(rows)).all()
        assert batch.images.dtype == torch.uint8
        moved = batch.to(CPU)
        for key in ("i", "j", "au", "r"):
            assert (getattr(moved.pairs, key).numpy() == getattr(pairs, key)).all()
        assert (moved.pairs.weight.numpy() == weight).all()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_items_of_a_stream_come_in_order_a_bounded_number_in_advance(size: int) -> None:
    made: list[int] = []

    def stream() -> Iterator[int]:
        for item in range(20):
            made.append(item)
            yield item

    with closing(prefetch_items(stream(), size)) as items:
        for item in range(20):
            assert next(items) == item
            assert len(made) <= (item // size + 1 + DEPTH) * size
        assert next(items, None) is None
    assert list(prefetch_items(iter(()), size)) == []


def test_an_error_of_a_stream_is_raised_after_its_items_and_no_thread_stays() -> None:
    def stream() -> Iterator[int]:
        yield from range(4)
        raise ValueError("a damaged frame")

    received: list[int] = []
    with pytest.raises(ValueError, match="a damaged frame"):
        received.extend(prefetch_items(stream(), 2))
    assert received == [0, 1, 2, 3]
    with closing(prefetch_items(stream(), 1)) as items:
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]

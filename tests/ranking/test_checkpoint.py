"""Checkpoints: broken off at any step and taken up again, a fit ends with the same bits; nothing else is taken up."""

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair.errors import AupairError
from aupair.log import Log
from aupair.ranking import checkpoint, distributed
from aupair.ranking.checkpoint import FOLDER_VARIABLE, Checkpoint, checkpointing, digest
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.losses import PairBatch, ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import Pairs, all_pairs, cell_weights
from aupair.training_params import Network, Optimiser
from listener import Listener

SIZE, FRAMES, STEPS = 32, 24, 7
LABELS = np.full((FRAMES, 12), -1, np.int8)
LABELS[:, 0] = np.arange(FRAMES) % 2
PIXELS = np.random.default_rng(0).integers(0, 200, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
NARROW = Network(width=0.05, batch_norm=True, weights="none", frozen_convolutions=0, dropout=0.5)


class Batches:
    """Batches of the toy; the process breaks down when it asks for the one of a step."""

    def __init__(self, last: int = 10**9) -> None:
        self.last, self.asked = last, 0

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step >= self.last:
            raise InterruptedError
        self.asked += 1
        rows = np.random.default_rng(step).choice(FRAMES, 8, replace=False)
        pairs = all_pairs(LABELS[rows], np.zeros(8, np.int64))
        return rows, pairs, cell_weights(pairs, np.zeros(8, np.int64))


def evaluate_on_select(model: nn.Module) -> dict[str, float]:
    out = forward_all(model, PIXELS.__getitem__, np.arange(FRAMES), torch.device("cpu"))[:, 0]
    return {"loss": float(np.maximum(0, 1 - (out[1::2, None] - out[::2])).mean())}


def batch_loss(outputs: torch.Tensor, rows: np.ndarray, pairs: PairBatch) -> torch.Tensor:
    return ranking_loss(outputs, pairs)


def toy(
    params: Optimiser, kept: Checkpoint | None = None, batches: Batches | None = None, log: Log | None = None
) -> Any:
    """Fit a small network; give its weights and curves."""
    model = build_network(NARROW, SIZE, 0)
    job = FitJob(
        PIXELS.__getitem__,
        batches or Batches(),
        batch_loss,
        evaluate_on_select,
        seed=3,
        name="toy",
        augment=1.0,
        checkpoint=kept,
    )
    curves = fit(model, job, params, STEPS, log or Listener())
    return {key: value.numpy() for key, value in model.state_dict().items()}, curves


def same(one: Any, other: Any) -> bool:
    weights, again = one[0], other[0]
    return (
        weights.keys() == again.keys() and all((weights[k] == again[k]).all() for k in weights) and one[1] == other[1]
    )


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after each step."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))


OPTIMISERS = [
    Optimiser(name="adamw", learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, evaluate_every=3, keep="best"),
    Optimiser(name="adam", learning_rate=3e-3, schedule="constant", evaluate_every=2, keep="last"),
]


@pytest.mark.parametrize("params", OPTIMISERS, ids=["best", "last"])
def test_broken_down_at_each_step_it_ends_with_the_same_bits(
    params: Optimiser, tmp_path: Path, each_step: None
) -> None:
    whole, log = toy(params), Listener()
    for last in range(1, STEPS):
        with pytest.raises(InterruptedError):
            toy(params, Checkpoint(tmp_path / "toy.pt", "key"), Batches(last), log)
    assert same(toy(params, Checkpoint(tmp_path / "toy.pt", "key"), log=log), whole)
    assert log.lines == [f"resuming toy at step {step} of {STEPS}" for step in range(1, STEPS)]


def test_saving_changes_no_number(tmp_path: Path, each_step: None) -> None:
    assert same(toy(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key")), toy(OPTIMISERS[0]))


def test_without_time_gone_by_it_saves_at_each_look(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        toy(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Batches(5))
    log = Listener()
    toy(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), log=log)
    assert log.lines == [f"resuming toy at step 3 of {STEPS}"]


def test_what_is_finished_is_not_trained_again_and_needs_less_room(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "toy.pt", "key")
    with pytest.raises(InterruptedError):
        toy(OPTIMISERS[0], kept, Batches(5))
    under_way = kept.path.stat().st_size
    whole, batches = toy(OPTIMISERS[0], kept), Batches()
    assert kept.path.stat().st_size < 0.5 * under_way
    assert same(toy(OPTIMISERS[0], kept, batches), whole)
    assert batches.asked == 0


def test_a_file_holds_plain_values_alone(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        toy(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Batches(4))
    found = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert found["state"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pt"]


class Harm:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "list", "harm", "other key"])
def test_what_cannot_be_taken_up_costs_a_line_and_starts_over(tmp_path: Path, damage: str) -> None:
    kept, log = Checkpoint(tmp_path / "toy.pt", "key"), Listener()
    with pytest.raises(InterruptedError):
        toy(OPTIMISERS[0], kept, Batches(5))
    data = kept.path.read_bytes()
    if damage == "list":
        torch.save([1], kept.path)
    elif damage == "harm":
        torch.save({"key": "key", "state": Harm(tmp_path / "harmed")}, kept.path)
    elif damage == "other key":
        kept = Checkpoint(kept.path, "another")
    else:
        kept.path.write_bytes({"cut": data[: len(data) // 2], "noise": os.urandom(len(data)), "empty": b""}[damage])
    assert same(toy(OPTIMISERS[0], kept, log=log), toy(OPTIMISERS[0]))
    assert not (tmp_path / "harmed").exists()
    reason = "is of other settings or data" if damage == "other key" else "cannot be read: "
    assert len(log.lines) == 1
    assert log.lines[0].startswith(f"starting over: {kept.path} {reason}")


def test_a_full_disk_is_one_line_and_leaves_the_last_one(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "toy.pt", "key")
    kept.save({"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(AupairError) as caught:
            kept.save({"step": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"cannot write a checkpoint: in {kept.path}, got ")
    assert str(caught.value).endswith("; make room, or name another folder in AUPAIR_CHECKPOINTS")
    assert kept.load() == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_key_is_of_contents_and_not_of_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.bin").write_bytes(b"a")
        (tmp_path / name / "b.bin").write_bytes(b"b")
    key = digest({"faces": tmp_path / "one"}, {"seed": 0})
    other = tmp_path / "other"
    assert digest({"faces": other}, {"seed": 0}) == key
    assert digest({"faces": other}, {"seed": 1}) != key
    assert digest({"pairs": other}, {"seed": 0}) != key
    (other / "b.bin").write_bytes(b"c")
    assert digest({"faces": other}, {"seed": 0}) != key
    (other / "b.bin").rename(other / "c.bin")
    (other / "c.bin").write_bytes(b"b")
    assert digest({"faces": other}, {"seed": 0}) != key


def break_off(folder: Path, seed: int) -> None:
    with checkpointing("f-0", folder, {}, {"seed": seed}) as kept:
        assert kept is not None
        kept.for_network("f.final").save({"step": seed})
        raise InterruptedError


def test_kept_until_the_stage_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(InterruptedError):
        break_off(tmp_path, 0)
    with checkpointing("f-0", tmp_path, {}, {"seed": 1}) as kept:
        assert kept is not None
        assert kept.for_network("f.final").load() is None  # and in this folder nothing piles up:
        kept.for_network("f.final").save({"step": 2})
    assert list(tmp_path.iterdir()) == []
    with checkpointing("f-0", None, {}, {}) as kept:
        assert kept is None


def test_a_shared_folder_holds_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "volume"))
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            break_off(tmp_path / "local", seed)
    assert len(list((tmp_path / "volume").iterdir())) == 2
    assert not (tmp_path / "local").exists()
    for seed in (0, 1):
        with checkpointing("f-0", None, {}, {"seed": seed}) as kept:
            assert kept is not None
            assert kept.for_network("f.final").load() == {"step": seed}
    assert list((tmp_path / "volume").iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(AupairError, match=r"^cannot write: in .*/file/f-0-"):
        with checkpointing("f-0", None, {}, {}):
            raise AssertionError


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """SIGTERMs that reach whoever listened before."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_a_signal_after_the_last_question_is_passed_on(heard: list[int]) -> None:
    with distributed.catch_sigterm() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_a_signal_during_a_step_ends_it_with_a_checkpoint(tmp_path: Path, heard: list[int]) -> None:
    class Told(Batches):
        def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            if step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(step)

    kept, log = Checkpoint(tmp_path / "toy.pt", "key"), Listener()
    with pytest.raises(distributed.Stopped) as caught:
        toy(OPTIMISERS[0], kept, Told())
    assert str(caught.value) == f"stopped: in toy, got SIGTERM at step 5 of {STEPS}; run it again to go on"
    assert caught.value.exit_code == 143
    assert same(toy(OPTIMISERS[0], kept, log=log), toy(OPTIMISERS[0]))
    assert log.lines == [f"resuming toy at step 5 of {STEPS}"]
    assert heard == []
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_without_a_checkpoint_and_beside_the_main_thread_signals_are_left_alone(
    tmp_path: Path, heard: list[int]
) -> None:
    handlers: list[Any] = []

    class Asking(Batches):
        def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            handlers.append(signal.getsignal(signal.SIGTERM))
            return super().__call__(step)

    before = signal.getsignal(signal.SIGTERM)
    toy(OPTIMISERS[0], None, Asking())
    thread = threading.Thread(target=toy, args=(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Asking()))
    thread.start()
    thread.join()
    assert handlers == [before] * 2 * STEPS

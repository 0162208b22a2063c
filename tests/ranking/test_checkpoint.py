"""Checkpoints: a fit that is interrupted at any step and resumed ends with the same bits; other files are ignored."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair.errors import AupairError, Stopped
from aupair.log import Log
from aupair.ranking import checkpoint, distributed
from aupair.ranking.checkpoint import FOLDER_VARIABLE, Checkpoint, checkpointing, digest
from aupair.ranking.fit import FitJob, fit, forward_all
from aupair.ranking.losses import ranking_loss
from aupair.ranking.networks import build_network
from aupair.ranking.pairs import Pairs
from aupair.training_params import Network, Optimiser
from listener import Listener
from training_sets import NARROW, SIZE, alternating_labels, make_batch, same_fit

FRAMES, STEPS = 24, 7
LABELS = alternating_labels(FRAMES)
PIXELS = np.random.default_rng(0).integers(0, 200, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
NETWORK = Network(**NARROW, dropout=0.5)


class Batches:
    """Batches of the toy; from a certain step on they raise, as if the process were interrupted."""

    def __init__(self, last: int = 10**9) -> None:
        self.last, self.asked = last, 0

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        if step >= self.last:
            raise InterruptedError
        self.asked += 1
        return make_batch(np.random.default_rng(step).choice(FRAMES, 8, replace=False), LABELS)


def evaluate(model: nn.Module) -> dict[str, float]:
    out = forward_all(model, PIXELS.__getitem__, np.arange(FRAMES), torch.device("cpu"))[:, 0]
    return {"loss": float(np.maximum(0, 1 - (out[1::2, None] - out[::2])).mean())}


def train(
    params: Optimiser, state_file: Checkpoint | None = None, batches: Batches | None = None, log: Log | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] = evaluate,
) -> Any:  # fmt: skip
    """Fit a small network, and return its weights and curves."""
    model = build_network(NETWORK, SIZE, 0, 12)
    job = FitJob(
        PIXELS.__getitem__, batches or Batches(), lambda outputs, rows, pairs: ranking_loss(outputs, pairs),
        evaluate, seed=3, name="toy", augment=1.0, checkpoint=state_file,
    )  # fmt: skip
    curves = fit(model, job, params, STEPS, log or Listener())
    return {key: value.numpy() for key, value in model.state_dict().items()}, curves


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
def test_interrupted_at_each_step_it_ends_with_the_same_bits(
    params: Optimiser, tmp_path: Path, each_step: None
) -> None:
    whole, log = train(params), Listener()
    for last in range(1, STEPS):
        with pytest.raises(InterruptedError):
            train(params, Checkpoint(tmp_path / "toy.pt", "key"), Batches(last), log)
    assert same_fit(train(params, Checkpoint(tmp_path / "toy.pt", "key"), log=log), whole)
    assert log.lines == [f"resuming toy at step {step} of {STEPS}" for step in range(1, STEPS)]


def test_before_a_checkpoint_is_due_it_saves_at_each_evaluation(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        train(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Batches(5))
    log = Listener()
    train(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), log=log)
    assert log.lines == [f"resuming toy at step 3 of {STEPS}"]


def test_a_finished_fit_is_not_trained_again_and_its_file_is_smaller(tmp_path: Path) -> None:
    state_file = Checkpoint(tmp_path / "toy.pt", "key")
    with pytest.raises(InterruptedError):
        train(OPTIMISERS[0], state_file, Batches(5))
    under_way = state_file.path.stat().st_size
    whole, batches = train(OPTIMISERS[0], state_file), Batches()
    assert state_file.path.stat().st_size < 0.5 * under_way
    assert same_fit(train(OPTIMISERS[0], state_file, batches), whole)
    assert batches.asked == 0


def test_a_fit_that_ran_out_of_patience_ends_at_the_same_step_and_is_not_trained_again(
    tmp_path: Path, each_step: None
) -> None:
    params = OPTIMISERS[0].model_copy(update={"evaluate_every": 1, "patience": 2})

    def best_after_two_steps(model: nn.Module) -> dict[str, float]:
        return {"loss": abs(float(model.state_dict()["networks.0.features.1.num_batches_tracked"]) - 2)}

    whole, state_file = train(params, evaluate=best_after_two_steps), Checkpoint(tmp_path / "toy.pt", "key")
    assert [row["loss"] for row in whole[1]] == [1, 0, 1, 2]
    for last in range(1, 4):
        with pytest.raises(InterruptedError):
            train(params, state_file, Batches(last), evaluate=best_after_two_steps)
    assert same_fit(train(params, state_file, evaluate=best_after_two_steps), whole)
    batches = Batches()
    assert same_fit(train(params, state_file, batches, evaluate=best_after_two_steps), whole)
    assert batches.asked == 0


def test_a_file_holds_plain_values_alone(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        train(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Batches(4))
    content = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert content["state"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pt"]


class Harm:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "list", "harm", "other key"])
def test_a_file_that_cannot_be_used_is_one_line_and_a_fresh_start(tmp_path: Path, damage: str) -> None:
    state_file, log = Checkpoint(tmp_path / "toy.pt", "key"), Listener()
    with pytest.raises(InterruptedError):
        train(OPTIMISERS[0], state_file, Batches(5))
    data = state_file.path.read_bytes()
    if damage == "list":
        torch.save([1], state_file.path)
    elif damage == "harm":
        torch.save({"key": "key", "state": Harm(tmp_path / "harmed")}, state_file.path)
    elif damage == "other key":
        state_file = Checkpoint(state_file.path, "another")
    else:
        state_file.path.write_bytes(
            {"cut": data[: len(data) // 2], "noise": os.urandom(len(data)), "empty": b""}[damage]
        )
    assert same_fit(train(OPTIMISERS[0], state_file, log=log), train(OPTIMISERS[0]))
    assert not (tmp_path / "harmed").exists()
    reason = "was written with other settings or data" if damage == "other key" else "cannot be read: "
    assert len(log.lines) == 1
    assert log.lines[0].startswith(f"starting over: {state_file.path} {reason}")


def test_a_full_disk_is_one_line_and_leaves_the_last_one(tmp_path: Path) -> None:
    state_file = Checkpoint(tmp_path / "toy.pt", "key")
    state_file.save({"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(AupairError) as caught:
            state_file.save({"step": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"cannot write: in {state_file.path}, got ")
    assert str(caught.value).endswith("; raise the limit of the size of files (`ulimit -f`)")
    assert state_file.load() == {"step": 1}
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


def interrupt(folder: Path, seed: int) -> None:
    with checkpointing("f-0", folder, {}, {"seed": seed}) as checkpoints:
        assert checkpoints is not None
        checkpoints.for_network("f.final").save({"step": seed})
        raise InterruptedError


def test_checkpoints_are_deleted_when_the_stage_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(InterruptedError):
        interrupt(tmp_path, 0)
    with checkpointing("f-0", tmp_path, {}, {"seed": 1}) as checkpoints:
        assert checkpoints is not None
        assert checkpoints.for_network("f.final").load() is None  # and in this folder nothing piles up:
        checkpoints.for_network("f.final").save({"step": 2})
    assert list(tmp_path.iterdir()) == []
    with checkpointing("f-0", None, {}, {}) as checkpoints:
        assert checkpoints is None


def test_a_shared_folder_holds_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "volume"))
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            interrupt(tmp_path / "local", seed)
    assert len(list((tmp_path / "volume").iterdir())) == 2
    assert not (tmp_path / "local").exists()
    for seed in (0, 1):
        with checkpointing("f-0", None, {}, {"seed": seed}) as checkpoints:
            assert checkpoints is not None
            assert checkpoints.for_network("f.final").load() == {"step": seed}
    assert list((tmp_path / "volume").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(AupairError, match=r"^cannot write: in .*/file/f-0-"):
        with checkpointing("f-0", None, {}, {}):
            raise AssertionError


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """SIGTERMs that reach the handler from before."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


def test_a_signal_after_the_last_step_is_passed_on(signals: list[int]) -> None:
    with distributed.catch_sigterm() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert signals == []
    assert signals == [signal.SIGTERM]


def test_a_signal_during_a_step_ends_it_with_a_checkpoint(tmp_path: Path, signals: list[int]) -> None:
    class SignalledBatches(Batches):
        def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            if step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(step)

    state_file, log = Checkpoint(tmp_path / "toy.pt", "key"), Listener()
    with pytest.raises(Stopped) as caught:
        train(OPTIMISERS[0], state_file, SignalledBatches())
    assert str(caught.value) == f"stopped: in toy, got SIGTERM at step 5 of {STEPS}; run it again to continue"
    assert caught.value.exit_code == 143
    assert same_fit(train(OPTIMISERS[0], state_file, log=log), train(OPTIMISERS[0]))
    assert log.lines == [f"resuming toy at step 5 of {STEPS}"]
    assert signals == []
    signal.raise_signal(signal.SIGTERM)
    assert signals == [signal.SIGTERM]


def test_without_a_checkpoint_and_beside_the_main_thread_signals_are_left_alone(
    tmp_path: Path, signals: list[int]
) -> None:
    handlers: list[Any] = []

    class Asking(Batches):
        def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
            handlers.append(signal.getsignal(signal.SIGTERM))
            return super().__call__(step)

    before = signal.getsignal(signal.SIGTERM)
    train(OPTIMISERS[0], None, Asking())
    thread = threading.Thread(target=train, args=(OPTIMISERS[0], Checkpoint(tmp_path / "toy.pt", "key"), Asking()))
    thread.start()
    thread.join()
    assert handlers == [before] * 2 * STEPS

"""A compiled fit: the curve of a plain one, dropout included; resumed with the same bits; or one line why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aupair.log import Log
from aupair.ranking import checkpoint, distributed
from aupair.ranking.checkpoint import Checkpoint
from aupair.ranking.compilation import CompiledScoring, _CompiledForward, compile_forward, full_batch_size
from aupair.ranking.fit import FitJob, fit
from aupair.ranking.losses import ranking_loss
from aupair.ranking.pairs import Pairs
from aupair.training_params import Optimiser
from listener import Listener
from training_sets import alternating_labels, make_batch

SIZE, FRAMES, STEPS = 8, 24, 6
LABELS = alternating_labels(FRAMES)
PIXELS = np.random.default_rng(0).integers(0, 200, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
PARAMS = Optimiser(name="adamw", learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, evaluate_every=2)


class Small(nn.Module):
    """A network with one layer of each kind that VGG16 has."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2))
            self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 12))
        self.batch_sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.batch_sizes.append(len(x))
        return self.classifier(self.features(x / 255))


def batch(step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
    return make_batch(np.random.default_rng(step).choice(FRAMES, 8 if step != 3 else 6, replace=False), LABELS)


class InterruptedBatches:
    """A sampler that raises at one step of the fit, but not before, when the size of a full batch is determined."""

    def __init__(self, last: int) -> None:
        self.last, self.asked = last, 0

    def __call__(self, step: int) -> tuple[np.ndarray, Pairs, np.ndarray]:
        self.asked += 1
        if self.asked > STEPS and step == self.last:
            raise InterruptedError
        return batch(step)


def trained(state_file: Checkpoint | None = None, sampler: Any = batch, log: Log | None = None, **changes: Any) -> Any:
    model = Small()
    evaluate = lambda model: {"loss": float(next(model.parameters()).detach().abs().sum())}  # noqa: E731
    job = FitJob(
        PIXELS.__getitem__, sampler, lambda outputs, rows, pairs: ranking_loss(outputs, pairs), evaluate,
        seed=3, name="toy", checkpoint=state_file, **changes,
    )  # fmt: skip
    curves = fit(model, job, PARAMS, STEPS, log or Listener())
    return {key: value.numpy() for key, value in model.state_dict().items()}, curves, model.batch_sizes


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in float64, also what is float32 elsewhere."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_the_curve_of_a_plain_fit_and_only_full_batches_compiled(float64: None) -> None:
    # In float64 other kernels sum so nearly alike that AdamW, which divides by a gradient's size, hardly differs.
    log = Listener()
    plain, compiled = trained(), trained(compile=True, log=log)
    assert log.lines == []
    assert plain[2] == [8, 8, 8, 6, 8, 8]
    assert compiled[2] == [6]
    assert compiled[0].keys() == plain[0].keys()
    for key in ("features.0.weight", "classifier.2.weight"):  # biases cancel in the loss: noise moves them
        np.testing.assert_allclose(compiled[0][key], plain[0][key], rtol=1e-6, atol=1e-9, err_msg=key)
    one, other = ([row["train_loss"] for row in curves] for _, curves, _ in (plain, compiled))
    np.testing.assert_allclose(other, one, rtol=1e-6)
    assert np.ptp(one) > 0.01  # dropout draws another mask at each step: with others the curve would be another


@pytest.mark.slow
def test_interrupted_and_resumed_it_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    whole = trained(compile=True)
    for last in (2, 4):
        with pytest.raises(InterruptedError):
            trained(Checkpoint(tmp_path / "toy.pt", "key"), InterruptedBatches(last), compile=True)
    again = trained(Checkpoint(tmp_path / "toy.pt", "key"), compile=True)
    assert again[1] == whole[1]
    assert all((again[0][key] == whole[0][key]).all() for key in whole[0])


# before the next test, after which inductor remembers that there is no compiler
@pytest.mark.parametrize("compilable", [True, False])
def test_compiled_scoring_equals_plain_scoring_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, compilable: bool
) -> None:
    model, log, x = Small().eval(), Listener(), torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float()
    if not compilable:
        from torch._dynamo.exc import Unsupported

        def fails(network: nn.Module, **options: object) -> Any:
            def forward(x: Tensor) -> Tensor:
                raise Unsupported("no compiler")

            return forward

        monkeypatch.setattr(torch, "compile", fails)
    with torch.no_grad():
        torch.testing.assert_close(CompiledScoring(model, log)(x), model(x), rtol=1e-5, atol=1e-6)
    assert [line.startswith("not compiled: ") for line in log.lines] == [True] * (not compilable)


def test_without_a_compiler_it_says_so_once_and_computes_what_a_plain_fit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    log, plain = Listener(), trained()
    torch._dynamo.reset()
    with monkeypatch.context() as patch:
        patch.setattr(config.cpp, "cxx", ("/nowhere/c++",))
        patch.setattr(config, "force_disable_caches", True)
        without = trained(compile=True, log=log)
    torch._dynamo.reset()
    assert len(log.lines) == 1
    assert log.lines[0].startswith("not compiled: ")
    assert "\n" not in log.lines[0]
    assert without[1] == plain[1]
    assert all((without[0][key] == plain[0][key]).all() for key in plain[0])


def test_other_errors_are_not_taken_for_a_lack_of_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    log = Listener()
    compiled = _CompiledForward(Small(), 2, log)
    monkeypatch.setattr(compiled, "_compiled", full)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(torch.zeros(2, 3, SIZE, SIZE), 2)
    assert compiled(torch.zeros(3, 3, SIZE, SIZE), 3).shape == (3, 12)
    assert log.lines == []


def test_the_full_size_is_the_largest_of_the_first_batches() -> None:
    sizes = [3, 5, 4, 5, 2, 1, 1, 1, 9]
    sampler: Any = lambda step: (np.zeros(sizes[step], np.int64), None, None)  # noqa: E731
    assert full_batch_size(sampler, 9) == 5
    assert full_batch_size(sampler, 1) == 3


def test_batch_norms_of_several_processes_stay_uncompiled() -> None:
    model, log = Small(), Listener()
    model.features[1].__class__ = distributed.SharedBatchNorm
    assert not isinstance(compile_forward(model, batch, STEPS, log), _CompiledForward)
    assert log.lines == ["not compiled: the batch norms exchange statistics with other processes"]
    log.lines.clear()
    assert isinstance(compile_forward(Small(), batch, STEPS, log), _CompiledForward)
    assert log.lines == []

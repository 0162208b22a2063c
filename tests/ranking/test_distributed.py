"""Several processes by torchrun: the loss curves and weights of one process, one writer, errors of one line.

This file is a script, too: `torchrun --standalone --nproc-per-node 2 test_distributed.py OUT` trains every case, in
float64. There two orders of a sum differ by so little that Adam, which divides by the size of a gradient, does not
make the difference large.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from aupair import stages, store
from aupair.errors import ParamsError, Stopped
from aupair.params import Params
from aupair.ranking import checkpoint, distributed
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.networks import AUNetwork, build_network
from aupair.ranking.pairs import draw_folds, draw_groups
from aupair.ranking.pseudo_intensity import train_f
from aupair.ranking.samples import TrainingSet
from aupair.ranking.uncertainty import train_h
from aupair.training_params import Network, RankPairs
from frame_sets import make_frames
from listener import Listener
from training_sets import SIZE, draw_fixed_pairs

LENGTH, STEPS = 15, 10
SPLIT = (0, 0, 0, 0, 1, 1, 2)
CASES: dict[str, dict[str, Any]] = {
    "f with batch norm": {"batch_norm": True, "folds": 2},
    "f without": {"batch_norm": False},
    "f by a list of pairs": {"batch_norm": True, "mode": "reference"},
    "f of fewer videos than processes": {"batch_norm": True, "batch": 5},
    "h with batch norm": {"batch_norm": True, "kind": "network"},
    "h without": {"batch_norm": False, "kind": "network"},
    "h of factors": {"batch_norm": True, "kind": "factors", "folds": 2},
}

Arrays = dict[str, np.ndarray]


class Faces:
    """Random faces, a little brighter where more AUs are active; after some calls something `happens`."""

    size = SIZE

    def __init__(self, labels: np.ndarray, calls: int, happens: Callable[[], None]) -> None:
        noise = np.random.default_rng(0).integers(0, 200, (len(labels), SIZE, SIZE, 3))
        self.pixels = (noise + 4 * labels.sum(1)[:, None, None, None]).astype(np.uint8)
        self.calls, self.happens = calls, happens

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.calls -= 1
        if self.calls == 0:
            self.happens()
        return self.pixels[rows]


def break_down() -> None:
    raise InterruptedError


def send_sigterm_to_the_last() -> None:
    if distributed.rank() == distributed.world_size() - 1:
        signal.raise_signal(signal.SIGTERM)


def make_data(
    mode: str = "groups", folds: int = 1, calls: int = 0, happens: Callable[[], None] = break_down
) -> TrainingSet:
    n = len(SPLIT) * LENGTH
    labels = (np.random.default_rng(0).random((n, 12)) < 0.4).astype(np.int8)
    frames = make_frames(SPLIT, labels, ok=np.arange(n) % 11 != 0)
    groups = draw_groups(frames, 5, 6, (0, 1)) if mode == "groups" else None
    faces: Any = Faces(labels, calls, happens)
    return TrainingSet(frames, faces, groups, draw_fixed_pairs(frames, 9), draw_folds(frames, folds, (0, 3)))


def make_params(batch_norm: bool, batch: int = 15, kind: str = "network", dropout: float = 0.0) -> Params:
    network = {"width": 0.05, "batch_norm": batch_norm, "weights": "none", "frozen_convolutions": 0, "dropout": dropout}
    optimiser = {
        "name": "adamw", "learning_rate": 1e-3, "steps": STEPS, "fold_steps": 2, "batch": batch,
        "evaluate_every": 2,
    }  # fmt: skip
    section = {"network": network, "optimiser": optimiser, "device": "cpu"}
    h = {**section, "kind": kind}
    if kind == "factors":
        h = {"kind": kind, "factors": 6, "inner_folds": 2, "priors": [1.0, 0.1], "device": "cpu"}
    return Params.model_validate({"train_pseudo_intensity": section, "train_uncertainty": h})


def make_f(member: Member) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
    network = Network(width=0.05, batch_norm=True, weights="none", frozen_convolutions=0)
    return build_network(network, SIZE, len(member.name), 12).eval(), np.zeros(12), np.ones(12)


def train_case(case: str) -> Arrays:
    """Train a case, and return its curves and scores, and the weights and last gradients of its networks."""
    settings = dict(CASES[case])
    data = make_data(settings.pop("mode", "groups"), settings.pop("folds", 1))
    params, h = make_params(**settings), "kind" in settings
    results: Arrays = {}
    if h:
        y_hat = np.random.default_rng(1).normal(data.frames.labels, 1).astype(np.float32)
        members = tuple(Member(0, name) for name in data.training_masks())
        quality = np.random.default_rng(2).lognormal(size=(len(y_hat), 3)).astype(np.float32)
        trained = train_h(data, Ensemble((0,), members, y_hat, None), quality, make_f, params, 0)
        own = {} if trained.model.network is None else {"final": trained.model.network}
        models: dict[str, nn.Module] = {**own, **trained.folds}
        models |= {member.name: reader for member, reader in trained.model.readers.items()}
        results |= {"scores": trained.unguarded, "guarded": trained.sigma}
        curves = trained.curves
    else:
        f = train_f(data, params, 0)
        models, curves = f.models, f.curves
        results |= {f"scores.{name}": y_hat for name, y_hat in f.y_hat.items()}
    keys = [key for key in ("train_loss", "loss") if key in curves[0]]
    results |= {f"curves.{key}": np.array([row[key] for row in curves]) for key in keys}
    for name, model in models.items():
        results |= {f"{name}.{key}": value.numpy() for key, value in model.state_dict().items()}
        gradients = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
        results |= {f"gradient.{name}.{key}": value for key, value in gradients.items()}
    return results


def run_batch_norm() -> Arrays:
    """Return the outputs, gradients and running statistics of a batch norm for a batch far from zero."""
    torch.manual_seed(0)
    norm, x = nn.Sequential(nn.BatchNorm2d(3)), 1000 + torch.randn(5, 3, 4, 4)
    share = x[distributed.local_slice(5)].requires_grad_()
    distributed.share_batch_norms(norm)
    y = distributed.gather_shares(norm(share), 5)
    (y**3 + y * x).sum().backward()
    distributed.sum_gradients(norm)
    assert share.grad is not None
    results = {"y": y.detach(), "gradient": distributed.gather_shares(share.grad, 5)}
    results |= {"evaluated": norm.eval()(x).detach(), **norm.state_dict()}
    results |= {f"gradient.{key}": p.grad for key, p in norm.named_parameters() if p.grad is not None}
    return {key: value.numpy() for key, value in results.items()}


def train_with_interruptions(folder: Path) -> Arrays:
    """Train with interruptions, dropout included, and once without; return the weights and curves of both."""
    params, log, checkpoints = make_params(True, dropout=0.5), Listener(), Checkpoints(folder, "key")
    results: dict[str, Any] = {"whole": train_f(make_data(), params, 0)}
    for calls in (5, 11):
        with pytest.raises(InterruptedError):
            train_f(make_data(calls=calls), params, 0, log, checkpoints)
    with pytest.raises(Stopped):  # all of them, although one received the signal
        train_f(make_data(calls=2, happens=send_sigterm_to_the_last), params, 0, log, checkpoints)
    results["again"] = train_f(make_data(), params, 0, log, checkpoints)
    assert log.lines == [f"resuming f.final at step {step} of {STEPS}" for step in (2, 8, 10)]
    return {
        f"{run}.{key}": np.asarray(value)
        for run, result in results.items()
        for key, value in [
            ("curves", [[row["train_loss"], row["loss"]] for row in result.curves]),
            *((f"{name}.{k}", v) for name, model in result.models.items() for k, v in model.state_dict().items()),
        ]
    }


def request(device: str) -> None:
    """Request a device as a training stage does, as if the machine had it."""
    with mock.patch.object(checkpoint, "pick_device", torch.device):
        checkpoint.training_settings(RankPairs(device=device), 0)


def collect_errors() -> list[str]:
    """Return the messages of errors that only several processes can meet."""
    lines = []
    for call in (lambda: distributed.local_slice(1), lambda: request("cuda:1"), lambda: request("cuda")):
        try:
            call()
        except ParamsError as error:
            lines.append(str(error))
    return lines


def run_all(out: Path) -> None:
    """Run all of this with as many processes as there are, and write the results."""
    results = {case: train_case(case) for case in CASES}
    results |= {"batch norm": run_batch_norm(), "breakdowns": train_with_interruptions(out / "checkpoints")}
    lines = collect_errors()
    if distributed.is_main():
        for name, arrays in results.items():
            store.write_arrays(out / f"{name}.safetensors", arrays)
        store.write_json(out / "refused.json", lines)


def main(out: Path) -> None:
    """Run all in the first process alone, then in all together, which finally meet the same error."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # also what is float32 elsewhere
    rank = os.environ["RANK"]
    if rank == "0":
        run_all(out / "1")
    try:
        with distributed.process_group():  # once: gloo may find the addresses of an earlier group
            run_all(out / "2")
            raise ParamsError("the same everywhere")
    except (ParamsError, SystemExit) as error:
        store.write_json(out / f"end{rank}.json", [type(error).__name__, str(error)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def torchrun(*command: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a script or a module in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}  # of this file's own imports
    return subprocess.Popen(
        [*launch, *map(str, command)], cwd=cwd, env={**os.environ, **path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_output(process: subprocess.Popen[str]) -> str:
    """Wait for the end, and return what the launcher and both processes printed."""
    try:
        return process.communicate(timeout=400)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends those that wait for each other
        pytest.fail(process.communicate()[0])


def succeed(process: subprocess.Popen[str]) -> str:
    printed = wait_for_output(process)
    assert process.returncode == 0, printed
    return printed


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the script's results."""
    folder = tmp_path_factory.mktemp("runs")
    succeed(torchrun(__file__, folder))
    return folder


def read_results(runs: Path, name: str) -> tuple[Arrays, Arrays]:
    """Return the results of one process and of two."""
    one, two = (store.read_arrays(runs / n / f"{name}.safetensors") for n in ("1", "2"))
    assert one.keys() == two.keys()
    return one, two


@pytest.mark.parametrize("case", CASES)
def test_several_processes_compute_what_one_does(runs: Path, case: str) -> None:
    one, two = read_results(runs, case)
    factors = "factors" in case
    folds = 2 if "folds" in CASES[case] else 0  # evaluations of their networks
    assert len(one["curves.loss"]) == (2 if factors else STEPS // 2 + folds)
    assert np.ptp(one["curves.loss" if factors else "curves.train_loss"]) > 1e-4  # it moves at all
    for key in one:
        largest = float(np.nanmax(np.abs(one[key]), initial=0))
        np.testing.assert_allclose(two[key], one[key], rtol=0, atol=1e-8 + 3e-7 * largest, err_msg=key)
    learnt = [key for key in one if key.startswith("gradient.") and np.abs(one[key]).max() > 1e-6]
    assert factors or len(learnt) >= 20


def test_a_batch_norm_sees_the_whole_batch(runs: Path) -> None:
    one, two = read_results(runs, "batch norm")
    assert one["0.running_mean"].mean() > 50
    assert one["0.num_batches_tracked"] == 1
    for key in one:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-7, err_msg=key)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 1, 6, 3), (4, 5, 1, 1)])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_shared_batch_norm_is_torchs_in_any_layout_and_dtype(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, apart: float
) -> None:
    torch.manual_seed(0)
    x, pull = 3 + torch.randn(shape), torch.randn(shape)
    results = []
    for kind in (nn.BatchNorm2d, distributed.SharedBatchNorm):
        norm, share = kind(shape[1]), x.to(dtype, memory_format=layout).requires_grad_()
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, shape[1]))
        y = nn.functional.relu(norm(share), inplace=True)
        (y * pull).sum().backward()
        assert share.grad is not None
        assert (y.dtype, share.grad.dtype) == (dtype, dtype)
        assert y.is_contiguous(memory_format=layout)
        results.append([y, share.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    for theirs, ours in zip(*results):  # sums of up to 72 float32 in another order: 1e-5; one bfloat16 rounding: 8e-3
        torch.testing.assert_close(ours, theirs, rtol=apart, atol=apart)


@pytest.mark.parametrize("processes", [1, 2])
def test_training_goes_on_after_breakdowns_to_the_bit(runs: Path, processes: int) -> None:
    results = read_results(runs, "breakdowns")[processes - 1]
    whole = {key.removeprefix("whole."): value for key, value in results.items() if key.startswith("whole.")}
    assert len(whole) > 90
    for key, value in whole.items():
        np.testing.assert_array_equal(results[f"again.{key}"], value, err_msg=key)


def test_dropout_differs_between_processes_and_from_one(runs: Path) -> None:
    one, two = read_results(runs, "breakdowns")
    assert not np.allclose(one["whole.curves"], two["whole.curves"], rtol=1e-6)
    np.testing.assert_allclose(one["whole.curves"], two["whole.curves"], rtol=0.2)


def test_errors_of_several_processes_are_reported_by_one(runs: Path) -> None:
    assert store.read_json(runs / "1" / "refused.json") == []
    assert store.read_json(runs / "2" / "refused.json") == [
        "more processes than frames to share, got 2, expected at most 1; lower --nproc-per-node or take larger batches",
        "one GPU for several processes, got cuda:1, expected device: auto or cuda",
        f"more processes than GPUs, got 2, expected at most {torch.cuda.device_count()}; lower --nproc-per-node",
    ]
    assert store.read_json(runs / "end0.json") == ["ParamsError", "the same everywhere"]
    assert store.read_json(runs / "end1.json") == ["SystemExit", str(ParamsError.exit_code)]


def test_a_stage_that_does_not_train_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(
        ParamsError, match=r"^this stage runs in one process, got sample-pairs; run it without torchrun$"
    ):
        stages.run_stage("sample-pairs", Params(), root=tmp_path)


def test_the_command_by_two_processes_writes_once(home: Path) -> None:
    folder = home / "work/f/0"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    printed = succeed(torchrun("-m", "aupair", "run", "train-pseudo-intensity", "--trial", "0", cwd=home))
    assert len(re.findall(r"^  step 3: f\.final", printed, re.M)) == 1, printed
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert after["final.safetensors"] != before["final.safetensors"]  # dropout
    assert [row["step"] for row in store.read_jsonl(folder / "curves.jsonl")] == [2, 3, 2, 2]
    assert not list((home / "work" / "checkpoints").iterdir())

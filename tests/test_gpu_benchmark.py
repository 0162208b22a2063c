"""Tests of benchmarks/gpu.py, with a small network on a CPU: it needs no more packages than it names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bare import run_bare

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_tiny_run_needs_no_other_packages_and_writes_both_files(tmp_path: Path) -> None:
    process = run_bare(ROOT / "benchmarks" / "gpu.py", "--tiny", "--out", str(tmp_path), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "gpu_tiny.json").read_text())
    assert results["machine"].keys() >= {"device", "torch", "date", "commit"}
    questions = [answer["question"] for answer in results["answers"]]
    assert len(questions) == 7
    for part in ("pseudo_intensity", "uncertainty"):
        off = results["figures"][f"gradient_off.{part}"]
        assert off["float32, channels last, compiled"] < 0.001  # nothing is compiled here: only the layout differs
        assert 0 < off["bfloat16, channels last, compiled"] <= 1.5 * off["bfloat16, eager"] < 1
    page = (tmp_path / "gpu_tiny.md").read_text()
    assert all(f"| {question} |" in page for question in questions)


@pytest.mark.slow
def test_error_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path)]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    )
    assert process.returncode == 1
    assert process.stderr.strip() == "gpu.py: no GPU here; --tiny checks the script on a CPU"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_operations_counted_by_torch_agree_with_cost_of() -> None:
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from aupair.evaluation.cost import cost_of
    from aupair.params import load_params
    from aupair.ranking.networks import AUNetwork

    params = load_params(ROOT / "params" / "affwild2.yaml")
    part = cost_of(params, 12)["parts"]["f"]  # of all networks
    forward = 2e9 * part["gmac_per_frame"] / part["passes"]
    with torch.device("meta"):
        network, faces = AUNetwork(params.train_pseudo_intensity.network, 224, 12), torch.empty(1, 3, 224, 224)
    first, second, third = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][:3]
    work = {}
    for layer, side in ((first, 224), (second, 224), (third, 112)):
        work[layer] = 2 * layer.weight.numel() * side**2
    for frozen, expected in (
        ((), 3 * forward - work[first]),  # the image needs no gradient
        ((first, second), 3 * forward - 2 * work[first] - 2 * work[second] - work[third]),
    ):
        for layer in frozen:
            layer.requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            network(faces).sum().backward()
        assert counter.get_total_flops() == pytest.approx(expected, rel=1e-9)

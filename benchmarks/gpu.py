"""Measure the package on a GPU, in some four minutes on a bare machine: `python benchmarks/gpu.py`, no installation.

It needs torch, torchvision, numpy, pyarrow, opencv, pydantic, pyyaml and safetensors, and writes gpu.json and gpu.md
(with `--tiny` gpu_tiny.json and gpu_tiny.md).
How fast is a training step of f and h with the settings of params/paper.yaml, but one trunk for all AUs, against the same network in
float32 (without TF32, and with it), which share of the card's measured bfloat16 rate does it reach, does the loader
keep up, how fast are scoring and a step of the mapping? The product's own step computes everything, on generated faces. `--tiny` does the same on a CPU with a small network, uncompiled: it shows that the
script runs, its figures mean nothing.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from gpu_training import (  # noqa: E402
    OURS,
    REFERENCE,
    REFERENCE_TF32,
    VARIANTS,
    Bench,
    TimedTraining,
    check_gradients,
    generate_training_set,
    start_f,
    start_h,
)
from harness import HEADINGS, Row, format_row, markdown_table, read_commit  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from aupair.aus import AFFWILD2  # noqa: E402
from aupair.mapping.columns import columns  # noqa: E402
from aupair.mapping.fit import make_mapping_optimiser, take_mapping_step  # noqa: E402
from aupair.mapping.networks import MappingNetworks  # noqa: E402
from aupair.params import load_params  # noqa: E402
from aupair.ranking.fit import autocast, cudnn_autotuning, forward_all  # noqa: E402
from aupair.ranking.prefetch import batch_loader, prefetch_depth  # noqa: E402
from aupair.ranking.sigma import SigmaNetwork  # noqa: E402

SETTINGS = (
    "train_pseudo_intensity.network.sharing=shared", "train_uncertainty.network.sharing=shared",
    "extract_features.context_points=20",
)  # fmt: skip
"""that differ from the paper's: one network stands for twelve, and features of a size that fits next to it"""
TINY = ["train_mapping.width=8"] + [f"train_{part}.{key}" for part in ("pseudo_intensity", "uncertainty")
        for key in ("network.width=0.05", "network.weights=none", "optimiser.batch=8")] + ["preprocess_faces.size=32"]  # fmt: skip

INTRODUCTION = """# Measured on a GPU

Written by `python benchmarks/gpu.py`: the product's own training step and scoring on generated faces, the settings of
params/paper.yaml with one trunk for all AUs, random weights. Reference and ours ran on the same card, one after the other.
"""
INTRODUCTION_TINY = """# The script for GPUs, tried on a CPU

Written by `python benchmarks/gpu.py --tiny`: it shows that the script runs. A small network on small faces, nothing
compiled, no GPU, a product of 128^3: whatever the name of a row, its figures mean nothing.
"""


def measure_rates(bench: Bench) -> None:
    """Measure the rates of a large matrix product in bfloat16 and of a copy within the card's memory.

    A warm card may lower its clock: ours is compared with the fastest of many products.
    """
    size, length = (128, 2**20) if bench.tiny else (8192, 2**30)
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.zeros(length, device=bench.device) for _ in range(2))
    product, copy = time_calls(bench, lambda: a @ b), time_calls(bench, lambda: target.copy_(source))
    rates = 2 * size**3 / product / 1e12
    bench.figures["matmul_tflops"], bench.figures["matmul_tflops_median"] = float(rates.max()), float(np.median(rates))
    bench.figures["copy_tb_s"] = 2 * 4 * length / float(copy.min()) / 1e12


def time_calls(bench: Bench, call: Callable[[], object]) -> np.ndarray:
    """Repeat four calls in a row for about a second; return the seconds of a call in each row but the first, (rows - 1,).

    torch.utils.benchmark would need setuptools.
    """
    seconds: list[float] = []
    end = time.perf_counter() + (0.1 if bench.tiny else 1)
    while time.perf_counter() < end or len(seconds) < 2:
        bench.synchronise()
        start = time.perf_counter()
        for _ in range(4):
            call()
        bench.synchronise()
        seconds.append((time.perf_counter() - start) / 4)
    return np.array(seconds[1:])


def measure_f(bench: Bench) -> None:
    """Measure a step of f in five ways, and the loader with our way."""
    _, steps = bench.batches("pseudo_intensity")
    rows, matmul = bench.figures.setdefault("f", []), bench.figures["matmul_tflops"]
    for variant in VARIANTS:
        training = start_f(bench, variant)
        if variant is REFERENCE:
            with FlopCounterMode(display=False) as counter:  # frozen layers have no backward pass
                training.time_steps(training.batches_on_device(steps, 1))
            bench.figures["tflop_of_a_step"] = counter.get_total_flops() / 1e12
        rows.append(training.measure(steps))
        if variant is OURS:
            measure_loader(bench, training, steps)
        del training  # frees its memory before the next one is built
    reference, ours = rows[0], rows[-1]
    share, ratio = ours["tflops"] / matmul, reference["ms"] / ours["ms"]
    bench.figures["share_of_matmul"] = share
    agree, same = check_gradients(bench, start_f, "pseudo_intensity")
    bench.rows += [
        Row("a training step of f", f"{ours['ms']:.1f} ms, {ours['images_s']:.0f} images/s, {ours['peak_gib']:.1f} GiB",
            f"{reference['ms']:.1f} ms, {reference['peak_gib']:.1f} GiB", ratio, "4 x", ratio >= 4 and agree, same),
        Row("its rate, against a bfloat16 product of 8192^3", f"{ours['tflops']:.0f} TFLOP/s",
            f"{matmul:.0f} TFLOP/s (median {bench.figures['matmul_tflops_median']:.0f})", share, "0.5 x", share >= 0.5,
            "operations counted by torch"),
    ]  # fmt: skip


def measure_loader(bench: Bench, training: TimedTraining, steps: Sequence[int]) -> None:
    """Compare steps whose faces are decoded from JPEG meanwhile with steps whose faces are in memory already."""
    count = 6 if bench.tiny else 100
    repeated = list(islice(cycle(steps), count))
    in_memory = training.time_steps(list(training.batches_on_device(steps, count)))
    prefetched, on_demand = (
        training.time_steps(
            batch_loader(training.job.sampler, training.job.drawn_images, repeated, bench.device, depth)
        )
        for depth in (prefetch_depth(bench.device), 0)
    )
    ratio = in_memory / prefetched
    bench.rows.append(Row(
        "share of the time that the loader keeps the GPU busy, from JPEG rows", f"{1000 * prefetched / count:.1f} ms a step",
        f"{1000 * in_memory / count:.1f} ms with faces in GPU memory; {1000 * on_demand / count:.1f} ms without prefetching",
        ratio, "0.9 x", ratio >= 0.9, "the same batches",
    ))  # fmt: skip


def measure_h(bench: Bench) -> None:
    """Measure a step of h."""
    _, steps = bench.batches("uncertainty")
    rows = bench.figures["h"] = [
        start_h(bench, variant).measure(steps) for variant in (REFERENCE, REFERENCE_TF32, OURS)
    ]
    agree, same = check_gradients(bench, start_h, "uncertainty")
    reference, ours = (f"{row['ms']:.2f} ms, {row['peak_gib']:.1f} GiB" for row in (rows[0], rows[-1]))
    ratio = rows[0]["ms"] / rows[-1]["ms"]
    bench.rows.append(Row("a training step of h", ours, reference, ratio, "4 x", ratio >= 4 and agree, same))


def measure_scoring(bench: Bench) -> None:
    """Measure the scoring of frames by f and h in float32 with TF32 in convolutions, as in the stages, and in bfloat16."""
    torch.backends.cudnn.allow_tf32, rows = True, np.arange(min(len(bench.data.frames), 64 if bench.tiny else 2048))
    bench.reset()
    decoded = bench.data.images(rows)
    section = bench.params.train_uncertainty
    h = SigmaNetwork(bench.build_network(section.network), np.ones(len(AFFWILD2)), section.floor)
    for name, model in (("f", bench.build_network(bench.params.train_pseudo_intensity.network)), ("h", h)):
        outputs, rates, texts = [], [], []
        for precision in ("float32", "bfloat16"):
            with autocast(precision, bench.device):
                forward_all(model, decoded.__getitem__, rows[:128], bench.device)
                bench.reset_memory()
                start = time.perf_counter()
                outputs.append(forward_all(model, decoded.__getitem__, rows, bench.device))
            rates.append(len(rows) / (time.perf_counter() - start))
            texts.append(f"{rates[-1]:.0f} frames/s, {bench.peak_memory():.1f} GiB")
        difference = float(np.abs(outputs[0] - outputs[1]).max() / outputs[0].std(axis=0).mean())
        bench.rows.append(Row(
            f"scoring by {name}, as in the stages", texts[0], f"bfloat16: {texts[1]}", rates[0] / rates[1], "none", True,
            f"{difference:.2g} sd apart at most",
        ))  # fmt: skip


def measure_mapping(bench: Bench) -> None:
    """Measure a step of the mapping against the least time in which Adam can move 28 bytes for each weight."""
    params, features = bench.params.train_mapping, len(columns(bench.params.extract_features, False))
    center = torch.zeros(len(AFFWILD2), features)
    networks = MappingNetworks(center, center + 1, params.width, params.dropout, seeds=params.seeds).to(bench.device)
    optimiser = make_mapping_optimiser(networks, params)
    x = torch.randn(params.seeds, len(AFFWILD2), params.batch, features, device=bench.device)
    y = (torch.rand(params.seeds, len(AFFWILD2), params.batch, device=bench.device) < 0.3).float()
    bench.reset()
    losses = [take_mapping_step(networks, optimiser, x, y) for _ in range(3)]
    bench.reset_memory()
    start = time.perf_counter()  # each step waits for its loss
    losses += [take_mapping_step(networks, optimiser, x, y) for _ in range(bench.steps)]
    ms = 1000 * (time.perf_counter() - start) / bench.steps
    weights, copy = sum(p.numel() for p in networks.parameters()), bench.figures["copy_tb_s"]
    least = 28 * weights / copy / 1e9
    bench.rows.append(Row(
        f"a step of the mapping, {params.seeds * len(AFFWILD2)} networks of {params.width}", f"{ms:.1f} ms, {bench.peak_memory():.1f} GiB",
        f"{least:.1f} ms: 28 B for each of {weights / 1e6:.0f} million weights at {copy:.2f} TB/s",
        least / ms, "none", True, f"its loss goes from {losses[0]:.3f} to {losses[-1]:.3f} on one batch",
    ))  # fmt: skip


def write_results(folder: Path, bench: Bench, seconds: float) -> Path:
    """Write the answers and figures so far as JSON and as a page, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "device": (platform.processor() or "a CPU") if bench.tiny else torch.cuda.get_device_name(),
        "gpus": torch.cuda.device_count(), "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__,
        "cuda": torch.version.cuda, "date": datetime.date.today().isoformat(), "commit": read_commit(),
        "seconds": round(seconds),
    }  # fmt: skip
    page = folder / ("gpu_tiny.md" if bench.tiny else "gpu.md")
    results = {"machine": machine, "answers": [vars(row) for row in bench.rows], "figures": bench.figures}
    page.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    lines = [INTRODUCTION_TINY if bench.tiny else INTRODUCTION, "; ".join(f"{k}: {v}" for k, v in machine.items()), ""]
    lines += markdown_table(HEADINGS, map(format_row, bench.rows))
    lines += [f"\n{text}" for text in dict.fromkeys(bench.figures.get("log", ()))]
    for name in ("f", "h"):
        steps = [
            (row["way"], str(row["images"]), f"{row['ms']:.2f}", f"{row['images_s']:.0f}", f"{row['peak_gib']:.1f}",
             f"{row['tflops']:.1f}")
            for row in bench.figures.get(name, ())
        ]  # fmt: skip
        lines += ["", f"A step of {name}:", ""]
        lines += markdown_table(("way", "images", "ms", "images/s", "GiB", "TFLOP/s"), steps)
    page.write_text("\n".join(lines) + "\n")
    return page


QUESTIONS: tuple[tuple[str, Callable[[Bench], None]], ...] = (
    ("the rate of the card", measure_rates), ("a step of f, and the loader", measure_f), ("scoring", measure_scoring),
    ("a step of h", measure_h), ("the mapping", measure_mapping),
)  # fmt: skip


def main() -> None:
    """Answer all questions; the results are written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    parser.add_argument("--tiny", action="store_true", help="check the script on a CPU")
    options = parser.parse_args()
    start = time.monotonic()
    if not torch.cuda.is_available() and not options.tiny:
        sys.exit("gpu.py: no GPU here; --tiny checks the script on a CPU")
    params = load_params(HERE.parent / "params" / "paper.yaml", [*SETTINGS, *(TINY if options.tiny else ())])
    with tempfile.TemporaryDirectory() as folder, cudnn_autotuning():
        count, pairs = (400, 20) if options.tiny else (20_000, params.sample_pairs.train_pairs)
        data = generate_training_set(Path(folder), params.preprocess_faces.size, count, pairs)
        bench = Bench(torch.device("cpu" if options.tiny else "cuda"), params, data, options.tiny)
        for name, measure in QUESTIONS:
            print(f"# {name} ({time.monotonic() - start:.0f} s)", flush=True)
            answered = len(bench.rows)
            measure(bench)
            bench.reset_memory()
            for row in bench.rows[answered:]:
                print("  " + " | ".join(format_row(row)), flush=True)
            page = write_results(options.out, bench, time.monotonic() - start)
    print(f"written to {page} after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

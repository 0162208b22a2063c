"""The questions for a GPU, within eight minutes on a bare machine: `python benchmarks/gpu.py`, no installation.

It needs torch, torchvision, numpy, pyarrow, opencv, pydantic, pyyaml and safetensors, and writes gpu.json and gpu.md
(with `--tiny` gpu_tiny.json and gpu_tiny.md).
How fast is a training step of f and h at the settings for Aff-Wild2 (params/affwild2.yaml) against the same network in
float32 (without TF32, and with it), which part of the card's measured bfloat16 rate is that, does the loader keep up, how
fast are scoring and a step of the mapping, what do two GPUs bring? Everything is computed by the product's own step on generated faces.
`--tiny` asks the same of a CPU and of a small network, uncompiled: it shows that the script runs, its figures say nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from gpu_bench import OURS, REFERENCE, WAYS, Bench, Fitting, agreement, fitting_f, fitting_h  # noqa: E402
from gpu_data import training_set  # noqa: E402
from gpu_page import Answer, stem, write  # noqa: E402

from aupair.aus import AUS  # noqa: E402
from aupair.mapping import fit as mapping  # noqa: E402
from aupair.mapping.extractor import columns  # noqa: E402
from aupair.mapping.networks import MappingNetworks  # noqa: E402
from aupair.params import load_params  # noqa: E402
from aupair.ranking import distributed  # noqa: E402
from aupair.ranking.fit import autocast, cudnn_autotuning, forward_all  # noqa: E402
from aupair.ranking.prefetch import batch_loader, prefetch_depth  # noqa: E402
from aupair.ranking.uncertainty import Sigma  # noqa: E402

LIMIT = 450.0
"""seconds after which no further question is begun"""
TINY = ["train_mapping.width=8"] + [f"train_{part}.{key}" for part in ("pseudo_intensity", "uncertainty")
        for key in ("network.width=0.05", "network.weights=none", "optimiser.batch=8")] + ["preprocess_faces.size=32"]  # fmt: skip


def ask_rate(bench: Bench) -> None:
    """Measure the rates of a large matrix product in bfloat16 and of a copy within the card's memory.

    A warm card may turn its clock down: the fastest of many products is what ours is held against.
    """
    size = 128 if bench.tiny else 8192
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(bench, lambda: a @ b)
    rates = 2 * size**3 / product / 1e12
    bench.figures["matmul_tflops"], bench.figures["matmul_tflops_median"] = float(rates.max()), float(np.median(rates))
    full, empty = (torch.zeros(2**20 if bench.tiny else 2**30, device=bench.device) for _ in range(2))
    copy = seconds_of(bench, lambda: empty.copy_(full))
    bench.figures["copy_tb_s"] = 2 * 4 * len(full) / float(copy.min()) / 1e12
    print(
        f"  {rates.max():.0f} TFLOP/s, {np.median(rates):.0f} in the median; {bench.figures['copy_tb_s']:.2f} TB/s",
        flush=True,
    )


def seconds_of(bench: Bench, work: Callable[[], object]) -> np.ndarray:
    """Time something four times in a row, again and again for a second."""
    seconds, end = [], time.perf_counter() + (0.1 if bench.tiny else 1)
    while time.perf_counter() < end:
        bench.wait()
        start = time.perf_counter()
        for _ in range(4):
            work()
        bench.wait()
        seconds.append((time.perf_counter() - start) / 4)
    return np.array(seconds[1:])


def work_of(fitting: Fitting, steps: Sequence[int]) -> float:
    """Count what one step computes, forward and back, in floating-point operations; frozen layers go one way."""
    from torch.utils.flop_counter import FlopCounterMode

    (batch,) = fitting.held(steps, 1)
    with FlopCounterMode(display=False) as counter:
        fitting.step(batch)
    return float(counter.get_total_flops())


def ask_f(bench: Bench) -> None:
    """Time a step of f in five ways; with the last one the loader too."""
    _, steps = bench.batches("pseudo_intensity")
    rows, matmul = bench.figures.setdefault("f", []), bench.figures["matmul_tflops"]
    for way in WAYS:
        fitting = fitting_f(bench, way)
        if way is REFERENCE:
            bench.figures["tflop_of_a_step"] = tflop = work_of(fitting, steps) / 1e12
        rows.append(fitting.measure(steps))
        show(rows[-1], tflop)
        if way is OURS:
            ask_loader(bench, fitting, steps)
        del fitting
    reference, ours = rows[0], rows[len(WAYS) - 1]
    share, ratio = 1000 * tflop / ours["ms"] / matmul, reference["ms"] / ours["ms"]
    bench.figures["share_of_matmul"] = share
    agree, same = agreement(bench, lambda way: fitting_f(bench, way, dropout=0.0), "pseudo_intensity")
    bench.answers += [
        Answer("a training step of f", f"{ours['ms']:.1f} ms, {ours['images_s']:.0f} images/s, {ours['peak_gib']:.1f} GiB",
               f"{reference['ms']:.1f} ms, {reference['peak_gib']:.1f} GiB", ratio, "4 x", ratio >= 4 and agree, same),
        Answer("what it computes, against a bfloat16 product of 8192^3", f"{1000 * tflop / ours['ms']:.0f} TFLOP/s",
               f"{matmul:.0f} TFLOP/s (median {bench.figures['matmul_tflops_median']:.0f})", share, "0.5 x", share >= 0.5,
               "operations counted by torch"),
    ]  # fmt: skip


def ask_loader(bench: Bench, fitting: Fitting, steps: Sequence[int]) -> None:
    """Time steps whose faces are decoded from JPEG rows meanwhile against steps whose faces are there already."""
    count = 6 if bench.tiny else 100
    many = list(islice(cycle(steps), count))
    there = fitting.time(list(fitting.held(steps, count)))
    seconds = {
        depth: fitting.time(batch_loader(fitting.job.sampler, fitting.job.images, many, bench.device, depth))
        for depth in (prefetch_depth(bench.device), 0)
    }
    ours, waiting = seconds[prefetch_depth(bench.device)], seconds[0]
    bench.figures["loader"] = {"steps": count, "there_s": there, "ahead_s": ours, "fetched_when_asked_s": waiting}
    ratio = there / ours
    bench.answers.append(Answer(
        "share of the time that the loader keeps the GPU busy, from JPEG rows", f"{1000 * ours / count:.1f} ms a step",
        f"{1000 * there / count:.1f} ms with faces in GPU memory; {1000 * waiting / count:.1f} ms fetched when asked for",
        ratio, "0.9 x", ratio >= 0.9, "the same batches",
    ))  # fmt: skip
    print(f"  loader: {bench.figures['loader']}", flush=True)


def ask_h(bench: Bench) -> None:
    """Time a step of h: a network of its own, and factors of f's trunk."""
    _, steps = bench.batches("uncertainty")
    for kind, ours in (("network", OURS), ("factors", OURS._replace(name="bfloat16, eager", compile=False))):
        rows = [fitting_h(bench, way, kind).measure(steps) for way in (REFERENCE, ours)]
        bench.figures[f"h.{kind}"] = rows
        one, two = (np.array(row["losses"]) for row in rows)
        ratio, apart = rows[0]["ms"] / rows[1]["ms"], float(abs(one.mean() - two.mean()) / abs(one.mean()))
        texts = [f"{row['ms']:.2f} ms, {row['peak_gib']:.1f} GiB" for row in rows]
        goal, met, same = "none: a minute in all", True, f"mean loss of {len(one)} steps {apart:.1e} apart"
        if kind == "network":
            agree, same = agreement(bench, lambda way: fitting_h(bench, way, "network", 0.0), "uncertainty")
            goal, met = "4 x", ratio >= 4 and agree
        bench.answers.append(Answer(f"a training step of h, {kind}", texts[1], texts[0], ratio, goal, met, same))
        for row in rows:
            show(row, bench.figures["tflop_of_a_step"] if kind == "network" else 0)


def ask_batches(bench: Bench) -> None:
    """Time a step of f with four times the pairs."""
    pairs = 4 * bench.params.train_pseudo_intensity.optimiser.batch // 2
    _, steps = bench.batches("pseudo_intensity", pairs)
    row = fitting_f(bench, OURS, pairs).measure(steps)
    bench.figures["f"].append({**row, "way": f"{OURS.name}; {row['images']} images"})
    show(bench.figures["f"][-1], bench.figures["tflop_of_a_step"] * row["images"] / bench.figures["f"][0]["images"])


def ask_scoring(bench: Bench) -> None:
    """Time the scoring of frames by f and h, which the stages do in float32 (convolutions in TF32), and in bfloat16."""
    torch.backends.cudnn.allow_tf32, rows = True, np.arange(min(len(bench.data.frames), 64 if bench.tiny else 2048))
    bench.clear()
    decoded = bench.data.images(rows)
    section = bench.params.train_uncertainty
    h = Sigma(bench.network(section.network), np.ones(len(AUS)), section.floor)
    for name, model in (("f", bench.network(bench.params.train_pseudo_intensity.network)), ("h", h)):
        found, texts = {}, {}
        for precision in ("float32", "bfloat16"):
            with autocast(precision, bench.device):
                forward_all(model, decoded.__getitem__, rows[:128], bench.device)
                bench.forget()
                start = time.perf_counter()
                found[precision] = forward_all(model, decoded.__getitem__, rows, bench.device)
            rate = len(rows) / (time.perf_counter() - start)
            bench.figures[f"scoring.{name}.{precision}"] = {"frames_s": rate, "peak_gib": bench.peak()}
            texts[precision] = (rate, f"{rate:.0f} frames/s, {bench.peak():.1f} GiB")
        one, two = found["float32"], found["bfloat16"]
        apart = float(np.abs(one - two).max() / one.std(axis=0).mean())
        bench.answers.append(Answer(
            f"scoring by {name}, as the stages do", texts["float32"][1], f"bfloat16: {texts['bfloat16'][1]}",
            texts["float32"][0] / texts["bfloat16"][0], "none", True, f"{apart:.2g} sd apart at most",
        ))  # fmt: skip
        print(f"  {name}: {texts}", flush=True)


def ask_mapping(bench: Bench) -> None:
    """Time a step of the mapping; its floor is what Adam must move: 28 bytes for each weight."""
    params = bench.params.train_mapping
    features = len(columns(bench.params.extract_features))
    center = torch.zeros(len(AUS), features)
    networks = MappingNetworks(torch.ones(features), center, center + 1, params.width, params.dropout).to(bench.device)
    optimiser = mapping.make_mapping_optimiser(networks, params)
    x = torch.randn(len(AUS), params.batch, features, device=bench.device)
    y = (torch.rand(len(AUS), params.batch, device=bench.device) < 0.3).float()
    bench.clear()
    first, *_ = (mapping.take_mapping_step(networks, optimiser, x, y) for _ in range(3))
    bench.forget()
    bench.wait()
    start = time.perf_counter()
    losses = [mapping.take_mapping_step(networks, optimiser, x, y) for _ in range(bench.count)]
    ms = 1000 * (time.perf_counter() - start) / len(losses)
    weights = sum(p.numel() for p in networks.parameters())
    floor = 28 * weights / bench.figures["copy_tb_s"] / 1e9
    bench.figures["mapping"] = {"ms": ms, "weights": weights, "peak_gib": bench.peak(), "losses": [first, *losses]}
    bench.answers.append(Answer(
        f"a step of the mapping, {2 * len(AUS)} networks of {params.width}", f"{ms:.1f} ms, {bench.peak():.1f} GiB",
        f"{floor:.1f} ms: 28 B for each of {weights / 1e6:.0f} million weights at {bench.figures['copy_tb_s']:.2f} TB/s",
        floor / ms, "none", True, f"its loss goes from {first:.3f} to {losses[-1]:.3f} on one batch",
    ))  # fmt: skip
    print(f"  {ms:.2f} ms, {floor:.2f} ms at the rate of a copy; loss {first:.3f} to {losses[-1]:.3f}", flush=True)


def ask_two(bench: Bench) -> None:
    """Time a step of f by two processes with a GPU each, the same batch and twice the batch."""
    gpus = torch.cuda.device_count()
    if gpus < 2 and not bench.tiny:
        bench.answers.append(Answer("two GPUs", "skipped", f"{gpus} GPU", None, "1.7 x", None, ""))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shared.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        command = [*launch, "--shared", str(out), *(["--tiny"] if bench.tiny else [])]
        try:
            subprocess.run(command, check=True, timeout=1200 if bench.tiny else 150)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = f"{type(error).__name__}: its output stands above"
            bench.answers.append(Answer("two GPUs", "failed", why, None, "1.7 x", False, ""))
            print(f"  {error}", flush=True)
            return
        two = json.loads(out.read_text())
    one = bench.figures["f"][len(WAYS) - 1]
    bench.figures["two"] = two
    ratio = one["ms"] / two[0]["ms"]
    double = f"{two[1]['images']} images: {two[1]['images_s'] / one['images_s']:.2f} x the images/s"
    bench.answers.append(Answer(
        "two GPUs (nccl)", f"{two[0]['ms']:.1f} ms; {double}", f"{one['ms']:.1f} ms", ratio, "1.7 x", ratio >= 1.7,
        f"last losses {two[0]['losses'][-1]:.3f} and {one['losses'][-1]:.3f}, other masks of dropout",
    ))  # fmt: skip


def show(row: dict[str, Any], tflop: float) -> None:
    """Print what was measured."""
    row["tflops"] = 1000 * tflop / row["ms"]
    print(f"  {row['way']}: {row['ms']:.2f} ms, {row['images_s']:.0f} images/s, {row['peak_gib']:.1f} GiB,"
          f" {row['tflops']:.1f} TFLOP/s; first steps {row['first_four_steps_s']:.0f} s", flush=True)  # fmt: skip


def shared(bench: Bench, out: Path) -> None:
    """Be one of several processes: time f with the same batch and with one for each process."""
    rows = []
    for times in (1, distributed.world_size()):
        pairs = times * bench.params.train_pseudo_intensity.optimiser.batch // 2
        rows.append(fitting_f(bench, OURS, pairs).measure(bench.batches("pseudo_intensity", pairs)[1]))
    if distributed.is_main():
        out.write_text(json.dumps(rows))


QUESTIONS: tuple[tuple[str, Callable[[Bench], None], float], ...] = (
    ("the rate of the card", ask_rate, 0), ("a step of f, and the loader", ask_f, 0), ("scoring", ask_scoring, 20),
    ("a step of h", ask_h, 150), ("four times the batch", ask_batches, 80), ("the mapping", ask_mapping, 20),
    ("two GPUs", ask_two, 110),
)  # fmt: skip
"""with the seconds that each may take"""


def main() -> None:
    """Ask all questions; what was answered is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    parser.add_argument("--tiny", action="store_true", help="check the script on a CPU")
    parser.add_argument("--shared", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    begun = time.monotonic()
    if not torch.cuda.is_available() and not options.tiny:
        sys.exit("gpu.py: no GPU here; --tiny checks the script on a CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    params = load_params(HERE.parent / "params" / "affwild2.yaml", TINY if options.tiny else ())
    with tempfile.TemporaryDirectory() as folder, distributed.process_group(), cudnn_autotuning():
        pairs = 20 if options.tiny else params.sample_pairs.train_pairs
        data = training_set(Path(folder), params.preprocess_faces.size, 400 if options.tiny else 20_000, pairs)
        bench = Bench(device, params, data, options.tiny, 4 if options.tiny else 30, [], {})
        if options.shared:
            shared(bench, options.shared)
            return
        for name, question, needs in QUESTIONS:
            if time.monotonic() - begun + needs > LIMIT:
                bench.answers.append(Answer(name, "skipped", "no time left", None, "", None, ""))
                continue
            print(f"# {name} ({time.monotonic() - begun:.0f} s)", flush=True)
            question(bench)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            write(options.out, device, bench.answers, bench.figures, time.monotonic() - begun)
    print(f"written to {options.out / stem(device)}.md after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()

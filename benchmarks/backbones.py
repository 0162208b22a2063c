"""What does each kind of network cost, frozen and not, and how long do 100,000 frames take with a frozen EfficientNet-B0?

    python benchmarks/backbones.py [--kinds KIND ...] [--frames 20000]

Writes backbones.md and backbones.json. A kind is measured on a few faces and steps in one thread of a process of its own and
scaled; seconds are of the processor, so that other load on the machine counts little. The flow runs on fewer frames, on generated
labels and features, and is scaled, too; the time of embed-faces follows from the speed of the kind. No weights are
downloaded: they are random, which does not change the cost.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from affwild2_size import generate
from harness import markdown_table, run_in_child
from run import describe_machine

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.params import Params, load_params

HERE = Path(__file__).parent
ROOT = HERE.parent
KINDS = ("vgg16 .25", "vgg16", "efficientnet_b0", "resnet50", "convnext_tiny", "efficientnet_v2_s", "vit_b_16")
"""`vgg16 .25` is the demo's, at 96 pixels; `vgg16` is measured at 224"""
FEATURES = 1280
"""of EfficientNet-B0"""
TRIALS = (0, 1, 2, 3, 4)
LATER = ("train-pseudo-intensity", "train-uncertainty", "extract-features", "train-mapping", "evaluate")
CORES = 2
TARGET, GOAL_MINUTES, GOAL_GIB = 100_000, 45, 8
"""frames, and the goal for them"""


def params_of(kind: str, frozen: bool) -> Params:
    """Return the demo's params with the network of a kind."""
    name, _, width = kind.partition(" ")
    network = {"kind": name, "frozen": frozen, "weights": "none"}
    network |= {"width": float(width or 1), "batch_norm": bool(width), "dropout": 0.0} if name == "vgg16" else {}
    size = 224 if kind == "vgg16" else 96
    overrides = [f"preprocess_faces.size={size}", f"train_pseudo_intensity.network={json.dumps(network)}"]
    return load_params(ROOT / "params.yaml", overrides)


def cpu_seconds(call: Callable[[], object], times: int = 1) -> float:
    """Return the processor's seconds of a call, a mean over some after one that warms up."""
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def measure_speed(kind: str) -> dict[str, float]:
    """Return seconds of the processor for a frame through the trunk."""
    import torch

    from aupair.ranking.fit import CHUNK, forward_in_chunks
    from aupair.ranking.networks import build_trunk
    from aupair.ranking.trunks import Trunk

    torch.set_num_threads(1)
    params = params_of(kind, True)
    size = params.preprocess_faces.size
    trunk = Trunk(build_trunk(params.train_pseudo_intensity.network, size, 0))
    faces = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (CHUNK, 3, size, size)).astype(np.float32))
    with torch.no_grad():
        features = forward_in_chunks(trunk, faces).shape[1]
        return {"frame": cpu_seconds(lambda: forward_in_chunks(trunk, faces), 2) / CHUNK, "features": features}


def measure_step(kind: str, frozen: bool, features: int, frames: int) -> float:
    """Return seconds of the processor for a step of a training, for each frame of its batch."""
    import torch

    from aupair.ranking.fit import build_optimiser
    from aupair.ranking.networks import build_network

    torch.set_num_threads(1)
    params = params_of(kind, frozen)
    size = params.preprocess_faces.size
    section = params.train_pseudo_intensity
    model = build_network(section.network, features if frozen else size, 0, len(AFFWILD2)).train()
    optimiser, _ = build_optimiser(model, section.optimiser, 10)
    shape = (frames, features) if frozen else (frames, 3, size, size)
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype(np.float32))

    def step() -> None:
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()

    return cpu_seconds(step, 8 if frozen else 1) / frames


def measure_kind(kind: str) -> dict[str, Any]:
    """Return the cost of a kind: size, speed, memory, and seconds of one training of f with two folds."""
    from aupair.evaluation.cost import cost_of

    params = params_of(kind, True)
    optimiser, folds = params.train_pseudo_intensity.optimiser, params.sample_pairs.folds
    frames = (optimiser.steps + folds * optimiser.fold_steps) * optimiser.batch
    cost = cost_of(params, len(AFFWILD2))["parts"]["f"]
    speed, memory = run_in_child(measure_speed, kind)
    heads, _ = run_in_child(measure_step, kind, True, int(speed["features"]), optimiser.batch)
    whole, memory_of_step = run_in_child(measure_step, kind, False, int(speed["features"]), 4)
    return {
        "kind": kind, "gmac": cost["gmac_per_frame"], "parameters": cost["parameters"],
        "features": int(speed["features"]), "frames_per_second": CORES / speed["frame"], "memory": memory,
        "memory_of_4_frames_trained": memory_of_step, "frozen_seconds": frames * heads, "trained_seconds": frames * whole,
    }  # fmt: skip


def write_features(root: Path, params: Params) -> None:
    """Write features of every face as embed-faces does, without computing them."""
    from aupair.data.frames import load_frames
    from aupair.ranking.embeddings import describe_features

    rng = np.random.default_rng(0)
    frames = load_frames(root / "work/labels.parquet", root / "work/faces")
    folder, names = root / "work" / "embeddings", {}
    (folder / "trunk").mkdir(parents=True)
    weight = rng.normal(size=(len(AFFWILD2), FEATURES)).astype(np.float32)
    for video, rows in zip(frames.videos, frames.slices()):
        ok = frames.ok[rows]
        if not ok.any():
            continue
        signal = frames.labels[rows][ok].clip(0) @ weight + 4 * rng.normal(size=(int(ok.sum()), FEATURES))
        copies = 2 if frames.of_split("fit")[rows].any() else 1
        names[video] = f"{video}.npy"
        np.save(folder / names[video], np.stack([signal.astype(np.float16)] * copies))
    network, size = params.train_pseudo_intensity.network.trunk_settings(), params.preprocess_faces.size
    store.write_json(folder / "trunk" / "about.json", {"network": network, "size": size})
    store.write_json(folder / "about.json", describe_features(params) | {"files": names})


def run_stage(root: Path, name: str) -> float:
    """Run a stage of the flow on the generated data, and return its seconds of the processor."""
    import torch

    torch.set_num_threads(CORES)
    overrides = [f"trials={list(TRIALS)}", "check_data.few_positives=0", "train_pseudo_intensity.device=cpu"]
    params = load_params(ROOT / "params" / "laptop.yaml", overrides)
    start = time.process_time()
    if name == "generate":
        from aupair.data.splits import split_data

        generate(root, 100, int((root / "frames").read_text()))
        split_data(root / "data")
    elif name == "features":
        write_features(root, params)
    else:
        stages.run_stage(name, params, root=root)
    return time.process_time() - start


def measure_flow(frames: int) -> dict[str, Any]:
    """Return for each stage seconds of the processor and the peak memory, GiB."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "frames").write_text(str(frames))
        steps = ("generate", "check-data", "sample-pairs", "features", *LATER)
        return {name: run_in_child(run_stage, root, name) for name in steps}


def write_page(result: dict[str, Any]) -> None:
    """Write backbones.json and backbones.md."""
    store.write_json(HERE / "backbones.json", result)
    lines = ["# Networks: what each kind costs", "", "Written by `benchmarks/backbones.py`.", "", result["machine"], ""]
    lines += [
        "A training is f of the demo's settings with two folds: 740 steps of 48 frames. Frozen, the heads alone are trained,",
        f"on features that are computed once. Frames a second: through the trunk, on {CORES} cores that do nothing else.",
        "Measured in one thread on 24 faces, and on 2 steps of 4 frames (trained) or 9 of 48 (frozen), by the time of the",
        "processor; the rest is scaled. Other load on the machine makes figures worse, not better.", "",
    ]  # fmt: skip
    headings = (
        "kind", "GMAC a frame", "million weights", "features", "frames/s", "GiB", "training, frozen", "training, all trained",
    )  # fmt: skip
    lines += markdown_table(headings, [_kind_cells(kind) for kind in result["kinds"]])
    if flow := result.get("flow"):
        lines += ["", *_flow_lines(flow, result)]
    store.write_text(HERE / "backbones.md", "\n".join(lines) + "\n")


def _kind_cells(kind: dict[str, Any]) -> list[str]:
    seconds = [f"{kind[key] / CORES:,.0f} s" for key in ("frozen_seconds", "trained_seconds")]
    return [
        kind["kind"], f"{kind['gmac']:.2f}", f"{kind['parameters'] / 1e6:.1f}", f"{kind['features']:,}",
        f"{kind['frames_per_second']:.0f}", f"{kind['memory']:.1f}", *seconds,
    ]  # fmt: skip


def _flow_lines(flow: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Return the lines about the time of a flow with a frozen EfficientNet-B0."""
    speed = next(kind["frames_per_second"] for kind in result["kinds"] if kind["kind"] == "efficientnet_b0")
    frames = result["frames"]
    factor = TARGET / frames
    minutes = {name: flow[name][0] / CORES / 60 for name in LATER if name in flow}
    rows = [["embed-faces, without copies", "", f"{TARGET / speed / 60:.1f}", ""]]
    rows += [[name, f"{own:.2f}", f"{factor * own:.1f}", f"{flow[name][1]:.1f}"] for name, own in minutes.items()]
    total = TARGET / speed / 60 + factor * sum(minutes.values())
    memory = max(flow[name][1] for name in minutes)
    lacking = ", ".join(name for name in LATER if name not in flow)
    return [
        f"## {TARGET:,} frames, efficientnet_b0, five trials of f with two folds each", "",
        f"params/laptop.yaml on generated labels and features of {frames:,} frames, times {factor:g}: too much for what does not grow",
        f"with the frames, such as the steps of a training. Minutes on {CORES} cores are half of the processor's minutes. Each",
        "augmented copy of the videos of fit adds their share of embed-faces.", "",
        *markdown_table(("stage", f"minutes, {frames:,} frames", f"minutes, {TARGET:,} frames", "GiB, measured"), rows), "",
        f"Together {total:.0f} minutes{f' without {lacking}' if lacking else ''} (goal: {GOAL_MINUTES}); memory {memory:.1f} GiB"
        f" as measured (goal: {GOAL_GIB}).",
    ]  # fmt: skip


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--frames", type=int, default=20_000, help="of the flow; 0: leave it out")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": describe_machine(), "frames": options.frames, "kinds": []}
    for kind in options.kinds:
        result["kinds"].append(measure_kind(kind))
        print(result["kinds"][-1], flush=True)
        write_page(result)
    if options.frames:
        result["flow"] = measure_flow(options.frames)
    write_page(result)
    print((HERE / "backbones.md").read_text())


if __name__ == "__main__":
    main()

"""What gpu.py writes: gpu.json with every figure, gpu.md with the answers; gpu_tiny.* where it was only tried on a CPU."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Answer(NamedTuple):
    """As a row of harness.py, which needs packages that a bare machine lacks; met None: not asked here."""

    question: str
    ours: str
    reference: str
    ratio: float | None
    goal: str
    met: bool | None
    same: str


HEAD = """# What a GPU said

Written by `python benchmarks/gpu.py`: the product's own training step and scoring on generated faces, the settings of
params/affwild2.yaml, weights drawn at random. Reference and ours ran on the same card, one after the other.
"""

TINY = """# The GPU's questions, tried on a CPU

Written by `python benchmarks/gpu.py --tiny`: it shows that the script runs. A small network on small faces, nothing compiled, no
GPU, two processes by gloo, a product of 128^3: whatever a row is called, its figures say nothing.
"""


def stem(device: torch.device) -> str:
    """How both files are called."""
    return "gpu" if device.type == "cuda" else "gpu_tiny"


def write(
    folder: Path, device: torch.device, answers: Sequence[Answer], figures: dict[str, Any], seconds: float
) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    where = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "a CPU",
        "gpus": torch.cuda.device_count(), "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__,
        "cuda": torch.version.cuda, "date": datetime.date.today().isoformat(), "commit": commit(),
        "seconds": round(seconds),
    }  # fmt: skip
    everything = {"machine": where, "answers": [answer._asdict() for answer in answers], "figures": figures}
    head = HEAD if device.type == "cuda" else TINY
    (folder / f"{stem(device)}.json").write_text(json.dumps(everything, indent=1) + "\n")
    (folder / f"{stem(device)}.md").write_text(page(head, where, answers, figures))


def page(head: str, where: dict[str, Any], answers: Sequence[Answer], figures: dict[str, Any]) -> str:
    """Lay out the page."""
    about = "; ".join(f"{key}: {value}" for key, value in where.items())
    lines = [head, about, "", *table(("question", "ours", "reference", "ratio", "goal", "met", "the same?"))]
    for answer in answers:
        ratio = "" if answer.ratio is None else f"{answer.ratio:.2f} x"
        met = {True: "yes", False: "no", None: ""}[answer.met]
        cells = (answer.question, answer.ours, answer.reference, ratio, answer.goal, met, answer.same)
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{text}" for text in dict.fromkeys(figures.get("said", ()))]
    for key, title in (("f", "f"), ("h.network", "h, a network of its own"), ("h.factors", "h, factors")):
        if key in figures:
            lines += ["", f"A step of {title}:", "", *table(("way", "images", "ms", "images/s", "GiB", "TFLOP/s"))]
            lines += [
                f"| {row['way']} | {row['images']} | {row['ms']:.2f} | {row['images_s']:.0f} | {row['peak_gib']:.1f}"
                f" | {row['tflops']:.1f} |"
                for row in figures[key]
            ]
    return "\n".join(lines) + "\n"


def table(names: Sequence[str]) -> list[str]:
    """The head of a table."""
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def commit() -> str:
    """Name the code: git's word, or AUPAIR_COMMIT where the checkout came without its history."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        said = ""
    return os.environ.get("AUPAIR_COMMIT") or said or "unknown"

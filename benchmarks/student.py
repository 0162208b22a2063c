"""Does a student run the whole of `aupair predict` on two cores as fast as a camera films, and what is lost by it?

At the paper's settings (params/affwild2.yaml: VGG16, 224 pixels) with random weights: what a network says does not
change how long it takes. Where the flow and then `aupair distill` (and no `aupair ablate` since) have run, in this checkout or in the folder that
AUPAIR_DEMO names, the same for the trained networks, and the mean F1 of both.

    AUPAIR_DEMO=FOLDER python benchmarks/student.py
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, in_child, main

from aupair.params import Params, load_params
from faces import film

HERE = Path(__file__).parent
CORES = 2
FRAMES = 600
"""of the student's clip"""
SHORT = 32
"""of the clip that a network of VGG16's size predicts: seconds a frame, the rest does not count"""
GOAL, LOSS = 30.0, 0.02
"""frames a second; mean F1 on validation"""


@dataclass(frozen=True)
class Speed:
    """What predict did with a clip: frames a second of all, of finding faces alone, of scoring them alone; faces."""

    whole: float
    faces: float
    scores: float
    found: int


def measure() -> list[Row]:
    """Predict a clip with a teacher and its student, each in a process of its own."""
    from aupair.ablation.student import REPORTS, student_of

    teacher = load_params(HERE.parent / "params" / "affwild2.yaml")
    student = student_of(teacher, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, short = lengthen(film(folder, 0)[0], folder / "long.mp4", FRAMES), folder / "short.mp4"
        lengthen(clip, short, SHORT)
        ours = in_child(of_random, folder, student, clip).result
        theirs = in_child(of_random, folder, teacher, short).result
        rows = [speed_row("VGG16, 224 pixels", ours, theirs, SHORT), cost_row(student, teacher)]
        home = Path(os.environ.get("AUPAIR_DEMO", HERE.parent))
        if (home / REPORTS / "student.json").exists():
            rows += demo_rows(home, clip)
        else:
            print(f"no student in {home}: run `make demo` and `aupair distill` there, or let AUPAIR_DEMO name a folder")
    return rows


def demo_rows(home: Path, clip: Path) -> list[Row]:
    """Do the same with the trained networks of a folder, and set their scores side by side."""
    from aupair import store
    from aupair.ablation.student import REPORTS
    from aupair.ablation.workspace import Workspace

    found = store.read_json(home / REPORTS / "student.json")
    ours, theirs = (in_child(of_trained, root, found["trial"], clip).result for root in (Workspace(home).root, home))
    f1 = {name: found[name]["f1_validation"] for name in ("student", "teacher")}
    select = {name: found[name]["f1_select"] for name in ("student", "teacher")}
    lost = f1["teacher"] - f1["student"]
    return [
        speed_row("the demo's networks", ours, theirs, FRAMES),
        Row(
            "mean F1 on the demo's validation", f"{f1['student']:.3f}", f"teacher: {f1['teacher']:.3f}", None,
            f"at most {LOSS:g} lost", lost <= LOSS,
            f"lost: {lost:+.4f}; on select {select['student']:.3f} of {select['teacher']:.3f}",
        ),
    ]  # fmt: skip


def speed_row(what: str, ours: Speed, theirs: Speed, frames: int) -> Row:
    """Say how fast both are."""
    whole, part = (
        f"{one.whole:.3g} frames/s (faces alone {one.faces:.3g}, scores {one.scores:.3g})" for one in (ours, theirs)
    )
    return Row(
        f"predict on {CORES} cores, 640x480, {what}", whole, f"its teacher: {part}", ours.whole / theirs.whole,
        f"{GOAL:g} frames/s", ours.whole >= GOAL,
        f"a face in {ours.found} of {FRAMES} frames, and in {theirs.found} of {frames}",
    )  # fmt: skip


def cost_row(student: Params, teacher: Params) -> Row:
    """Count what a frame costs each."""
    from aupair.evaluation.cost import cost_of

    ours, theirs = cost_of(student), cost_of(teacher)
    whole, part = (
        f"{one['gmac_per_frame']:.3g} GMAC, {one['parameters'] / 1e6:.3g} M parameters" for one in (ours, theirs)
    )
    alone = [
        sum(one["parts"][name]["gmac_per_frame"] for name in "fh" if name in one["parts"]) for one in (ours, theirs)
    ]
    return Row(
        "a frame at VGG16, 224 pixels", whole, f"its teacher: {part}", theirs["gmac_per_frame"] / ours["gmac_per_frame"],
        "none", True, f"f and h alone: {alone[0]:.3g} of {alone[1]:.3g} GMAC, {alone[1] / alone[0]:.0f} x",
    )  # fmt: skip


def lengthen(source: Path, target: Path, frames: int) -> Path:
    """Play a clip forth and back until it has so many frames."""
    import cv2

    reader, images = cv2.VideoCapture(str(source)), []
    while len(images) < frames and (read := reader.read())[0]:
        images.append(read[1])
    both = images + images[::-1]
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, images[0].shape[1::-1])
    for k in range(frames):
        writer.write(both[k % len(both)])
    writer.release()
    return target


def of_random(folder: Path, params: Params, clip: Path) -> Speed:
    """Predict with random networks of these params."""
    return predicted(random_recognizer(folder, params), clip)


def of_trained(root: Path, trial: int, clip: Path) -> Speed:
    """Predict with the networks of a trial."""
    from aupair.inference.bundle import Parts, write_bundle
    from aupair.inference.recognizer import BundleRecognizer
    from aupair.stage import ARTIFACTS

    place = {name: root / path.format(trial=trial) for name, path in ARTIFACTS.items()}
    parts = Parts(
        place["f"], place["h"], place["mapping"], place["features"] / "statistics.safetensors", place["selection"],
        place["info"], place["metrics"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        write_bundle(Path(name) / "bundle", parts, load_params(root / "params.yaml"))
        return predicted(BundleRecognizer.load(Path(name) / "bundle", "cpu"), clip)


def random_recognizer(folder: Path, params: Params) -> Any:
    """Build the whole recognizer with random weights; f and h go through their files, as they do in a bundle."""
    import torch

    from aupair.aus import AUS
    from aupair.evaluation.confidence import TERMS, Confidence
    from aupair.evaluation.selection import Selection
    from aupair.inference.recognizer import BundleRecognizer
    from aupair.mapping.extractor import CDF_POINTS, Statistics, columns
    from aupair.mapping.fit import Mapping
    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.networks import SecondHead, build_network
    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import Scorer, save_f, save_h
    from aupair.ranking.uncertainty import Sigma, Uncertainty

    f, h, size, a = params.train_pseudo_intensity, params.train_uncertainty, params.preprocess_faces.size, len(AUS)
    ones, none = np.ones(a, np.float32), np.empty((0, a), np.float32)
    blank = {"weights": "none", "frozen_convolutions": 0}
    network = build_network(f.network.model_copy(update=blank), size, 0)
    sigma: Any = SecondHead(network, ones)
    if h.kind == "network":
        sigma = Sigma(build_network(h.network.model_copy(update=blank), size, 1), ones, h.floor)
    save_f(
        folder / "f", PseudoIntensity({"final": network}, {"final": 0 * ones}, {"final": ones}, none, []), params, size
    )
    save_h(folder / "h", Uncertainty({"final": sigma}, none, []), params, size)
    names = columns(params.extract_features)
    plain = torch.tensor([group == "plain" for _, group in names])
    center, width = torch.zeros(a, len(names)), params.train_mapping.width
    mapping = Mapping(MappingNetworks(plain, center, center + 1, width, 0.0), width)
    statistics = Statistics(-ones, ones, ones, np.zeros((a, CDF_POINTS), np.float32))
    selection = Selection(0, ones > 0, 0.5 * ones, Confidence(np.zeros((a, len(TERMS)))))
    return BundleRecognizer(Scorer(folder / "f", folder / "h", "cpu"), statistics, mapping, selection, params)


def predicted(recognizer: Any, clip: Path) -> Speed:
    """Time `predict` from the file to table and picture on CORES cores; then its two heavy parts alone."""
    import torch

    from aupair.faces.video import iter_faces
    from aupair.inference.predict import predict_videos

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    with tempfile.TemporaryDirectory() as name:
        predict_videos([clip], recognizer, Path(name))  # the first time loads libraries and wakes the threads
        start = time.perf_counter()
        (row,) = predict_videos([clip], recognizer, Path(name))
        whole = time.perf_counter() - start
    start = time.perf_counter()
    faces = [face.image for face in iter_faces(clip, recognizer.params.preprocess_faces) if face.image is not None]
    found = time.perf_counter() - start
    part, scored = np.stack(faces[:SHORT]), []
    for _ in range(3):
        start = time.perf_counter()
        recognizer.score(part)
        scored.append(time.perf_counter() - start)
    return Speed(row.frames / whole, row.frames / found, len(part) / min(scored), row.faces)


if __name__ == "__main__":
    main(measure)

"""Does predict need more memory, or more time a frame, for a long video, and what do several processes bring?

Each video is predicted by `predict` in a process of its own, to its table and its picture, with networks of the demo's
shape and random weights. One of an hour and one of five minutes, 30 frames a second, show what deciding and writing
take: their frames are tiny, and quick substitutes find faces and score them. A clip of 100 s and one of 20 s, a
synthetic face, show the same of everything: decoding, finding, aligning, JPEG, both networks. Six clips of 20 s show what
predicting in two processes brings.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from harness import Row, main, run_in_child, write_video

from aupair.aus import AFFWILD2
from aupair.faces import video
from aupair.faces.decode import read_frames
from aupair.faces.row import FaceRow
from aupair.inference.predict import predict_videos
from aupair.inference.recognizer import BundleRecognizer
from aupair.params import Params, load_params

ROOT = Path(__file__).parents[1]
HOUR, MINUTES, FPS = 3600, 300, 30
LONG, SHORT, CLIP_FPS = 100, 20, 25
TOLERANCE = 1.1
"""ratio that still counts as the same: timers and allocators differ from run to run"""
WORKERS, CLIPS = 2, 6
GOAL_OF_WORKERS = 1.3
GOAL = "the same peak memory and time a frame (10 %)"


def draw_faces() -> list[np.ndarray]:
    """Return five seconds of a synthetic face, (H, W, 3) uint8 BGR each."""
    from aupair.synth import subject
    from aupair.synth.corpus import SynthParams, draw_frame, plan_clip
    from aupair.synth.script import Deck

    rng = np.random.default_rng(0)
    person = subject.make_subject(rng)
    plan = plan_clip(rng, SynthParams(seconds=5, fps=CLIP_FPS), person, Deck(rng), "fit")
    return [draw_frame(plan, k, person, rng)[0] for k in range(len(plan.times))]


def draw_noise() -> list[np.ndarray]:
    """Return 311 tiny random frames, (32, 32, 3) uint8 each."""
    return list(np.random.default_rng(0).integers(0, 256, (311, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2))


def build_recognizer(params: Params, folder: Path) -> BundleRecognizer:
    """Build a recognizer of the demo's shape with random weights."""
    from torch import ones

    from aupair.evaluation.confidence import Confidence
    from aupair.evaluation.selection import Selection
    from aupair.mapping.columns import columns
    from aupair.mapping.extractor import Extractor
    from aupair.mapping.model import Mapping
    from aupair.mapping.networks import MappingNetworks
    from aupair.mapping.smoother import Noise
    from aupair.mapping.statistics import Statistics
    from aupair.ranking.ensemble import Member
    from aupair.ranking.networks import build_network
    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import Scorer, save_f, save_h
    from aupair.ranking.sigma import FactorReader, SigmaModel, phi_of_map
    from aupair.ranking.uncertainty import Uncertainty

    section, size, aus = params.train_uncertainty, params.preprocess_faces.size, len(AFFWILD2)
    f = build_network(params.train_pseudo_intensity.network, size, seed=0, au_count=aus)
    feature_map = f.forward_with_map(ones(1, 3, size, size), f.layers_through(section.block))[1]
    reader = FactorReader(section.block, phi_of_map(feature_map).shape[1], aus)
    h = SigmaModel({Member(0, "final"): reader}, floor=section.floor)
    no_frames = np.zeros((0, aus), np.float32)
    zeros, ones_of_aus = {"final": np.zeros(aus)}, {"final": np.ones(aus)}
    trained = PseudoIntensity({"final": f}, zeros, ones_of_aus, {"final": no_frames}, [], 0.5)
    save_f(folder / "f", trained, params, size, AFFWILD2)
    save_h(folder / "h", Uncertainty(h, no_frames, no_frames, [], (Member(0, "final"),)), params, size, AFFWILD2)
    rng = np.random.default_rng(0)
    features, mapping = params.extract_features, params.train_mapping
    scale = ones(aus, len(columns(features, False)))
    routes = ("raw", features.deciding)
    networks = {r: MappingNetworks(0 * scale, scale, mapping.width, 0.0, seeds=mapping.seeds) for r in routes}
    confidence = Confidence(rng.normal(size=(aus, 5)))
    statistics = dict.fromkeys(routes, Statistics.from_fit_frames(rng.normal(size=(999, aus)).astype("f4")))
    extractor = Extractor(features, {features.deciding: Noise(0.1, 2.0, (1.0,) * aus)}, statistics=statistics)
    return BundleRecognizer(
        Scorer([folder / "f"], folder / "h", [Member(0, "final")], "cpu"), extractor, Mapping(networks, AFFWILD2),
        Selection(AFFWILD2, rng.random(aus) < 0.5, np.full(aus, 0.5), confidence), params,
    )  # fmt: skip


def predict(source: Path, out: Path, substitutes: bool) -> tuple[float, int]:
    """Predict a video; return the seconds, without those of loading models, and the number of frames."""
    import torch

    torch.manual_seed(0)
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        recognizer = build_recognizer(params, Path(folder))
    if substitutes:
        video.iter_faces = whole_frames
        parts = recognizer.extractor, recognizer.mapping, recognizer.selection
        recognizer = BundleRecognizer(score_by_pixels, *parts, params)
    next(video.iter_faces(source, params.preprocess_faces))  # loads its models
    start = time.perf_counter()
    (row,) = predict_videos([source], recognizer, out)
    return time.perf_counter() - start, row.frames


def predict_by(workers: int, clips: list[Path], out: Path) -> tuple[float, int]:
    """Predict clips in some processes; return the seconds, with those of starting the processes, and the number of frames."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `aupair predict` sets it
    import torch

    torch.manual_seed(0)
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        recognizer = build_recognizer(params, Path(folder))
    start = time.perf_counter()
    rows = predict_videos(clips, recognizer, out, workers=workers)
    return time.perf_counter() - start, sum(row.frames for row in rows)


def compare_workers(clip: Path, folder: Path) -> Row:
    """Compare two processes with one, which uses as many threads as there are cores."""
    clips = [folder / f"copy{k}.mp4" for k in range(CLIPS)]
    for copy in clips:
        copy.write_bytes(clip.read_bytes())
    speeds = {}
    for workers in (WORKERS, 1):
        (seconds, frames), _ = run_in_child(predict_by, workers, clips, folder / f"out{workers}")
        speeds[workers] = frames / seconds
        print(f"{workers} processes: {frames} frames, {seconds:.1f} s", flush=True)
    same = all(
        path.read_bytes() == (folder / "out1" / path.name).read_bytes() for path in (folder / f"out{WORKERS}").iterdir()
    )
    ratio = speeds[WORKERS] / speeds[1]
    return Row(
        "predict, six clips of 20 s in two processes against one", f"{speeds[WORKERS]:.1f} frames/s",
        f"{speeds[1]:.1f} frames/s", ratio, f"{GOAL_OF_WORKERS:g} x", ratio >= GOAL_OF_WORKERS and same,
        f"{'the same bytes in every file' if same else 'other bytes'}; starting the processes included",
    )  # fmt: skip


def whole_frames(source: Path, *_: object) -> Iterator[FaceRow]:
    """Yield each frame as a face, every 25th without one; a substitute for `iter_faces`."""
    for frame in read_frames(source):
        face = None if frame.index % 25 == 24 else frame.image
        yield FaceRow(frame.index, frame.time, "no_face" if face is None else "ok", face)


def score_by_pixels(images: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y_hat, sigma and sigma again, (B, A) each, from pixel values; a substitute for the networks."""
    values = images.reshape(len(images), -1)[:, : 2 * len(AFFWILD2)].astype(np.float32) / 64
    sigma = values[:, len(AFFWILD2) :] + 0.1
    return values[:, : len(AFFWILD2)] - 2, sigma, sigma


def compare(question: str, clips: tuple[Path, Path], folder: Path, substitutes: bool, same: str) -> Row:
    """Compare a long video with a short one."""
    memory, ms, frames = [], [], []
    for clip in clips:
        (seconds, count), gib = run_in_child(predict, clip, folder / "out", substitutes)
        memory.append(1024 * gib)
        ms.append(1e3 * seconds / count)
        frames.append(count)
        print(f"{clip.name}: {count} frames, {seconds:.1f} s, {memory[-1]:.0f} MiB", flush=True)
    long, short = (f"{mib:.0f} MiB, {time:.2f} ms a frame" for mib, time in zip(memory, ms))
    ratio = memory[0] / memory[1]
    return Row(
        question, long, short, None, GOAL, ratio <= TOLERANCE and ms[0] / ms[1] <= TOLERANCE,
        f"{same}; {frames[0]} frames against {frames[1]}: {ratio:.2f} x the memory, {memory[0] - memory[1]:.0f} MiB more",
    )  # fmt: skip


def measure() -> list[Row]:
    """Predict four videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def repeat(frames: list[np.ndarray], seconds: int, fps: int) -> Path:
            return write_video(folder / f"{seconds}s.mp4", islice(cycle(frames), seconds * fps), fps)

        noise, faces = draw_noise(), draw_faces()
        hour, minutes = (repeat(noise, seconds, FPS) for seconds in (HOUR, MINUTES))
        long, short = (repeat(faces, seconds, CLIP_FPS) for seconds in (LONG, SHORT))
        writing = "predict, deciding and writing: an hour against five minutes"
        return [
            compare(writing, (hour, minutes), folder, True, "faces and scores by substitutes, the rest as always"),
            compare("predict, all of it: 100 s against 20 s", (long, short), folder, False, "nothing is substituted"),
            compare_workers(short, folder),
        ]


if __name__ == "__main__":
    main(measure)

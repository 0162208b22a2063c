"""Does predict need more memory, or more time a frame, for a long video? And do its results depend on the batch?

    python benchmarks/predict.py [--json PATH]

Each video is predicted by `predict` in a process of its own, to its table and its picture, with networks of the demo's
shape that were not trained. One of an hour and one of five minutes, 30 frames a second, ask what deciding and writing
take: their frames are tiny, and quick stand-ins find faces and score them. A clip of 100 s and one of 20 s, a
synthetic face, ask the same of everything: decoding, finding, aligning, JPEG, both networks.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from harness import Child, Row, main, run_in_child

from aupair.aus import AUS
from aupair.faces import video
from aupair.faces.row import FaceRow
from aupair.inference.predict import predict_videos
from aupair.inference.recognizer import BundleRecognizer
from aupair.params import Params, load_params

ROOT = Path(__file__).parents[1]
HOUR, MINUTES, FPS = 3600, 300, 30
LONG, SHORT, CLIP_FPS = 100, 20, 25
BATCHES = (7, 64, 300)
MORE = 1.1
"""how much more is still the same: timers and allocators differ from run to run"""
GOAL = "the same peak memory and time a frame (10 %); equal for any batch"


def film(path: Path, seconds: int, fps: int, frames: list[np.ndarray]) -> Path:
    """Write a video that repeats some frames, (H, W, 3) uint8 BGR."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for k in range(seconds * fps):
        writer.write(frames[k % len(frames)])
    writer.release()
    return path


def face() -> list[np.ndarray]:
    """Give five seconds of a synthetic face."""
    from aupair.synth import subject
    from aupair.synth.corpus import SynthParams, draw_frame, plan_clip
    from aupair.synth.script import Deck

    rng = np.random.default_rng(0)
    person = subject.make_subject(rng)
    plan = plan_clip(rng, SynthParams(seconds=5, fps=CLIP_FPS), person, Deck(rng), "fit")
    return [draw_frame(plan, k, person, rng)[0] for k in range(len(plan.times))]


def flicker() -> list[np.ndarray]:
    """Give 311 tiny frames."""
    return list(np.random.default_rng(0).integers(0, 256, (311, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2))


def recognizer(params: Params, folder: Path) -> BundleRecognizer:
    """Give one of the demo's shape with random weights."""
    from torch import ones, tensor

    from aupair.evaluation.confidence import Confidence
    from aupair.evaluation.selection import Selection
    from aupair.mapping.extractor import Statistics, columns
    from aupair.mapping.fit import Mapping
    from aupair.mapping.networks import MappingNetworks
    from aupair.ranking.networks import build_factors, build_network
    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import Scorer, save_f, save_h
    from aupair.ranking.uncertainty import Sigma, Uncertainty

    section, size = params.train_uncertainty, params.preprocess_faces.size
    f = build_network(params.train_pseudo_intensity.network, size, seed=0)
    h = Sigma(build_factors(f, section.block, section.factors, seed=0), np.ones(len(AUS)), section.floor)
    none, zero, one = np.zeros((0, len(AUS)), np.float32), [0.0] * len(AUS), [1.0] * len(AUS)
    save_f(folder / "f", PseudoIntensity({"final": f}, {"final": zero}, {"final": one}, none, []), params, size)
    save_h(folder / "h", Uncertainty({"final": h}, none, []), params, size)
    rng = np.random.default_rng(0)
    plain = tensor([group == "plain" for _, group in columns(params.extract_features)])
    spread = ones(len(AUS), len(plain))
    networks = MappingNetworks(plain, 0 * spread, spread, params.train_mapping.width, 0.0)
    confidence = Confidence(rng.normal(size=(len(AUS), 5)))
    return BundleRecognizer(
        Scorer(folder / "f", folder / "h", "cpu"),
        Statistics.from_fit_frames(
            rng.normal(size=(999, len(AUS))).astype("f4"), rng.lognormal(size=(999, len(AUS))).astype("f4")
        ),
        Mapping(networks, params.train_mapping.width),
        Selection(0, rng.random(len(AUS)) < 0.5, np.full(len(AUS), 0.5), confidence),
        params,
    )


def run(source: Path, out: Path, batch: int, stand_in: bool) -> tuple[float, int]:
    """Predict a video: seconds, without those of loading, and how many frames it has."""
    import torch

    torch.manual_seed(0)
    params = load_params(ROOT / "params.yaml", [f"extract_features.batch={batch}"])
    with tempfile.TemporaryDirectory() as folder:
        model = recognizer(params, Path(folder))
    if stand_in:
        video.iter_faces = found
        model = BundleRecognizer(score, model.statistics, model.mapping, model.selection, params)
    next(video.iter_faces(source, params.preprocess_faces))  # so that its models are there
    begun = time.perf_counter()
    (row,) = predict_videos([source], model, out)
    return time.perf_counter() - begun, row.frames


def found(source: Path, *_: object) -> Iterator[FaceRow]:
    """Stand in for finding faces: the frame is one, every 25th has none."""
    for frame in video.read_frames(source):
        none = frame.index % 25 == 24
        yield FaceRow(frame.index, frame.time, "no_face" if none else "ok", None if none else frame.image)


def score(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stand in for the networks: two pixels say it."""
    values = images.reshape(len(images), -1)[:, : 2 * len(AUS)].astype(np.float32) / 64
    return values[:, : len(AUS)] - 2, values[:, len(AUS) :] + 0.1


def pair(question: str, clips: tuple[Path, Path], folder: Path, stand_in: bool, same: str) -> Row:
    """Predict a long video and a short one."""
    children: list[Child] = []
    for clip in clips:
        children.append(run_in_child(run, clip, folder / "out", 64, stand_in))
        seconds, frames = children[-1].result
        print(f"{clip.name}: {frames} frames, {seconds:.1f} s, {1024 * children[-1].memory:.0f} MiB", flush=True)
    (long, n), (short, m) = (child.result for child in children)
    more = children[0].memory / children[1].memory
    grown = 1024 * (children[0].memory - children[1].memory)
    slower = (long / n) / (short / m)
    return Row(
        question,
        f"{1024 * children[0].memory:.0f} MiB, {1e3 * long / n:.2f} ms a frame",
        f"{1024 * children[1].memory:.0f} MiB, {1e3 * short / m:.2f} ms a frame",
        None,
        GOAL,
        more <= MORE and slower <= MORE,
        f"{same}; {n} frames against {m}: {more:.2f} x the memory, {grown:.0f} MiB more",
    )


def any_batch(clip: Path, folder: Path) -> str:
    """Check that the table's bytes are the same for some sizes of a batch."""
    tables = set()
    for size in BATCHES:
        run_in_child(run, clip, folder / f"out{size}", size, False)
        tables.add((folder / f"out{size}" / f"{clip.stem}.csv").read_bytes())
    assert len(tables) == 1, "the table depends on the batch"
    return f"tables of batches of {', '.join(map(str, BATCHES))} have the same bytes"


def measure() -> list[Row]:
    """Predict four videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hour, minutes = (film(folder / f"{s}s.mp4", s, FPS, flicker()) for s in (HOUR, MINUTES))
        drawn = face()
        long, short = (film(folder / f"clip{s}s.mp4", s, CLIP_FPS, drawn) for s in (LONG, SHORT))
        stand_in = "faces and scores by stand-ins, the rest as always"
        return [
            pair(
                "predict, deciding and writing: an hour against five minutes", (hour, minutes), folder, True, stand_in
            ),
            pair("predict, all of it: 100 s against 20 s", (long, short), folder, False, any_batch(short, folder)),
        ]


if __name__ == "__main__":
    main(measure)

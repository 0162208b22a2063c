"""How long does G take for 12 AUs over 2.6 million frames of 540 videos, and in how much memory? extract-features itself.

    python benchmarks/features.py [--json PATH]

Two routes are computed: `raw`, and `columns`, which has all columns. Videos have random lengths, few are long, 4 % of their frames lack a face; the settings are those of
params/affwild2.yaml, and the files are written. The reference computes the same columns from docs/method.md, frame by
frame, all AUs at once in numpy, with what belongs to the whole video computed once; it takes a sample of frames of
short and long videos, on one core.
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affwild2_size import draw_lengths, load_affwild2_params
from harness import Row, main, make_frames, run_in_child

from aupair.aus import AFFWILD2
from aupair.data.frames import Frames
from aupair.mapping.columns import columns
from aupair.mapping.extractor import Extractor
from aupair.mapping.features import open_features, write_features
from aupair.mapping.statistics import CDF_POINTS, Statistics
from aupair.params import ExtractFeatures

VIDEOS, ROWS = 540, 2_600_000
SAMPLED_VIDEOS, SAMPLED_FRAMES = 24, 40
"""videos that the reference computes, evenly spaced by length, and frames of each, evenly spaced"""
BINS = 16


def generate() -> tuple[Frames, np.ndarray, np.ndarray, np.ndarray]:
    """Return frames, y_hat and sigma, (N, A) float32 each, and quality signals, (N, 3) float32."""
    rng = np.random.default_rng(0)
    labels = [np.zeros((int(length), len(AFFWILD2)), np.int8) for length in draw_lengths(VIDEOS, ROWS, rng)]
    frames = make_frames(labels, np.zeros(VIDEOS, np.int8), rng=rng)
    y_hat, sigma = (rng.standard_normal(frames.labels.shape, np.float32) for _ in range(2))
    np.exp(0.5 * sigma - 1, out=sigma)
    for values in (y_hat, sigma):
        values[~frames.ok] = np.nan
    return frames, y_hat, sigma, sigma[:, :3].copy()


def load_settings() -> ExtractFeatures:
    """Load the settings without a smoother, so that there are the routes `raw` and `columns`."""
    return load_affwild2_params(["extract_features.smoother=none", "extract_features.compare=[]"]).extract_features


def write(folder: Path) -> tuple[float, float]:
    """Do what the stage does after labels and faces are joined.

    Returns:
        seconds; the peak memory of the largest process that it started, GiB.
    """
    data = generate()
    start = time.perf_counter()
    write_features(folder, *data, load_settings())
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def video_columns(y: np.ndarray, c: np.ndarray, params: ExtractFeatures) -> dict[str, np.ndarray]:
    """Return the columns that all frames of a video share: percentiles of y' where c reaches each threshold, shares."""
    values = np.percentile(y, params.percentiles, axis=0)
    shared = {f"video.p{p:g}": row.copy() for p, row in zip(params.percentiles, values)}
    for t in params.thresholds:
        for au in range(y.shape[1]):
            sure = y[c[:, au] >= t, au]
            if len(sure):
                values[:, au] = np.percentile(sure, params.percentiles)
        shared |= {f"video.sure{t:g}.p{p:g}": row.copy() for p, row in zip(params.percentiles, values)}
        shared[f"video.sure{t:g}.share"] = (c >= t).mean(axis=0)
    return shared


def frame_columns(
    k: int, y: np.ndarray, c: np.ndarray, time: np.ndarray, params: ExtractFeatures
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns of one frame, (A,) each, without those of the whole video."""
    yield "own.y", y[k]
    yield "own.rank", ((y < y[k]).sum(axis=0) + (y == y[k]).sum(axis=0) / 2) / len(y)
    yield "own.certainty", c[k]
    for length in params.windows:
        low, high = np.searchsorted(time, [time[k] - length / 2 - 1e-9, time[k] + length / 2 + 1e-9])
        yield f"window{length:g}.certainty", c[low:high].mean(axis=0)
        step = length / BINS
        own = int((time[k] - time[0]) / step + 1e-9)
        edges = time[0] + step * (np.arange(own - BINS // 2, own + BINS // 2 + 2) - 1e-9)
        cuts = np.searchsorted(time, edges)
        cuts = cuts[:-1][np.diff(cuts) > 0], cuts[-1]
        inside, around = slice(low, high), slice(cuts[0][0], cuts[1])
        for group, add in (("plain", None), ("uncertainty", 1e-3)):
            w = np.ones_like(c[inside]) if add is None else c[inside] + add
            total = w.sum(axis=0)
            mean = (w * y[inside]).sum(axis=0) / total
            yield f"window{length:g}.{group}.mean", mean
            yield f"window{length:g}.{group}.sd", np.sqrt((w * (y[inside] - mean) ** 2).sum(axis=0) / total)
            w = np.ones_like(c[around]) if add is None else c[around] + add
            weight = np.add.reduceat(w, cuts[0] - cuts[0][0], axis=0)
            means = np.add.reduceat(w * y[around], cuts[0] - cuts[0][0], axis=0) / weight
            order = np.argsort(means, axis=0)
            reach = np.cumsum(np.take_along_axis(weight, order, axis=0), axis=0)
            for p in params.window_percentiles:
                at = (reach < p / 100 * reach[-1] * (1 - 1e-12)).sum(axis=0)
                yield f"window{length:g}.{group}.p{p:g}", means[order[at, range(len(at))], range(len(at))]
    step = params.context / params.context_points
    for n in range(1, params.context_points + 1):
        after = np.searchsorted(time, time[k] + n * step + 1e-9, "right") - 1
        before = np.searchsorted(time, time[k] - n * step - 1e-9)
        for name, index in ((f"+{n * step:g}s", after), (f"-{n * step:g}s", before)):
            yield f"context{name}.y", y[index]
            yield f"context{name}.certainty", c[index]


def compute_certainty(sigma: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Compute 1 - CDF_fit(log sigma), (n, A)."""
    grid = np.linspace(0, 1, CDF_POINTS)
    return np.stack([1 - np.interp(np.log(s), q, grid) for s, q in zip(sigma.T, statistics.log_sigma)], axis=1)


def run_reference(folder: Path) -> tuple[float, float]:
    """Compute sampled frames in a loop, and compare them with those written.

    Returns:
        seconds for all frames, scaled by length; the largest difference.
    """
    frames, y_hat, sigma, _ = generate()
    params = load_settings()
    statistics, features = (
        Extractor.load(folder, params).statistics["columns"],
        open_features(folder, frames)["columns"],
    )
    names = [name for name, _ in columns(params, True)]
    slices = frames.slices()
    lengths = np.array([rows.stop - rows.start for rows in slices])
    sampled = np.argsort(lengths)[np.linspace(0, VIDEOS - 1, SAMPLED_VIDEOS).round().astype(int)]
    video_seconds, frame_seconds, difference = [], [], 0.0
    for video in sampled:
        rows = np.arange(slices[video].start, slices[video].stop)[frames.ok[slices[video]]]
        start = time.perf_counter()
        y = 2 * (y_hat[rows] - statistics.y_min) / (statistics.y_max - statistics.y_min).astype(np.float64) - 1
        c, times = compute_certainty(sigma[rows].astype(np.float64), statistics), frames.time[rows]
        shared = video_columns(y, c, params)
        video_seconds.append(time.perf_counter() - start)
        chosen = np.linspace(0, len(rows) - 1, SAMPLED_FRAMES).round().astype(int)
        start = time.perf_counter()
        loop = [shared | dict(frame_columns(int(k), y, c, times, params)) for k in chosen]
        frame_seconds.append((time.perf_counter() - start) / SAMPLED_FRAMES)
        (ours,) = features.chunks(rows[chosen])
        reference = np.array([[values[name] for name in names] for values in loop]).swapaxes(1, 2)
        difference = max(difference, float(np.abs(ours - reference).max()))
    # a frame of a long video takes longer: seconds of a frame are interpolated over the length of its video
    per_frame, per_video = (np.interp(lengths, lengths[sampled], values) for values in (frame_seconds, video_seconds))
    return float(lengths @ per_frame + per_video.sum()), difference


def measure() -> list[Row]:
    """Write the features of all videos, then compute some of them in a loop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "features"
        print("extract-features of 2.6 million frames", flush=True)
        (ours, worker_memory), memory = run_in_child(write, folder)
        workers = len(os.sched_getaffinity(0))
        memory += workers * worker_memory
        print(f"{ours:.1f} s, {memory:.2f} GiB; now the loop", flush=True)
        reference, difference = run_reference(folder)
        size = sum(path.stat().st_size for path in (folder / "routes").iterdir()) / 1e9
    count = SAMPLED_VIDEOS * SAMPLED_FRAMES
    return [Row(
        "G for 12 AUs, 2.6 million frames, 540 videos",
        f"{ours:.1f} s on the clock, {memory:.2f} GiB in {workers} processes and theirs",
        f"{reference:.0f} s: a loop over frames, one core, scaled from {count}",
        reference / ours, "200 x; 120 s on 2 cores; 4 GiB",
        reference / ours >= 200 and ours <= 120 and memory <= 4,
        f"{count} frames of {SAMPLED_VIDEOS} videos: largest difference {difference:.1g}; {size:.1f} GB written",
    )]  # fmt: skip


if __name__ == "__main__":
    main(measure)

"""How long does G take for 12 AUs over 2.6 million frames of 540 videos, and in how much memory? extract-features itself.

    python benchmarks/features.py [--json PATH]

Videos have random lengths, few are long, 4 % of their frames lack a face; the settings are params/affwild2.yaml's, the
files are written. The reference computes the same columns as docs/method.md has them, frame by frame, all AUs at once
in numpy, with what belongs to the whole video computed once; on a sample of frames of short and long videos, one core.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affwild2_size import lengths_of, settings
from harness import Row, main, run_in_child

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.mapping.extractor import CDF_POINTS, Statistics, columns
from aupair.mapping.features import open_features, write_features
from aupair.params import ExtractFeatures

VIDEOS, ROWS = 540, 2_600_000
SAMPLED, EACH = 24, 40
"""videos that the reference looks at, evenly by length, and frames of each, evenly"""
GOALS = "200 x; 120 s on 2 cores; 4 GiB"
BINS = 16


def corpus() -> tuple[Frames, np.ndarray, np.ndarray]:
    """Give frames, y_hat and sigma, (N, A) float32 each."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(VIDEOS, ROWS, rng)
    n, names = int(lengths.sum()), tuple(f"{k:03d}" for k in range(VIDEOS))
    video = np.repeat(np.arange(VIDEOS, dtype=np.int32), lengths)
    frame = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    ok, labels = rng.random(n) > 0.04, np.zeros((n, len(AUS)), np.int8)
    y_hat, sigma = (rng.standard_normal((n, len(AUS)), np.float32) for _ in range(2))
    np.exp(0.5 * sigma - 1, out=sigma)
    for values in (y_hat, sigma):
        values[~ok] = np.nan
    frames = Frames(names, names, video, video, np.zeros(n, np.int8), frame, frame / 30, ok, labels)
    return frames, y_hat, sigma


def write(folder: str) -> tuple[float, float]:
    """Do what the stage does once labels and faces are joined.

    Returns:
        seconds; the peak memory of the largest process that it started, GiB.
    """
    given = corpus()
    begun = time.perf_counter()
    write_features(Path(folder) / "features", *given, settings(()).extract_features)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def whole_video(y: np.ndarray, c: np.ndarray, params: ExtractFeatures) -> dict[str, np.ndarray]:
    """Give what all frames of a video share: percentiles of y', of it where c reaches each threshold, and shares."""
    base = np.percentile(y, params.percentiles, axis=0)
    found = {f"video.p{p:g}": row.copy() for p, row in zip(params.percentiles, base)}
    for t in params.thresholds:
        for au in range(y.shape[1]):
            sure = y[c[:, au] >= t, au]
            if len(sure):
                base[:, au] = np.percentile(sure, params.percentiles)
        found |= {f"video.sure{t:g}.p{p:g}": row.copy() for p, row in zip(params.percentiles, base)}
        found[f"video.sure{t:g}.share"] = (c >= t).mean(axis=0)
    return found


def one_frame(
    k: int, y: np.ndarray, c: np.ndarray, time: np.ndarray, params: ExtractFeatures
) -> Iterator[tuple[str, np.ndarray]]:
    """Give the columns of one frame, (A,) each, but for those of the whole video."""
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


def certainty(sigma: np.ndarray, statistics: Statistics) -> np.ndarray:
    """1 - CDF_fit(log sigma): (n, A)."""
    grid = np.linspace(0, 1, CDF_POINTS)
    return np.stack([1 - np.interp(np.log(s), q, grid) for s, q in zip(sigma.T, statistics.log_sigma)], axis=1)


def reference(folder: Path) -> tuple[float, float, int]:
    """Compute sampled frames in a loop, and compare.

    Returns:
        seconds for all frames, scaled by length; the largest difference; how many frames.
    """
    frames, y_hat, sigma = corpus()
    params = settings(()).extract_features
    statistics, written = Statistics.load(folder / "statistics.safetensors"), open_features(folder, frames)
    names = [name for name, _ in columns(params)]
    slices = frames.slices()
    by_length = np.argsort([rows.stop - rows.start for rows in slices])
    taken = by_length[np.linspace(0, VIDEOS - 1, SAMPLED).round().astype(int)]
    videos, off, count, rates = [], 0.0, 0, []
    for video in taken:
        rows = np.arange(slices[video].start, slices[video].stop)[frames.ok[slices[video]]]
        begun = time.perf_counter()
        y = 2 * (y_hat[rows] - statistics.y_min) / (statistics.y_max - statistics.y_min).astype(np.float64) - 1
        c, moments = certainty(sigma[rows].astype(np.float64), statistics), frames.time[rows]
        shared = whole_video(y, c, params)
        videos.append(time.perf_counter() - begun)
        chosen = np.linspace(0, len(rows) - 1, EACH).round().astype(int)
        begun = time.perf_counter()
        loop = [shared | dict(one_frame(int(k), y, c, moments, params)) for k in chosen]
        rates.append((time.perf_counter() - begun) / EACH)
        (ours,) = written.chunks(rows[chosen])
        theirs = np.array([[found[name] for name in names] for found in loop]).swapaxes(1, 2)
        off, count = max(off, float(np.abs(ours - theirs).max())), count + EACH
    # a frame of a long video takes longer: seconds a frame are fitted as a line over the length
    lengths = np.array([slices[v].stop - slices[v].start for v in taken])
    every = np.array([rows.stop - rows.start for rows in slices])
    scaled = float(np.interp(every, lengths, rates) @ every + np.interp(every, lengths, videos).sum())
    return scaled, off, count


def measure() -> list[Row]:
    """Write the features of all videos, then compute some of them in a loop."""
    folder = Path(tempfile.mkdtemp())
    try:
        print("extract-features of 2.6 million frames", flush=True)
        child = run_in_child(write, str(folder))
        (seconds, worker), workers = child.result, len(os.sched_getaffinity(0))
        memory = child.memory + workers * worker
        print(f"{seconds:.1f} s, {memory:.2f} GiB; now the loop", flush=True)
        theirs, off, count = reference(folder / "features")
        size = (folder / "features" / "features.npy").stat().st_size / 1e9
    finally:
        shutil.rmtree(folder)
    return [
        Row(
            "G for 12 AUs, 2.6 million frames, 540 videos",
            f"{seconds:.1f} s on the clock, {memory:.2f} GiB in {workers} processes and theirs",
            f"{theirs:.0f} s: a loop over frames, one core, scaled from {count}",
            theirs / seconds,
            GOALS,
            theirs / seconds >= 200 and seconds <= 120 and memory <= 4,
            f"{count} frames of {SAMPLED} videos: largest difference {off:.1g}; {size:.1f} GB written",
        )
    ]


if __name__ == "__main__":
    main(measure)

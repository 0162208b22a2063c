"""Does the flow end at Aff-Wild2's size, and in how much memory? On a generated skeleton: 540 videos, 2.6 million rows.

    python benchmarks/affwild2_size.py [--rows 2600000] [--set section.key=value ...]

Labels have the published rates of positives; the videos are one tiny video, hard-linked; a face is one tiny JPEG; y_hat
and sigma are the labels with noise. Every stage that needs no GPU runs in a process of its own.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import run_in_child, write_faces, write_video

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.params import Params, load_params

ROOT = Path(__file__).parents[1]
INVERSE_RATES = (5.3, 12.4, 3.9, 2.4, 1.6, 1.8, 2.6, 22.7, 20.0, 22.0, 1.0, 8.3)
"""published, relative to AU25's .6"""
RATES = 0.6 / np.array(INVERSE_RATES)
SHARED_VIDEOS = 20
"""videos that show two people"""
FIT_SHARE = 0.72

OVERRIDES = ("ensemble=final", "check_data.few_positives=0", "train_mapping.device=cpu")
"""for a machine without a GPU, and for generated scores, which come from no network"""

STAGES: dict[str, tuple[str, ...]] = {
    "check-data": (),
    "sample-pairs (groups)": ("sample_pairs.mode=groups",),
    "sample-pairs (reference)": ("sample_pairs.mode=reference",),
    "extract-features": (),
    "train-mapping": (),
    "evaluate": (),
}
"""with the params of each"""
STEPS = ("split", "check-data", "load_frames", *(name for name in STAGES if name != "check-data"), "submission")


def draw_lengths(videos: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the number of label rows of each video, (videos,); few are long."""
    weight = rng.lognormal(0, 0.9, videos)
    return np.maximum((rows * weight / weight.sum()).astype(int), 60)


def draw_labels(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a video's labels, (rows, A) int8: each AU comes and goes within a second or two, at a rate of its own."""
    rates = np.clip(RATES * rng.lognormal(-0.3, 0.8, len(AFFWILD2)), 0, 0.95)
    noise = np.cumsum(rng.normal(size=(rows + 45, len(AFFWILD2))), axis=0)
    smooth = noise[45:] - noise[:-45]
    edges = [np.quantile(column, 1 - rate) for column, rate in zip(smooth.T, rates)]
    labels: np.ndarray = (smooth > edges).astype(np.int8)
    labels[: int(rows * rng.choice([0, 0, 0.05]))] = -1
    return labels


def load_affwild2_params(overrides: Sequence[str] = ()) -> Params:
    """Load the settings for Aff-Wild2."""
    return load_params(ROOT / "params" / "affwild2.yaml", overrides)


def generate(root: Path, videos: int, rows: int) -> None:
    """Write data/, work/faces, f and h, and predictions/."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    video = write_video(root / "tiny.mp4", [np.zeros((32, 32, 3), np.uint8)] * 4, 30)
    jpeg, scores, sigmas = store.encode_jpeg(np.full((8, 8, 3), 128, np.uint8)), list[np.ndarray](), list[np.ndarray]()
    names = sorted([f"{k:03d}" for k in range(videos - 2 * SHARED_VIDEOS)]
                   + [f"p{k:02d}_{side}" for k in range(SHARED_VIDEOS) for side in ("left", "right")])  # fmt: skip
    for name, count in zip(names, map(int, draw_lengths(videos, rows, rng))):
        part = "Train_Set" if rng.random() < FIT_SHARE else "Validation_Set"
        labels = draw_labels(count, rng)
        sheet = root / "data" / "annotations" / "AU_Set" / part / f"{name}.txt"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(sheet, labels, fmt="%d", delimiter=",", header=",".join(AFFWILD2), comments="")
        link = root / "data" / "videos" / f"{name.removesuffix('_left').removesuffix('_right')}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(video, link)
        frames = count + int(rng.choice([0, 0, 0, 1, -1, 7]))
        ok = rng.random(frames) > 0.04
        write_faces(root / "work" / "faces" / f"{name}.arrow", [jpeg if has_face else b"" for has_face in ok])
        y_hat = rng.normal(0, 0.8, (frames, len(AFFWILD2))).astype(np.float32)
        y_hat[:count] += 1.2 * labels[:frames].clip(0)
        sigma = rng.lognormal(-1, 0.5, y_hat.shape).astype(np.float32)
        for values, parts in ((y_hat, scores), (sigma, sigmas)):
            values[~ok] = np.nan
            parts.append(values)
        write_prediction(root / "predictions" / f"{name}.csv", labels)
    save_scores(root / "work", np.concatenate(scores), np.concatenate(sigmas))


def write_prediction(path: Path, labels: np.ndarray) -> None:
    """Write a table of decisions as predict does, for the step `submission`."""
    head = [f"{au},{au}_raw,{au}_pseudo_intensity,{au}_uncertainty,{au}_confidence" for au in AFFWILD2]
    cells = ",".join(["{},0.12345,0.12345,0.12345,0.12345"] * len(AFFWILD2))
    rows = [f"{k},{k / 30:.6f},ok,{cells.format(*row)}" for k, row in enumerate(labels.clip(0).tolist())]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([",".join(["frame,time_s,status", *head]), *rows]) + "\n")


def save_scores(work: Path, y_hat: np.ndarray, sigma: np.ndarray) -> None:
    """Write f and h without weights: the stages after them read their scores only."""
    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import save_f, save_h
    from aupair.ranking.sigma import SigmaModel
    from aupair.ranking.uncertainty import Uncertainty

    params, curves = load_affwild2_params(), [{"network": "final", "step": 1, "train_loss": 0.5, "select_loss": 0.5}]
    save_f(work / "f" / "0", PseudoIntensity({}, {}, {}, {"final": y_hat}, curves, 0.5), params, 224, AFFWILD2)
    save_h(work / "h", Uncertainty(SigmaModel(), sigma, sigma, curves, ()), params, 224, AFFWILD2)


def run_step(root: Path, step: str, options: argparse.Namespace) -> tuple[float, float]:
    """Do one step, and return its processor seconds and the peak memory of processes that it started, GiB."""
    match step:
        case "generate":
            generate(root, options.videos, options.rows)
        case "split":
            from aupair.data.splits import split_data

            split_data(root / "data")
        case "load_frames":  # joins labels and faces, as every stage does first
            from aupair.data.frames import load_frames

            print(f"{len(load_frames(root / 'work/labels.parquet', root / 'work/faces')):,} frames")
        case "submission":
            from aupair.inference.submission import write_submission

            rows = write_submission(root / "predictions", root / "submission")
            print(f"{sum(row.frames for row in rows):,} rows")
        case stage:
            params = load_affwild2_params([*OVERRIDES, *STAGES[stage], *options.set])
            stages.run_stage(stage.split(" ")[0], params, root=root)
    own, started = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in (own, started)), started.ru_maxrss / 2**20


def measure_step(root: Path, step: str, options: argparse.Namespace) -> bool:
    """Run a step in a process of its own, print what it takes, and return whether it succeeded."""
    start = time.perf_counter()
    try:
        (cpu_seconds, memory_of_started), memory = run_in_child(run_step, root, step, options)
    except RuntimeError as error:
        print(f"{step:28} failed: {error}", flush=True)
        return False
    seconds, memory = time.perf_counter() - start, max(memory, memory_of_started)
    print(f"{step:28}{seconds:7.0f} s{cpu_seconds:7.0f} s{memory:8.2f} GiB", flush=True)
    return True


def main() -> None:
    """Generate the skeleton, run the steps, and print what each takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=540)
    parser.add_argument("--rows", type=int, default=2_600_000)
    parser.add_argument("--folder", type=Path, help="use this folder, with what is in it; else a temporary one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        steps = STEPS if (root / "work").exists() else ("generate", *STEPS)
        sys.exit(not all(measure_step(root, step, options) for step in steps))


if __name__ == "__main__":
    main()

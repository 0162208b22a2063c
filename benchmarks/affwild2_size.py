"""Does the flow end at Aff-Wild2's size, and in how much memory? On a generated skeleton: 540 videos, 2.6 million rows.

    python benchmarks/affwild2_size.py [--images] [--rows 2600000] [--set section.key=value ...]

Labels have the published positive rates; movies are one tiny movie, hard-linked; a face is one tiny JPEG; y_hat and
sigma are the labels with noise. Every stage that needs no GPU runs in a process of its own. `--images` also makes a
crop for every frame (hard links too), and checks the folder with those instead of movies.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aupair import stages, store
from aupair.aus import AUS
from aupair.params import Params, load_params

ROOT = Path(__file__).parents[1]
WEIGHTS = (5.3, 12.4, 3.9, 2.4, 1.6, 1.8, 2.6, 22.7, 20.0, 22.0, 1.0, 8.3)
"""Published inverse rates, relative to AU25's .6."""
RATES = 0.6 / np.array(WEIGHTS)
PAIRS_OF_PERSONS = 20
TRAIN = 0.72
LINKS = 50_000
"""Hard links to one file that a file system allows at least."""

SETTINGS = (
    "trials=[0]", "check_data.few_positives=0", "train_mapping.width=128", "train_mapping.device=cpu",
)  # fmt: skip
"""What a machine without a GPU needs: 4096 units wide, the mapping is a GPU's work."""

STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "check-data": ("check-data", ()),
    "sample-pairs (groups)": ("sample-pairs", ("sample_pairs.mode=groups",)),
    "sample-pairs (reference)": ("sample-pairs", ("sample_pairs.mode=reference",)),
    "extract-features": ("extract-features", ()),
    "train-mapping": ("train-mapping", ()),
    "evaluate": ("evaluate", ()),
}


def lengths_of(videos: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how many label rows each video has; few are long."""
    weight = rng.lognormal(0, 0.9, videos)
    return np.maximum((rows * weight / weight.sum()).astype(int), 60)


def labels_of(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a video's labels, (rows, A) int8: each AU comes and goes within a second or two, at a rate of its own."""
    rates = np.clip(RATES * rng.lognormal(-0.3, 0.8, len(AUS)), 0, 0.95)
    noise = np.cumsum(rng.normal(size=(rows + 45, len(AUS))), axis=0)
    smooth = noise[45:] - noise[:-45]
    edges = [np.quantile(column, 1 - rate) for column, rate in zip(smooth.T, rates)]
    labels: np.ndarray = (smooth > edges).astype(np.int8)
    labels[: int(rows * rng.choice([0, 0, 0.05]))] = -1
    return labels


def generate(root: Path, videos: int, rows: int) -> None:
    """Write data/, work/faces, and f and h of trial 0."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    data, movie, scores, sigmas = root / "data", tiny_movie(root / "tiny.mp4"), [], []
    names = sorted([f"{k:03d}" for k in range(videos - 2 * PAIRS_OF_PERSONS)]
                   + [f"p{k:02d}_{side}" for k in range(PAIRS_OF_PERSONS) for side in ("left", "right")])  # fmt: skip
    for name, count in zip(names, lengths_of(videos, rows, rng)):
        part = "Train_Set" if rng.random() < TRAIN else "Validation_Set"
        labels = labels_of(int(count), rng)
        sheet(data / "annotations" / "AU_Set" / part / f"{name}.txt", labels)
        link(movie, data / "videos" / f"{name.removesuffix('_left').removesuffix('_right')}.mp4")
        frames = int(count) + int(rng.choice([0, 0, 0, 1, -1, 7]))
        ok = rng.random(frames) > 0.04
        faces(root / "work" / "faces" / f"{name}.arrow", ok)
        y_hat = rng.normal(0, 0.8, (frames, len(AUS))).astype(np.float32)
        both = min(frames, int(count))
        y_hat[:both] += 1.2 * labels[:both].clip(0)
        sigma = rng.lognormal(-1, 0.5, y_hat.shape).astype(np.float32)
        for values, parts in ((y_hat, scores), (sigma, sigmas)):
            values[~ok] = np.nan
            parts.append(values)
    save_scores(root / "work" / "trials" / "0", np.concatenate(scores), np.concatenate(sigmas))


def save_scores(trial: Path, y_hat: np.ndarray, sigma: np.ndarray) -> None:
    """Write f and h without weights: the stages below read their scores alone."""
    from torch import nn

    from aupair.ranking.pseudo_intensity import PseudoIntensity
    from aupair.ranking.scores import save_f, save_h
    from aupair.ranking.uncertainty import Sigma, Uncertainty

    params, curves = settings(()), [{"network": "final", "step": 1, "train_loss": 0.5, "select_loss": 0.5}]
    save_f(trial / "f", PseudoIntensity({}, {}, {}, y_hat, curves), params, 224)
    save_h(
        trial / "h", Uncertainty({"final": Sigma(nn.Identity(), np.ones(len(AUS)), 0.05)}, sigma, curves), params, 224
    )


def settings(overrides: Sequence[str]) -> Params:
    """Give the settings for Aff-Wild2."""
    return load_params(ROOT / "params" / "affwild2.yaml", overrides)


def sheet(path: Path, labels: np.ndarray) -> None:
    """Write an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, labels, fmt="%d", delimiter=",", header=",".join(AUS), comments="")


def tiny_movie(path: Path) -> Path:
    """Write a movie of four frames."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (32, 32))
    for _ in range(4):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()
    return path


def link(source: Path, target: Path) -> None:
    """Give a file one more name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.link(source, target)


def faces(path: Path, ok: np.ndarray) -> None:
    """Write a video's faces, each the same JPEG."""
    import pyarrow as pa

    jpeg, n = store.encode_jpeg(np.full((8, 8, 3), 128, np.uint8)), len(ok)

    def fixed(length: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.full(n * length, np.nan, np.float32)), length)

    numbers = dict.fromkeys(("detector_score", "pass_disagreement", "procrustes_residual"), np.full(n, np.nan, "f4"))
    columns = {
        "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 30, "tracked": np.zeros(n, bool),
        "status": np.where(ok, "ok", "no_face"), "jpeg": [jpeg if there else b"" for there in ok],
        "landmarks": fixed(136), "transform": fixed(6), **numbers,
    }  # fmt: skip
    store.write_faces(path, [{name: columns[name] for name in store.FACES_SCHEMA.names}], {"source": "generated"})


def add_images(root: Path) -> None:
    """Give every label row but one of 25 a crop, and take the movies away."""
    data = root / "data"
    source, used = root / "crop-0.jpg", 0
    jpeg = store.encode_jpeg(np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8), 80)
    source.write_bytes(jpeg)
    for path in sorted((data / "annotations").rglob("*.txt")):
        with path.open("rb") as file:
            rows = sum(1 for _ in file) - 1
        folder = data / "cropped_aligned" / path.stem
        folder.mkdir(parents=True)
        for number in range(1, rows + 1):
            if number % 25:
                if used % LINKS == LINKS - 1:
                    source = root / f"crop-{used}.jpg"
                    source.write_bytes(jpeg)
                os.link(source, folder / f"{number:05d}.jpg")
                used += 1
    shutil.rmtree(data / "videos")


def split(root: Path) -> None:
    """Write splits.csv."""
    from aupair.data.splits import split_data as write

    write(root / "data")


def read(root: Path) -> None:
    """Join labels and faces, as every stage does first."""
    from aupair.data.frames import load_frames

    print(f"{len(load_frames(root / 'work/labels.parquet', root / 'work/faces')):,} frames")


def submit(root: Path) -> None:
    """Write a submission of all videos from tables as predict writes them."""
    from aupair.inference.submission import write_submission

    rows = write_submission(root / "predictions", root / "submission")
    print(f"{sum(row.frames for row in rows):,} rows")


def predictions(root: Path) -> None:
    """Write tables as predict does, for `submit`."""
    head = ",".join(["frame,time_s,status"] + [f"{au},{au}_raw,{au}_pseudo_intensity,{au}_uncertainty,{au}_confidence"
                                               for au in AUS])  # fmt: skip
    cells = ",".join(["{},0.12345,0.12345,0.12345,0.12345"] * len(AUS))
    (root / "predictions").mkdir()
    for path in sorted((root / "data" / "annotations").rglob("*.txt")):
        labels = np.loadtxt(path, np.int8, delimiter=",", skiprows=1, ndmin=2).clip(0)
        lines = [f"{k},{k / 30:.6f},ok,{cells.format(*row)}" for k, row in enumerate(labels.tolist())]
        (root / "predictions" / f"{path.stem}.csv").write_text("\n".join([head, *lines]) + "\n")


TOOLS: dict[str, Callable[[Path], None]] = {"split": split, "load_frames": read, "submission": submit}


def child(options: argparse.Namespace) -> None:
    """Do one step in this process."""
    name, root = options.step, options.folder
    if name == "generate":
        generate(root, options.videos, options.rows)
        predictions(root)
    elif name in TOOLS:
        TOOLS[name](root)
    else:
        stages.run_stage(STEPS[name][0], settings(options.set), root=root)


def measure(root: Path, name: str, options: argparse.Namespace) -> tuple[float, float, float, int]:
    """Run a step in a process of its own (a fork counts this one's memory too, so that it stays small).

    Returns:
        seconds on the clock and of the processor, peak memory in GiB with the pages of mapped files, exit code.
    """
    command = [sys.executable, __file__, "--folder", str(root), "--step", name]
    command += ["--videos", str(options.videos), "--rows", str(options.rows)]
    more = [*SETTINGS, *(STEPS[name][1] if name in STEPS else ()), *options.set]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *(word for text in more for word in ("--set", text))])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, process.returncode


def main() -> None:
    """Generate, run, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=540)
    parser.add_argument("--rows", type=int, default=2_600_000)
    parser.add_argument("--images", action="store_true", help="also check a folder with a crop for every frame")
    parser.add_argument("--folder", type=Path, help="keep it there, and use what is in it; else a temporary one")
    parser.add_argument("--only", nargs="*", help="the steps to run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        child(options)
        return
    holder = None if options.folder else tempfile.TemporaryDirectory()
    root = options.folder or Path(holder.name)  # type: ignore[union-attr]
    rows: list[tuple[str, float, float, float, int]] = []

    def step(name: str) -> None:
        if options.only is None or name.split(" ")[0] in options.only:
            rows.append((name, *measure(root, name, options)))
            _, seconds, busy, memory, code = rows[-1]
            print(f"{name:28}{seconds:7.0f} s{busy:7.0f} s{memory:8.2f} GiB {'failed' if code else ''}", flush=True)

    if not (root / "work").exists():
        print(f"generated in {measure(root, 'generate', options)[0]:.0f} s", flush=True)
    for name in ("split", "check-data", "load_frames", *(name for name in STEPS if name != "check-data"), "submission"):
        step(name)
    if options.images:
        start = time.perf_counter()
        if not (root / "data" / "cropped_aligned").exists():
            add_images(root)
        print(f"made images in {time.perf_counter() - start:.0f} s", flush=True)
        step("check-data")
    print(json.dumps({"rows": options.rows, "steps": rows}))
    if holder:
        holder.cleanup()
    sys.exit(any(code for *_, code in rows))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()

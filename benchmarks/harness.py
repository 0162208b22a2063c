"""Shared parts of the benchmarks: timing in turn, processes of their own, rows of results, generated files.

A benchmark is a file with `measure() -> list[Row]`. `python benchmarks/NAME.py` prints its rows; `make bench` runs all
and writes results.md. Ours and the reference run in the same process or in two alike, one after the other: the ratios
should hold on other machines, the seconds need not. gpu.py, which runs on a bare machine, imports this module too:
nothing at its top needs more than gpu.py does.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from aupair import store
from aupair.aus import AFFWILD2
from aupair.data.frames import Frames

HERE = Path(__file__).parent
HEADINGS = ("question", "ours", "reference", "ratio", "goal", "met", "the same?")


@dataclass(frozen=True)
class Row:
    """The answer to a question.

    Attributes:
        question: in a few words.
        ours, reference: the figure of each, with its unit.
        ratio: how many times better ours is; None where the answer is no ratio.
        goal: the aim.
        met: whether the aim was reached; None where it was not measured.
        same: how it was checked that both do the same, with the result.
    """

    question: str
    ours: str
    reference: str
    ratio: float | None
    goal: str
    met: bool | None
    same: str


def time_in_turn(ours: Callable[[], object], reference: Callable[[], object], rounds: int = 3) -> tuple[float, float]:
    """Time both alternately and return the shortest time of each, seconds: other load can only add to a time."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, seconds in zip((ours, reference), times):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


def run_in_child(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Run a module's function in a fresh process, and return its result and the peak memory of the process in GiB.

    Raises:
        RuntimeError: the process died.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, call, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"{call.__name__} ended with code {process.exitcode}") from error
    finally:
        process.join()


def _send_result(pipe: Any, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call a function and send its result and the peak memory to the parent process."""
    result = call(*args)
    pipe.send((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def main(measure: Callable[[], list[Row]]) -> None:
    """Run a benchmark and print its rows; `--json PATH` also writes them."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = measure()
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*format_row(row))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]))


def format_row(row: Row) -> list[str]:
    """Return the cells of a row; a ratio is cut, not rounded, so that one below its goal does not look met."""
    ratio = "" if row.ratio is None else f"{math.floor(100 * row.ratio) / 100:g} x"
    met = {True: "yes", False: "no", None: ""}[row.met]
    return [row.question, row.ours, row.reference, ratio, row.goal, met, row.same]


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (headings, *rows))
    return [head, "|" + "---|" * len(headings), *lines]


def read_commit() -> str:
    """Return the commit of the code, `-dirty` if it was changed since; AUPAIR_COMMIT, if set, names it without git."""
    if commit := os.environ.get("AUPAIR_COMMIT"):
        return commit
    measured = (":/src", ":/benchmarks", ":/params", ":/params.yaml", ":(exclude)*.json", ":(exclude)*.md")
    changed = _run_git("status", "--porcelain", "--", *measured)
    return (_run_git("rev-parse", "--short=7", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _run_git(*arguments: str) -> str:
    """Return the output of git, empty where git or the repository is missing."""
    try:
        process = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return process.stdout.strip()


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write frames, (H, W, 3) uint8 BGR each, as an MP4 file and return its path."""
    remaining = iter(frames)
    first = next(remaining)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, first.shape[1::-1])
    for image in chain([first], remaining):
        writer.write(image)
    writer.release()
    return path


def write_faces(path: Path, jpegs: Sequence[bytes]) -> None:
    """Write the faces of a video as preprocess-faces does; an empty JPEG means that the frame has no face."""
    n = len(jpegs)

    def empty_lists(length: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.full(n * length, np.nan, np.float32)), length)

    signals = ("detector_score", "pass_disagreement", "procrustes_residual")
    columns = {
        "frame": np.arange(n, dtype=np.int32), "time": np.arange(n) / 30, "tracked": np.zeros(n, bool),
        "status": ["ok" if jpeg else "no_face" for jpeg in jpegs], "jpeg": jpegs,
        "landmarks": empty_lists(136), "transform": empty_lists(6),
        **dict.fromkeys(signals, np.full(n, np.nan, np.float32)),
    }  # fmt: skip
    store.write_faces(path, [{name: columns[name] for name in store.FACES_SCHEMA.names}], {"source": "generated"})


def make_frames(labels: Sequence[np.ndarray], split: np.ndarray, rng: np.random.Generator | None = None) -> Frames:
    """Return the frames of generated videos, each of another person, 30 a second.

    Args:
        labels: of each video, (n, A) int8.
        split: of each video, (V,) int8.
        rng: draws the 4 % of the frames that have no face; None: all have one.
    """
    video = np.repeat(np.arange(len(labels), dtype=np.int32), [len(part) for part in labels])
    frame = np.concatenate([np.arange(len(part), dtype=np.int32) for part in labels])
    names = tuple(f"{k:03d}" for k in range(len(labels)))
    ok = np.ones(len(video), bool) if rng is None else rng.random(len(video)) > 0.04
    return Frames(AFFWILD2, names, names, video, video, split[video], frame, frame / 30, ok, np.concatenate(labels))

"""Do many videos scale with cores, in bounded memory, and does a killed run go on where it was?

Ours is `preprocess`, the stage preprocess-faces without its report, on copies of the clips of faces.py. Its processes
start and load their models within the time that is taken. The reference is the same with one process, with few short
videos, or never killed. A kill is SIGKILL to all processes at once in the middle of the list.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import multiprocessing
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import cv2
from harness import Row, in_child, in_turn, main

from aupair.data.layout import VideoJob
from aupair.faces.folder import preprocess
from aupair.params import PreprocessFaces
from faces import FPS, HEIGHT, SECONDS, WIDTH, film

COPIES = 12
"""Of each of the two clips of two people: the list of videos."""
SHORT, LONG = 6, 16
"""Times that the frames of a clip are repeated in a short and in a long video; two batches of 256 rows fill SHORT."""


def jobs_of(clips: list[Path]) -> list[VideoJob]:
    """Give a job for each video."""
    return [VideoJob(clip.stem, clip) for clip in clips]


def align(clips: list[Path], faces: Path, workers: int) -> int:
    """Align videos, and give the peak memory of the largest process that did, MiB."""
    preprocess(jobs_of(clips), faces, PreprocessFaces(workers=workers))
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def write_list(folder: Path) -> list[Path]:
    """Write the videos."""
    originals = [clip for person in range(2) for clip in film(folder, person)[:2]]
    clips = [folder / f"{clip.stem}_{k}.mp4" for clip in originals for k in range(COPIES)]
    for k, clip in enumerate(clips):
        shutil.copy(originals[k // COPIES], clip)
    return clips


def write_long(clip: Path, times: int) -> Path:
    """Write the frames of a clip several times over."""
    path = clip.with_name(f"{clip.stem}_x{times}.mp4")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for _ in range(times):
        capture = cv2.VideoCapture(str(clip))
        while (got := capture.read())[0]:
            writer.write(got[1])
    writer.release()
    return path


def content(faces: Path) -> dict[str, bytes]:
    """Give every file of a folder."""
    return {path.name: path.read_bytes() for path in faces.iterdir()}


def stamps(faces: Path) -> dict[str, tuple[int, int]]:
    """Tell each finished file from one written anew."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in faces.glob("*.arrow")}


def two_processes(clips: list[Path], folder: Path) -> Row:
    """Two processes against one."""

    def run(workers: int) -> None:
        shutil.rmtree(folder / f"by{workers}", ignore_errors=True)
        align(clips, folder / f"by{workers}", workers)

    two, one = in_turn(lambda: run(2), lambda: run(1), rounds=2)
    same = content(folder / "by2") == content(folder / "by1")
    assert same
    frames = len(clips) * SECONDS * FPS
    return Row(
        f"faces, {len(clips)} videos of {SECONDS * FPS:.0f} frames on two cores",
        f"{frames / two:.0f} frames/s by two processes",
        f"{frames / one:.0f} frames/s by one",
        one / two,
        "1.8x",
        one / two >= 1.8,
        "the same bytes in every file; loading the models included",
    )


def memory(clips: list[Path], folder: Path) -> Row:
    """Long videos, and many of them, against few and short ones."""
    short, long = write_long(clips[0], SHORT), write_long(clips[0], LONG)
    peaks = {
        name: in_child(align, chosen, folder / "memory", 1).result
        for name, chosen in {"short": [short], "long": [long], "many": [*clips, short]}.items()
    }
    worst = max(peaks["long"], peaks["many"])
    frames = {name: int(times * SECONDS * FPS) for name, times in {"short": SHORT, "long": LONG}.items()}
    return Row(
        "faces: peak memory of a process",
        f"{peaks['long']} MiB, a video of {frames['long']} frames; {peaks['many']} MiB, {len(clips) + 1} videos",
        f"{peaks['short']} MiB, one of {frames['short']} frames",
        None,
        "at most 5 % more",
        worst <= 1.05 * peaks["short"],
        "one process each; a video of less than two batches of 256 rows needs less",
    )


def killed(clips: list[Path], folder: Path) -> Row:
    """Kill a run in the middle and start it again."""
    faces = folder / "killed"
    process = multiprocessing.get_context("spawn").Process(target=_own_group, args=(clips, faces))
    process.start()
    while len(stamps(faces)) < len(clips) // 2:
        time.sleep(0.02)
        assert process.is_alive()
    os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    before, begun = stamps(faces), len([path for path in faces.iterdir() if path.is_dir()])
    align(clips, faces, 2)
    after = stamps(faces)
    again = [name for name in before if after[name] != before[name]]
    same = content(faces) == content(folder / "by1")
    assert same
    return Row(
        "faces: killed in the middle, started again",
        f"{len(again)} of {len(before)} finished videos done again; {begun} were in work and began again",
        f"never killed: {len(clips)} videos",
        None,
        "no frame of a finished video twice",
        not again and len(before) < len(clips),
        "the same bytes in every file",
    )


def _own_group(clips: list[Path], faces: Path) -> None:
    """Align in a group of processes of its own, so that all can be killed at once."""
    os.setsid()
    align(clips, faces, 2)


def measure() -> list[Row]:
    """Ask all three on the same videos."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        clips = write_list(Path(name))
        return [two_processes(clips, Path(name)), memory(clips, Path(name)), killed(clips, Path(name))]


if __name__ == "__main__":
    main(measure)

"""A folder of videos is aligned in parallel, goes on after a kill, and one bad video does not affect the others."""

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from aupair import store
from aupair.data.layout import Side, VideoJob
from aupair.errors import AupairError
from aupair.faces import folder
from aupair.faces.folder import preprocess
from aupair.params import PreprocessFaces
from conftest import contents
from listener import Listener
from videos import write_video

PARAMS = PreprocessFaces(size=48, workers=1)


def write(path: Path, xs: tuple[int, ...], frames: int = 4) -> Path:
    """Write a clip with the astronaut's face at each x."""
    images = np.full((frames, 160, 320, 3), 110, np.uint8)
    for k in range(frames):
        for x in xs:
            face = cv2.resize(data.astronaut()[20:220, 140:310], (115, 136))
            images[k, 12 : 12 + 136, x + k : x + k + 115] = face
    return write_video(path, images)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    write(path / "a.mp4", (20,))
    write(path / "two.mp4", (20, 180))
    write(path / "blank.mp4", (), frames=3)
    (path / "text.mp4").write_text("not a video\n" * 99)
    (path / "nothing.mp4").write_bytes(b"")
    whole = (path / "a.mp4").read_bytes()
    (path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return path


def jobs_of(videos: Path, *names: str) -> list[VideoJob]:
    return [VideoJob(name, videos / f"{name}.mp4") for name in names]


@pytest.mark.usefixtures("in_process")
def test_every_video_gets_a_file_and_a_report(videos: Path, tmp_path: Path) -> None:
    jobs = jobs_of(videos, "a", "text", "blank", "nothing", "cut", "missing")
    log = Listener()
    reports = preprocess(jobs, tmp_path / "faces", PARAMS, log)
    assert [(r.name, r.status, r.frames, r.faces) for r in reports] == [
        ("a", "ok", 4, 4),
        ("text", "unreadable", 0, 0),
        ("blank", "no_face", 3, 0),
        ("nothing", "empty", 0, 0),
        ("cut", "unreadable", 0, 0),
        ("missing", "unreadable", 0, 0),
    ]
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == sorted(f"{job.name}.arrow" for job in jobs)
    assert all(("\n" not in r.message) and (bool(r.message) == (r.status != "ok")) for r in reports)
    assert len(log.lines) == 5
    assert len(store.read_faces(tmp_path / "faces" / "text.arrow")) == 0
    table = store.read_faces(tmp_path / "faces" / "a.arrow")
    assert store.decode_jpeg(table["jpeg"][0].as_py()).shape == (48, 48, 3)
    assert preprocess(jobs, tmp_path / "faces", PARAMS) == reports  # the second time from the files


def test_a_cut_video_is_reported_in_each_run(tmp_path: Path) -> None:
    source = write_video(tmp_path / "cut.avi", [cv2.resize(data.astronaut(), (320, 160))] * 12)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    for _ in range(2):  # the second time from the file
        log = Listener()
        (report,) = preprocess([VideoJob("cut", source)], tmp_path / "faces", PARAMS, log)
        assert 0 < report.frames < 11
        assert report.message.endswith(f"{report.frames} of 12 frames decoded, according to the header")
        assert log.lines == [f"cut: {report.status}: {report.message}"]


def test_any_number_of_workers_writes_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    jobs = [*jobs_of(videos, "a", "text"), VideoJob("two_left", videos / "two.mp4", "left")]
    preprocess(jobs, tmp_path / "one", PARAMS)
    preprocess(jobs[::-1], tmp_path / "two", PARAMS.model_copy(update={"workers": 2}))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    landmarks = np.array(store.read_faces(tmp_path / "one" / "two_left.arrow")["landmarks"].to_pylist())
    assert landmarks.shape == (4, 136)
    assert landmarks[:, ::2].max() < 160


def stamp(path: Path) -> tuple[int, int]:
    """Return what distinguishes a file from one that was written again."""
    return path.stat().st_mtime_ns, path.stat().st_ino


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("cause", ["deleted", "killed", "a flipped bit"])
def test_a_second_run_makes_only_what_is_missing(videos: Path, tmp_path: Path, cause: str) -> None:
    jobs, faces, in_progress = jobs_of(videos, "a", "blank"), tmp_path / "faces", tmp_path / ".faces-in-progress"
    reports = preprocess(jobs, faces, PARAMS)
    assert not in_progress.exists()
    before = stamp(faces / "a.arrow")
    whole = (faces / "blank.arrow").read_bytes()
    (faces / "blank.arrow").unlink()
    if cause == "a flipped bit":
        (faces / "blank.arrow").write_bytes(whole.replace(b"no_face", b"no_fa\xe3e", 1))
    if cause == "killed":  # in its second video, and DVC deletes the output
        faces.rename(in_progress)
        (in_progress / ".blank.arrow.x1y2z3w4.tmp").mkdir()
    assert preprocess(jobs, faces, PARAMS.model_copy(update={"workers": 2})) == reports
    assert stamp(faces / "a.arrow") == before
    assert (faces / "blank.arrow").read_bytes() == whole
    assert sorted(path.name for path in faces.iterdir()) == ["a.arrow", "blank.arrow"]
    assert not in_progress.exists()


@pytest.mark.usefixtures("in_process")
def test_a_file_of_a_killed_run_replaces_an_older_one(videos: Path, tmp_path: Path) -> None:
    preprocess(jobs_of(videos, "a"), tmp_path / "faces", PARAMS)
    newer = tmp_path / ".faces-in-progress" / "a.arrow"
    folder._process(*jobs_of(videos, "a"), newer.parent, PARAMS.model_copy(update={"size": 40}))
    before = stamp(newer)
    preprocess(jobs_of(videos, "a"), tmp_path / "faces", PARAMS.model_copy(update={"size": 40}))
    assert stamp(tmp_path / "faces" / "a.arrow") == before


def test_a_file_is_used_until_its_video_or_an_option_changes(videos: Path, tmp_path: Path) -> None:
    source, path = tmp_path / "a.mp4", tmp_path / "a.arrow"
    source.write_bytes((videos / "a.mp4").read_bytes())

    def made_again(side: Side = "", **change: object) -> bool:
        before = stamp(path)
        folder._process(VideoJob("a", source, side), tmp_path, PARAMS.model_copy(update=change))
        after = stamp(path)
        folder._process(VideoJob("a", source), tmp_path, PARAMS)
        if change:
            assert (stamp(path) != after) == (after != before), "made again with the first options, too"
        return after != before

    folder._process(VideoJob("a", source), tmp_path, PARAMS)
    assert not made_again()
    assert not made_again(workers=2)
    assert made_again(size=40)
    assert made_again(quality=80)
    assert made_again(min_face=30)
    assert made_again(align="stable")
    assert made_again(detector="reference")
    assert made_again("left")
    path.write_bytes(path.read_bytes()[:100])
    assert made_again()
    source.write_bytes((videos / "blank.mp4").read_bytes())
    assert made_again()


@pytest.mark.usefixtures("in_process")
def test_the_file_of_a_video_without_a_job_is_removed_and_no_other(videos: Path, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    preprocess(jobs_of(videos, "text", "nothing"), faces, PARAMS)
    (faces / "notes.txt").write_text("of the user")
    preprocess(jobs_of(videos, "nothing"), faces, PARAMS)
    assert sorted(path.name for path in faces.iterdir()) == ["notes.txt", "nothing.arrow"]


CRASH = """
import os, signal
from aupair import store
from aupair.faces import folder
real = folder._process

def process(job, **options):
    if job.name != "a":
        return real(job, **options)
    with store.atomic(options["folder"] / "a.arrow") as temporary:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_costs_one_video_and_is_tried_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, faces, log = jobs_of(videos, "blank", "a"), tmp_path / "faces", Listener()
    (tmp_path / "crash_work.py").write_text(CRASH)
    monkeypatch.syspath_prepend(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_process", importlib.import_module("crash_work").process)
        blank, crashed = preprocess(jobs, faces, PARAMS, log)
    assert blank.status == "no_face"
    assert (crashed.status, crashed.frames) == ("crashed", 0)
    assert "the process was killed by SIGKILL (" in crashed.message
    assert any(line.startswith("a: crashed: ") for line in log.lines)
    assert sorted(path.name for path in faces.iterdir()) == ["a.arrow", "blank.arrow"]
    assert len(store.read_faces(faces / "a.arrow")) == 0
    assert preprocess(jobs, faces, PARAMS)[1].status == "ok"


def test_an_unwritable_folder_gives_one_line(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AupairError, match=r"cannot write: .*; name another folder") as caught:
        preprocess(jobs_of(videos, "a"), tmp_path / "file" / "faces", PARAMS)
    assert "\n" not in str(caught.value)


def test_no_videos_no_files(tmp_path: Path) -> None:
    assert preprocess([], tmp_path / "faces", PARAMS) == []
    assert not list((tmp_path / "faces").iterdir())

"""predict in several processes: the same results, and a process that dies costs its own videos alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import pytest

from aupair.errors import AupairError
from aupair.inference import execution, writer
from aupair.inference.bundle import write_bundle
from aupair.inference.execution import choose_workers
from aupair.inference.output import claim_output, describe_settings
from aupair.inference.predict import predict_videos
from aupair.inference.recognizer import BundleRecognizer
from aupair.inference.timeline import save_timeline
from aupair.params import Params
from bundle_parts import parts_of_flow
from conftest import contents, rows_of
from listener import Listener
from stand_in import Deadly, StandIn
from videos import write_grey_video


def test_two_processes_write_what_one_does(
    finished: Path, tiny: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "save_timeline", save_timeline)
    write_bundle(tmp_path / "bundle", parts_of_flow(finished, tiny), tiny)
    recognizer = BundleRecognizer.load(tmp_path / "bundle", "cpu")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 9)
    videos = [tmp_path / "bad.mp4", *sorted((finished / "data" / "videos").iterdir())[:3]]
    for workers in (1, 2):
        predict_videos(videos, recognizer, tmp_path / str(workers), 0.1, workers=workers)
    weights = recognizer.scorer._networks[0].parameters()
    assert not any(weight.is_shared() for weight in weights), "a container has little of /dev/shm"
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert len(one) == 7
    assert two == one


def test_a_process_that_dies_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    videos = [write_grey_video(tmp_path / f"{name}.mp4", *range(6)) for name in ("a", "deadly", "b", "c")]
    out, log = tmp_path / "out", Listener()
    rows = predict_videos(videos, Deadly(), out, log=log, workers=2)
    assert [row.status for row in rows] == ["ok", "crashed", "ok", "ok"]
    assert rows[1].message == (
        "the process was killed by SIGKILL (the system does so when memory is exhausted); it is tried again the next time"
    )
    assert [row["status"] for row in rows_of(out / "summary.csv")] == [row.status for row in rows]
    assert log.lines[0].startswith("starting 2 processes for 4 videos; ")
    assert any(
        line.startswith(f"{videos[1]}: crashed, 0 frames, 0 faces: the process was killed") for line in log.lines
    )
    settings = {"model": "m"}
    (out / "predict.json").write_text('{"model": "m"}')
    log = Listener()
    predict_videos(videos, StandIn(), out, log=log, earlier=claim_output(out, settings), workers=2)
    assert log.lines[0].startswith("3 of 4 videos are finished already")
    rows = rows_of(out / "summary.csv")
    assert [(Path(row["video"]).stem, row["status"]) for row in rows] == [(v.stem, "ok") for v in videos]


COMMAND = """
import sys
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from aupair import Recognizer
from aupair.cli.main import main
from aupair.inference import bundle
from aupair.registry import versions
from stand_in import Slow

if __name__ == "__main__":
    Recognizer.load = lambda *_: Slow()
    versions.pin_version, versions.resolve_bundle, bundle.hash_selection = str, Path, lambda _: Slow.sha256
    main()
"""
"""`aupair predict` with a model that takes a minute for some videos."""


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 143), (SIGINT, 130), (SIGKILL, -SIGKILL)])
def test_a_signal_ends_the_processes_at_once_and_the_next_run_continues(
    tmp_path: Path, number: Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = tmp_path / "command.py", tmp_path / "out"
    script.write_text(COMMAND)
    quick, *slow = (write_grey_video(tmp_path / f"{name}.mp4", *range(6)) for name in ("quick", "slow1", "slow2"))
    marks = [video.with_suffix(".pid") for video in slow]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    words = ["predict", quick, *slow, "--out", out, "--model", "bundle", "--workers", "2"]
    command = subprocess.Popen([sys.executable, script, *words], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: all(mark.is_file() and mark.read_text() for mark in marks) and (out / "summary.csv").is_file())
    command.send_signal(number)
    start = time.monotonic()
    _, errors = command.communicate(timeout=30)
    assert command.returncode == code, errors
    if number != SIGKILL:
        assert errors.splitlines()[-1] == "aupair: stopped; run it again to continue"
        assert "Traceback" not in errors
    wait_until(lambda: not any(Path("/proc", mark.read_text()).exists() for mark in marks))
    assert time.monotonic() - start < 20, "each of the slow videos takes a minute"
    log = Listener()
    earlier = claim_output(out, describe_settings("bundle", StandIn.sha256, StandIn.aus, None, None))
    rows = predict_videos([quick, *slow], StandIn(), out, log=log, earlier=earlier)
    assert log.lines[0].startswith("1 of 3 videos are finished already")
    assert [row.status for row in rows] == ["ok", "ok", "ok"]
    names = [f"{video.stem}.{suffix}" for video in (quick, *slow) for suffix in ("csv", "png")]
    assert {path.name for path in out.iterdir()} == {*names, "predict.json", "summary.csv"}, "nothing temporary is left"


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_disk_that_is_full_ends_the_run_with_its_line(tmp_path: Path) -> None:
    videos = [write_grey_video(tmp_path / f"{name}.mp4", *range(6)) for name in ("a", "full", "b")]
    with pytest.raises(AupairError, match=r"^cannot write, got No space left on device$"):
        predict_videos(videos, Deadly(), tmp_path / "out", workers=2)


@pytest.mark.parametrize(
    ("videos", "device", "cores", "workers"),
    [
        (1, "cpu", 4, 1),
        (3, "cpu", 2, 2),
        (3, "cpu", 4, 3),
        (99, "cpu", 64, 8),
        (99, "cuda", 64, 1),
        (99, "cuda:1", 64, 1),
    ],
)
def test_the_number_of_processes_fits_cores_videos_and_device(
    monkeypatch: pytest.MonkeyPatch, videos: int, device: str, cores: int, workers: int
) -> None:
    monkeypatch.setattr(execution, "count_cores", lambda: cores)
    assert choose_workers(videos, device) == workers

"""predict in several processes: the same results, and a process that dies costs its own videos alone."""

from pathlib import Path

import pytest

from aupair.errors import AupairError
from aupair.inference import execution, writer
from aupair.inference.bundle import write_bundle
from aupair.inference.execution import choose_workers
from aupair.inference.output import claim_output
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
    assert rows[1].message == "the process ended with code -9; it is tried again the next time"
    assert [row["status"] for row in rows_of(out / "summary.csv")] == [row.status for row in rows]
    assert any(line.startswith(f"{videos[1]}: crashed, 0 frames, 0 faces: the process ended") for line in log.lines)
    settings = {"model": "m"}
    (out / "predict.json").write_text('{"model": "m"}')
    log = Listener()
    predict_videos(videos, StandIn(), out, log=log, earlier=claim_output(out, settings), workers=2)
    assert log.lines[0].startswith("3 of 4 videos are finished already")
    rows = rows_of(out / "summary.csv")
    assert [(Path(row["video"]).stem, row["status"]) for row in rows] == [(v.stem, "ok") for v in videos]


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

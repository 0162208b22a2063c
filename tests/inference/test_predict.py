"""predict: tables, pictures and bad videos; the recognizer is a stand-in, the videos are real."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aupair import Recognizer
from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, AupairError, DataError, ParamsError
from aupair.evaluation.confidence import Confidence
from aupair.evaluation.reference import Reference
from aupair.inference import predictions, writer
from aupair.inference.abstain import choose_abstain_share
from aupair.inference.predict import predict_videos
from aupair.inference.predictions import VideoPredictions
from aupair.inference.timeline import save_timeline
from aupair.inference.videos import find_videos, output_names
from brightness import A
from conftest import rows_of
from listener import Listener
from stand_in import StandIn
from videos import write_grey_video


def test_a_row_for_every_frame_and_empty_cells_without_a_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "save_timeline", save_timeline)
    video = write_grey_video(tmp_path / "clip.mp4", *range(6))
    (done,) = predict_videos([video], StandIn(), tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "clip.csv")
    assert list(rows[0])[:8] == [
        "frame", "time_s", "status", "AU1", "AU1_raw", "AU1_pseudo_intensity", "AU1_uncertainty", "AU1_confidence",
    ]  # fmt: skip
    assert len(rows[0]) == 3 + 5 * A
    assert [row["frame"] for row in rows] == list("012345")
    assert [row["status"] for row in rows] == ["ok", "ok", "no_face"] * 2
    assert [row["AU26"] for row in rows] == ["1", "0", "", "0", "1", ""]
    assert [row["AU26_confidence"] for row in rows] == ["0.00000", "0.16667", "", "0.50000", "0.66667", ""]
    assert [float(row["time_s"]) for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert (done.status, done.frames, done.faces, done.output) == ("ok", 6, 4, "clip")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.csv", "clip.png", "summary.csv"]


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ((), ["auto", None]),
        (("--device", "cpu"), ["cpu", None]),
        (("--aus", "AU4, AU12"), ["auto", ["AU4", "AU12"]]),
    ],
)
def test_the_command_passes_model_device_and_aus_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    aupair: Callable[..., Any],
    more: tuple[str, ...],
    options: list[object],
) -> None:
    arguments: list[object] = []
    monkeypatch.setattr(Recognizer, "load", lambda *given: arguments.extend(given) or StandIn())
    monkeypatch.setattr("aupair.registry.versions.pin_version", str)
    monkeypatch.setattr("aupair.registry.versions.resolve_bundle", lambda model: tmp_path / model)
    monkeypatch.setattr("aupair.inference.bundle.hash_selection", lambda _: StandIn.sha256)
    video = write_grey_video(tmp_path / "clip.avi", *range(6))
    assert aupair("predict", video, "--out", tmp_path / "out", "--model", "models:/a/1", *more).code == 0
    assert arguments == [tmp_path / "models:/a/1", *options]
    assert (tmp_path / "out" / "clip.csv").exists()


def test_the_least_confident_share_of_each_decision_abstains(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "clip.avi", *range(12))
    decisions = {}
    for share in (0.0, 0.4, 1.0):
        predict_videos([video], StandIn(), tmp_path / "out", abstain=share)
        decisions[share] = [row["AU1"] for row in rows_of(tmp_path / "out" / "clip.csv")]
    # confidences 0, 1/12 ...: under .4 an inactive decision abstains, under .2 an active one
    assert decisions[0.0] == ["1", "0", "", "0", "1", "", "1", "0", "", "0", "1", ""]
    assert decisions[0.4] == ["abstain", "abstain", "", "abstain", "1", "", "1", "0", "", "0", "1", ""]
    assert " ".join(cell[:1] or "-" for cell in decisions[1.0]) == "a a - a a - 1 a - a 1 -"


def test_coverage_and_risk_become_a_share_to_abstain_from() -> None:
    log = Listener()
    assert choose_abstain_share(StandIn()) is None
    assert choose_abstain_share(StandIn(), abstain=0.2) == 0.2
    assert choose_abstain_share(StandIn(), coverage=0.8) == 0.2  # that of abstain=0.2, whose results it continues
    assert not log.lines
    assert choose_abstain_share(StandIn(), risk=0.2, log=log) == pytest.approx(0.25)
    assert log.lines == [
        "abstaining from 25 % of the decisions, so that at most 20 % are wrong (95 % confidence, people like those of select)"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"abstain": 0.1, "risk": 0.1}, "exclude each other, got --abstain and --risk, expected one of them"),
        ({"coverage": 1.5}, "--coverage is not a share, got 1.5, expected a number from 0 to 1"),
        ({"risk": -0.1}, "--risk is not a share, got -0.1, expected a number from 0 to 1"),
        (
            {"risk": 0.05},
            "no decisions are that certain to be right, got a risk of 0.05, expected 0.1 or more, which keeps 50 %",
        ),
    ],
)
def test_options_that_do_not_fit_are_one_line(options: dict[str, float], message: str) -> None:
    with pytest.raises(ParamsError, match=message) as error:
        choose_abstain_share(StandIn(), **options)
    assert "\n" not in str(error.value)


def test_a_model_of_an_older_version_says_that_it_cannot_abstain(tmp_path: Path) -> None:
    old = StandIn()
    old.selection = replace(old.selection, confidence=Confidence(np.zeros((A, 5))))
    video = write_grey_video(tmp_path / "clip.avi", *range(6))
    predict_videos([video], old, tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"this model cannot abstain: its selection\.json has no risk table"):
        predict_videos([video], old, tmp_path / "out", abstain=0.1)
    with pytest.raises(ArtifactError, match="this model cannot abstain"):
        choose_abstain_share(old, risk=0.1)


def test_one_bad_video_is_a_row_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_grey_video(folder / "deep" / "good.mp4", *range(6))
    (folder / "bad.mp4").write_bytes(b"no video at all" * 9)
    (folder / "empty.avi").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    predict_videos(find_videos([folder]), StandIn(), tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert list(rows[0]) == ["video", "status", "frames", "faces", "message", "output", "differs"]
    assert {Path(row["video"]).name: row["status"] for row in rows} == {
        "bad.mp4": "unreadable", "good.mp4": "ok", "empty.avi": "empty",
    }  # fmt: skip
    assert all("\n" not in row["message"] and bool(row["message"]) == (row["status"] != "ok") for row in rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.csv", "good.png", "summary.csv"]


def test_nothing_readable_is_an_error_after_the_summary(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no")
    log = Listener()
    with pytest.raises(DataError, match=r"no video could be read: in .*summary\.csv; its column message") as caught:
        predict_videos([tmp_path / "bad.mp4"], StandIn(), tmp_path / "out", log=log)
    assert "\n" not in str(caught.value)
    assert len(rows_of(tmp_path / "out" / "summary.csv")) == 1
    (line,) = log.lines
    assert line.startswith(f"{tmp_path / 'bad.mp4'}: unreadable, 0 frames, 0 faces: OpenCV cannot read the video")
    assert "cannot read" not in str(caught.value), "reported once, in the line of the video"


def test_no_video_to_read_is_one_line(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "in" / "clip.mp4", 0)
    with pytest.raises(DataError, match=r"no such video or folder: in \S*none\.mp4, \S*nowhere; check") as caught:
        find_videos([video, tmp_path / "none.mp4", tmp_path / "nowhere"])
    assert caught.value.exit_code == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^no video: in \S*empty"):
        find_videos([tmp_path / "empty"])


def test_a_cut_video_is_ok_and_says_so(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "clip.avi", *range(30))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    log = Listener()
    (done,) = predict_videos([video], StandIn(), tmp_path / "out", log=log)
    assert done.status == "ok"
    assert 0 < done.frames < 28
    assert done.message == f"{done.frames} of 30 frames decoded, according to the header"
    assert log.lines == [f"{video}: ok, {done.frames} frames, {done.faces} faces: {done.message}"]
    assert rows_of(tmp_path / "out" / "summary.csv")[0]["message"] == done.message


def test_a_video_unlike_the_training_videos_is_marked_and_the_run_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Knowing(StandIn):
        reference = Reference(synthetic=True, groups={})

        def score_video(self, source: Path) -> VideoPredictions:
            far = {"appearance": 2.123, "face size": 1.5} if source.stem in ("b", "c") else {}
            return replace(super().score_video(source), differing=far)

    notes = {}
    monkeypatch.setattr(writer, "save_timeline", lambda path, *more: notes.update({path.stem: more[-1]}))
    videos = [write_grey_video(tmp_path / f"{name}.avi", *range(6)) for name in "abc"]
    log = Listener()
    predict_videos(videos, Knowing(), tmp_path / "out", log=log)
    assert [row["differs"] for row in rows_of(tmp_path / "out" / "summary.csv")] == [
        "", "appearance x2.12, face size x1.50", "appearance x2.12, face size x1.50",
    ]  # fmt: skip
    training = "the synthetic faces that the model was trained on"
    line = f"2 of 3 videos differ from {training} (appearance, face size): the confidence is not calibrated there"
    assert log.lines[3:] == [line]
    note = f"Differs from {training}: the confidence is not calibrated here."
    assert notes == {"a": "", "b": note, "c": note}
    for name, calibrated in (("a", "1"), ("b", "0")):
        assert {row["calibrated"] for row in rows_of(tmp_path / "out" / f"{name}.csv")} == {calibrated}


def test_an_unwritable_folder_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_grey_video(tmp_path / "clip.mp4", *range(6))
    (tmp_path / "out").write_text("a file is in the way")
    unused = StandIn()
    monkeypatch.setattr(unused, "score_video", None)  # the error comes before any video is scored
    with pytest.raises(AupairError, match=r"cannot write: in .*; name another folder"):
        predict_videos([video], unused, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file is in the way"


def test_two_videos_of_one_stem_have_two_outputs(tmp_path: Path) -> None:
    for name in ("a/clip.mp4", "b/clip.mp4", "b/clip.avi", "b/other.mp4"):
        write_grey_video(tmp_path / name, 0, 1)
    predict_videos(find_videos([tmp_path]), StandIn(), tmp_path / "out")
    outputs = {
        Path(row["video"]).relative_to(tmp_path).as_posix(): row["output"]
        for row in rows_of(tmp_path / "out" / "summary.csv")
    }
    assert outputs == {
        "a/clip.mp4": "a__clip.mp4", "b/clip.mp4": "b__clip.mp4", "b/clip.avi": "clip.avi", "b/other.mp4": "other",
    }  # fmt: skip
    assert len(list((tmp_path / "out").glob("*.csv"))) == 5


@pytest.mark.parametrize(
    "paths",
    [["/a/x.mp4", "/a/X.mp4"], ["/a/b__c.mp4", "/a__b/c.mp4", "/a/b/c.mp4"], ["/a__b/c.mp4", "/a/b__c.mp4"] * 2],
)
def test_names_are_unique_whatever_the_paths(paths: list[str]) -> None:
    names = output_names([Path(path) for path in paths])
    assert len({name.lower() for name in names}) == len(paths)
    assert not any("/" in name for name in names)


def test_a_video_called_summary_does_not_hide_the_summary() -> None:
    assert output_names([Path("/v/summary.mp4"), Path("/v/clip.mp4")]) == ["summary.mp4", "clip"]


def test_a_video_named_twice_is_read_once(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "clip.mp4", *range(6))
    assert find_videos([video, tmp_path, tmp_path / "." / "clip.mp4"]) == [video]


def test_a_table_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[str]:
        raise ValueError("no cells")

    result = StandIn().score_video(write_grey_video(tmp_path / "in" / "clip.mp4", *range(6)))
    monkeypatch.setattr(predictions, "_decision_cells", fail)
    with pytest.raises(ValueError, match="no cells"):
        result.write_csv(tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("limits", [None, np.full((2, A), 0.3)])
@pytest.mark.parametrize("differing", [None, {}, {"face size": 2.0}])
def test_the_file_is_that_of_pandas_whatever_the_rows_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: np.ndarray | None, differing: dict[str, float] | None
) -> None:
    result = StandIn().score_video(write_grey_video(tmp_path / "clip.mp4", *range(10)))
    result = replace(result, differing=differing, raw=-result.raw * 1e-7)
    table = result.to_table(limits)
    table["time_s"] = [f"{time:.6f}" for time in result.scores.time]
    text = table.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    for rows in (1, 4, 4096):
        monkeypatch.setattr(predictions, "_ROWS", rows)
        result.write_csv(tmp_path / "out.csv", limits)
        assert (tmp_path / "out.csv").read_text() == text


def test_the_table_has_the_columns_and_values_of_the_file(tmp_path: Path) -> None:
    result = StandIn().score_video(write_grey_video(tmp_path / "clip.mp4", *range(6)))
    table = result.to_table()
    result.write_csv(tmp_path / "out.csv")
    written = pd.read_csv(tmp_path / "out.csv", dtype=dict.fromkeys(AFFWILD2, "Int8"))
    pd.testing.assert_frame_equal(table, written, check_dtype=False, atol=1e-5)
    assert table["AU1"].tolist()[:2] == [1, 0]
    assert table["AU1"].isna().tolist() == [status == "no_face" for status in result.scores.status]
    abstained = result.to_table(np.full((2, A), 0.3))["AU1"].tolist()
    assert abstained[:2] == ["abstain", "abstain"]
    assert abstained[3:5] == [0, 1]

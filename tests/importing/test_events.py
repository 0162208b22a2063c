"""`aupair import csv` of tables with a row for each event."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Command
from importing.folders import movie, notes, text, written


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two movies of twenty frames at 25 a second, .8 seconds, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        movie(tmp_path / "movies" / f"{name}.mp4", 20)
    return tmp_path


def frames(*spans: tuple[int, int], absent: float = 0, active: float = 1) -> list[float]:
    """Return the labels of twenty frames: active in spans of a first and a last frame."""
    return [active if any(first <= k <= last for first, last in spans) else absent for k in range(20)]


def column(data: Path, video: str, au: str, folder: str = "occurrence") -> list[float]:
    aus, values = written(data, video, folder)
    result: list[float] = values[:, aus.index(au)].tolist()
    return result


EVENTS = ("video,start,end,au", "a,0.08,0.2,AU12", "a,.4,0.4,AU12", "b,0,0.8,AU2")


def test_seconds_become_frames_and_everything_else_is_inactive(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", *EVENTS)
    outcome = aupair("import", "csv", "events.csv", "--videos", "movies")
    assert outcome.code == 0, outcome.err
    assert written(folder / "data", "a")[0] == ("AU2", "AU12")
    assert column(folder / "data", "a", "AU12") == frames((2, 4), (10, 10))
    assert column(folder / "data", "a", "AU2") == frames()
    assert column(folder / "data", "b", "AU2") == frames((0, 19))
    assert not (folder / "data/annotations/intensity").exists()


def test_events_and_rows_of_other_aus_are_merged(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "events.csv", *EVENTS)
    text(folder / "coded.csv", "video,au,start,end", "a,AU12,0,0.6", "b,AU2,,")
    text(folder / "labels" / "rows.csv", "video,frame,AU43,AU18", "a,0,1,", "a,1,,0", "b,0,0,1")
    command = ("import", "csv", "labels", "--videos", "movies", "--coded", "coded.csv", "--out")
    assert "an event of an AU that is not coded" not in aupair(*command, "data").err
    assert written(folder / "data", "a")[0] == ("AU2", "AU12", "AU18", "AU43")
    assert column(folder / "data", "a", "AU12") == [*frames((2, 4), (10, 10))[:15], *[-1] * 5]
    assert column(folder / "data", "a", "AU43") == [1, *[-1] * 19]
    assert column(folder / "data", "a", "AU18") == [-1, 0, *[-1] * 18]
    assert column(folder / "data", "a", "AU2") == [-1] * 20
    assert column(folder / "data", "b", "AU2") == frames((0, 19))
    text(folder / "labels" / "rows.csv", "video,frame,AU12", "a,0,1")
    assert aupair(*command, "other").line.startswith("a video is labelled twice, got a: ")


def test_times_between_frames_are_rounded_to_the_nearer_one(folder: Path, aupair: Command) -> None:
    rows = [
        f"a,{start / 25},{end / 25},AU{k}"
        for k, (start, end) in enumerate([(1.5, 2.5), (2.5, 3.5), (2.4, 4.6), (5.1, 5.2)])
    ]
    text(folder / "events.csv", "video,start,end,au", *rows)
    assert aupair("import", "csv", "events.csv", "--videos", "movies").code == 0
    assert column(folder / "data", "a", "AU0") == frames((2, 2))
    assert column(folder / "data", "a", "AU1") == frames((3, 3))
    assert column(folder / "data", "a", "AU2") == frames((2, 4))
    assert column(folder / "data", "a", "AU3") == frames((5, 5))


def test_an_au_without_an_event_can_count_as_not_labelled(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", *EVENTS)
    assert aupair("import", "csv", "events.csv", "--videos", "movies", "--uncoded", "missing").code == 0
    assert column(folder / "data", "a", "AU2") == [-1] * 20
    assert column(folder / "data", "a", "AU12") == frames((2, 4), (10, 10))


def test_a_table_says_what_is_coded(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video,start,end,au", "a,0.08,0.2,AU12")
    text(folder / "coded.csv", "video,au,start,end", "a,AU12,0,0.4", "a,AU12,0.6,0.8", "b,AU12,,", "b,AU9,,")
    assert aupair("import", "csv", "events.csv", "--videos", "movies", "--coded", "coded.csv").code == 0
    values = np.array(frames((2, 4)))
    values[10:15] = -1
    assert column(folder / "data", "a", "AU12") == values.tolist()
    assert column(folder / "data", "a", "AU9") == [-1] * 20
    assert column(folder / "data", "b", "AU12") == column(folder / "data", "b", "AU9") == frames()


@pytest.mark.parametrize("first", [0, 1])
def test_frames_include_the_last(folder: Path, aupair: Command, first: int) -> None:
    text(
        folder / "events.csv",
        "video,start,end,au",
        f"a,{2 + first},{4 + first},AU12",
        f"a,{19 + first},{19 + first},AU12",
    )
    command = ("import", "csv", "events.csv", "--videos", "movies", "--unit", "frames", "--first-frame", first)
    assert aupair(*command).code == 0
    assert column(folder / "data", "a", "AU12") == frames((2, 4), (19, 19))


def test_a_frame_rate_can_be_given(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video,start,end,au", "a,0.2,0.5,AU12")
    assert aupair("import", "csv", "events.csv", "--videos", "movies", "--fps", 10).code == 0
    assert column(folder / "data", "a", "AU12") == frames((2, 4))


def test_intensities_by_number_or_letter(folder: Path, aupair: Command) -> None:
    rows = ("a,0.08,0.2,AU12,C", "a,0.2,0.24,AU12,a", "a,.4,0.44,AU12,", "b,0,0.08,AU12,5")
    text(folder / "events.csv", "video,start,end,au,intensity", *rows)
    assert aupair("import", "csv", "events.csv", "--videos", "movies", "--threshold", 2).code == 0
    assert column(folder / "data", "a", "AU12", "intensity") == [0, 0, 3, 3, 3, 1, 0, 0, 0, 0, -1, *[0] * 9]
    assert column(folder / "data", "a", "AU12") == frames((2, 4), (10, 10))
    assert column(folder / "data", "b", "AU12") == frames((0, 1))


def test_times_may_have_decimal_commas(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video;start;end;au;intensity", "a;0,08;0,2;AU12;2,5")
    assert aupair("import", "csv", "events.csv", "--videos", "movies").code == 0
    assert column(folder / "data", "a", "AU12", "intensity") == frames((2, 4), active=2.5)
    text(folder / "events.csv", "video;start;end;au", "a;0,08,1;0,2;AU12")
    line = aupair("import", "csv", "events.csv", "--videos", "movies", "--out", "other").line
    assert line.startswith("not a number: in events.csv line 2 column start, got '0,08,1'")


def test_equal_events_that_overlap_are_merged_and_noted(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video,start,end,au", "a,0.08,0.2,AU12", "a,0.16,0.28,AU12", "a,0.28,0.32,AU12")
    assert aupair("import", "csv", "events.csv", "--videos", "movies").code == 0
    assert column(folder / "data", "a", "AU12") == frames((2, 7))
    assert notes(folder / "data")["overlapping events of an AU, merged"] == ["a AU12 at 0.16"]


def test_a_file_for_each_video_may_be_without_events(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "a.csv", "start,end,au,subject", "0,0.08,AU1,Ann")
    text(folder / "labels" / "b.csv", "start,end,au,subject")
    assert aupair("import", "csv", "labels", "--videos", "movies").code == 0
    assert column(folder / "data", "a", "AU1") == frames((0, 1))
    assert column(folder / "data", "b", "AU1") == frames()
    assert (folder / "data/subjects.csv").read_text() == "video,subject\na,Ann\n"


def test_a_table_for_each_au(folder: Path, aupair: Command) -> None:
    text(folder / "labels" / "brows.csv", "video,start,end,au,subject", "a,0,0.08,AU4,Ann", "b,0,0.04,AU4,Ben")
    text(folder / "labels" / "mouth.csv", "video,start,end,au", "a.mp4,0.04,0.08,AU12")
    assert aupair("import", "csv", "labels", "--videos", "movies").code == 0
    assert column(folder / "data", "a", "AU4") == frames((0, 1))
    assert column(folder / "data", "a", "AU12") == frames((1, 1))
    text(folder / "labels" / "again.csv", "video,start,end,au", "a,0.04,0.08,AU12")
    outcome = aupair("import", "csv", "labels", "--videos", "movies", "--overwrite")
    assert outcome.line.startswith(
        "an AU of a video has events in two tables: in labels/again.csv and labels/mouth.csv, got a: AU12"
    )
    text(folder / "labels" / "again.csv", "video,start,end,au,subject", "a,0.04,0.08,AU1,Eve")
    outcome = aupair("import", "csv", "labels", "--videos", "movies", "--overwrite")
    assert outcome.line.startswith(
        "two tables name different subjects: in labels/again.csv and labels/brows.csv, got a: Eve and Ann"
    )


BAD_EVENTS = {
    "backwards": (["a,0.2,0.1,AU1,1"], "an event ends before it starts: in events.csv line 2, got 0.2 to 0.1 seconds"),
    "infinitely long": (["a,0.2,1e308,AU1,1"], "an event outside of its video: in events.csv line 2, got 0.2 to 1e+308 seconds"),
    "after the video": (["a,0.2,0.9,AU1,1"], "an event outside of its video: in events.csv line 2, got 0.2 to 0.9 seconds, expected 0.800 seconds of movies/a.mp4"),
    "before the video": (["a,-0.2,0.1,AU1,1"], "an event outside of its video: in events.csv line 2"),
    "no such video": (["c,0.2,0.4,AU1,1"], "labels without a video: in events.csv, got c, expected movies/c.mp4"),
    "overlap": (["a,0.2,0.4,AU1,1", "a,0.3,0.5,AU1,2"], "overlapping events of AU1 with different intensities: in events.csv line 3, got 0.3 to 0.5 seconds, expected no event that overlaps with 0.2 to 0.4 of events.csv line 2"),
    "in case only": (["a,0.2,0.4,AU1,1", "a,0.5,0.6,au1,1"], "an AU is named twice: in events.csv, got"),
    "reserved": (["a,0.2,0.4,frame,1"], "a reserved word as the name of an AU: in events.csv, got frame"),
    "a number": (["a,0.2,0.4,12,1"], "not the name of an AU: in events.csv, got 12"),
    "no start": (["a,,0.4,AU1,1"], "not a number: in events.csv line 2 column start, got '', expected a time"),
    "intensity": (["a,0.2,0.4,AU1,F"], "not a number: in events.csv line 2 column intensity, got 'F', expected 1 to 5 or A to E"),
    "zero": (["a,0.2,0.4,AU1,0"], "an intensity out of range: in events.csv line 2 column intensity, got 0, expected 1 to 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_bad_events_are_one_line(folder: Path, aupair: Command, name: str) -> None:
    lines, message = BAD_EVENTS[name]
    text(folder / "events.csv", "video,start,end,au,intensity", *lines)
    outcome = aupair("import", "csv", "events.csv", "--videos", "movies")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert not (folder / "data").exists()


def test_other_columns_are_left_out(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video,start,end,au,coder,remark", "a,0.08,0.2,AU12,Eve,unsure")
    assert aupair("import", "csv", "events.csv", "--videos", "movies").code == 0
    assert notes(folder / "data")["columns left out"] == ["coder", "remark"]


BAD_OPTIONS = {
    "no folder of movies": (["--videos", "nowhere"], 3, "no such folder: in nowhere, expected a folder of movies"),
    "unit": (["--unit", "minutes"], 2, "minutes"),
    "half a frame": (["--unit", "frames"], 3, "not the number of a frame: in events.csv line 2, got 0.08 to 0.2"),
    "uncoded": (["--coded", "coded.csv"], 3, "an event of an AU that is not coded: in events.csv line 2, got a, AU12"),
    "elsewhere": (["--coded", "parts.csv"], 3, "an event in a time in which its AU is not coded: in events.csv line 2, got AU12"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_options_that_do_not_fit_are_refused(folder: Path, aupair: Command, name: str) -> None:
    options, code, message = BAD_OPTIONS[name]
    text(folder / "events.csv", *EVENTS)
    text(folder / "coded.csv", "video,au", "a,AU2", "b,AU2")
    text(folder / "parts.csv", "video,au,start,end", "a,AU12,0.12,0.8", "b,AU2,,")
    outcome = aupair("import", "csv", "events.csv", "--videos", "movies", *options)
    assert outcome.code == code
    assert message in outcome.err


def test_events_counted_from_one_are_recognised_at_the_end(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", "video,start,end,au", "a,15,20,AU12")
    outcome = aupair("import", "csv", "events.csv", "--videos", "movies", "--unit", "frames")
    assert "got 15 to 20 frames, expected frames 0 to 19 of movies/a.mp4; add --first-frame 1" in outcome.line


def test_aus_that_count_as_inactive_for_lack_of_an_event_are_reported(folder: Path, aupair: Command) -> None:
    text(folder / "events.csv", *EVENTS, "a,0,0.04,AU9", "b,0,0.04,AU9")
    command = ("import", "csv", "events.csv", "--videos", "movies", "--overwrite")
    assert aupair(*command).code == 0
    reason = "AUs without an event in some videos, counted as inactive there (--uncoded missing: not labelled)"
    assert notes(folder / "data")[reason] == ["AU2 (1 of 2 videos)", "AU12 (1 of 2 videos)"]
    assert aupair(*command, "--uncoded", "missing").code == 0
    assert reason not in notes(folder / "data")


def test_an_event_that_rounds_to_nothing_is_reported(folder: Path, aupair: Command) -> None:
    rows = ("a,0.2,0.36,AU9,3", "a,0.36,0.37,AU9,4", "a,0.37,0.6,AU9,2", "a,0.65,0.66,AU9,5")
    text(folder / "events.csv", "video,start,end,au,intensity", *rows)
    assert aupair("import", "csv", "events.csv", "--videos", "movies").code == 0
    reason = "events of less than a frame, left out for the next event in that frame"
    assert notes(folder / "data")[reason] == ["a AU9 at 0.36"]
    assert column(folder / "data", "a", "AU9", "intensity")[5:17] == [3, 3, 3, 3, *[2] * 6, 0, 5]

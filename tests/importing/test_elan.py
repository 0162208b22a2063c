"""`aupair import elan` on files that pympi writes, and on damaged ones."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import Command
from importing.eaf import Annotations, write_eaf
from importing.folders import movie, notes, text, written


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two movies of twenty frames at 25 a second in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b c"):
        movie(tmp_path / "movies" / f"{name}.mp4", 20)
    return tmp_path


def frames(*spans: tuple[int, int]) -> list[int]:
    return [int(any(first <= k <= last for first, last in spans)) for k in range(20)]


def column(video: str, au: str, folder: str = "occurrence") -> list[float]:
    aus, values = written(Path("data"), video, folder)
    result: list[float] = values[:, aus.index(au)].tolist()
    return result


def test_tiers_of_aus_become_labels(folder: Path, aupair: Command) -> None:
    tiers = {"AU12": [(80, 200, ""), (400, 440, "AU12")], "AU2L": [], "speech": [(0, 500, "hello")]}
    write_eaf(folder / "eaf" / "one.eaf", tiers, "../movies/a.mp4", "Ann")
    write_eaf(folder / "eaf" / "two.eaf", {"AU12": [(0, 800, "")]}, "../movies/b%20c.mp4", "Ben")
    outcome = aupair("import", "elan", "eaf")
    assert outcome.code == 0, outcome.err
    assert column("a", "AU12") == frames((2, 4), (10, 10))
    assert column("a", "AU2L") == frames()
    assert column("b c", "AU12") == frames((0, 19))
    assert column("b c", "AU2L") == [-1] * 20
    assert Path("data/subjects.csv").read_text() == "video,subject\na,Ann\nb c,Ben\n"
    assert Path("data/videos/b c.mp4").samefile("movies/b c.mp4")
    assert not Path("data/annotations/intensity").exists()
    assert notes(folder / "data") == {"other tiers, left out": ["speech (1 files)"]}


def test_files_with_different_tiers_of_a_video_are_merged(folder: Path, aupair: Command) -> None:
    write_eaf(folder / "eaf" / "one.eaf", {"AU12": [(80, 200, "")]}, "../movies/a.mp4", "Ann")
    path = write_eaf(folder / "eaf" / "two.eaf", {"AU4": [(0, 80, "")]}, "../movies/a.mp4")
    assert aupair("import", "elan", "eaf").code == 0
    assert column("a", "AU12") == frames((2, 4))
    assert column("a", "AU4") == frames((0, 1))
    write_eaf(path, {"AU4": []}, "../movies/a.mp4", "Ben")
    outcome = aupair("import", "elan", "eaf", "--overwrite")
    assert outcome.line.startswith(
        "two files name different subjects: in eaf/one.eaf and eaf/two.eaf, got Ann and Ben in a"
    )


def test_texts_are_intensities(folder: Path, aupair: Command) -> None:
    write_eaf(folder / "movies" / "a.eaf", {"AU12": [(0, 80, "2"), (80, 160, "d"), (160, 240, " "), (240, 280, "A")]})
    assert aupair("import", "elan", "movies/a.eaf", "--threshold", 2).code == 0
    assert column("a", "AU12", "intensity") == [2, 2, 4, 4, -1, -1, 1, *[0] * 13]
    assert column("a", "AU12") == frames((0, 5))
    assert notes(folder / "data") == {"videos without a subject, each counts as a different person": ["a"]}


def test_tiers_of_other_names_and_texts(folder: Path, aupair: Command) -> None:
    write_eaf(folder / "eaf" / "a.eaf", {"smile": [(80, 200, "wide")], "nod": [(0, 40, "")], "AU1": [(0, 800, "")]})
    command = ("import", "elan", "eaf", "--videos", "movies", "--tier", "AU12=smile", "--tier", "nod")
    assert aupair(*command).line.startswith(
        "not an intensity: in eaf/a.eaf tier smile at 0.08 s, got wide, expected 1 to 5"
    )
    assert aupair(*command, "--ignore-text").code == 0
    assert written(Path("data"), "a")[0] == ("AU12", "nod")
    assert column("a", "AU12") == frames((2, 4))
    assert column("a", "nod") == frames((0, 0))


def test_times_count_from_the_origin_of_the_media(folder: Path, aupair: Command) -> None:
    path = write_eaf(folder / "a.eaf", {"AU12": [(80, 200, "")]}, "movies/a.mp4")
    path.write_text(path.read_text().replace("RELATIVE_MEDIA_URL", 'TIME_ORIGIN="200" RELATIVE_MEDIA_URL'))
    assert aupair("import", "elan", "a.eaf").code == 0
    assert column("a", "AU12") == frames((7, 9))


BAD_FILES: dict[str, tuple[Mapping[str, Annotations], str]] = {
    "no tier": ({"smile": [(0, 40, "")], "speech": []}, "no tier of an AU: in eaf/a.eaf, got smile, speech, expected names such as AU12; name the tiers by --tier"),
    "a word": ({"AU12": [(0, 40, "strong")]}, "not an intensity: in eaf/a.eaf tier AU12 at 0 s, got strong"),
    "a six": ({"AU12": [(0, 40, "6")]}, "not an intensity: in eaf/a.eaf tier AU12 at 0 s, got 6"),
    "outside": ({"AU12": [(700, 960, "")]}, "an event outside of its video: in eaf/a.eaf tier AU12 at 0.7 s, got 0.7 to 0.96 seconds, expected 0.800 seconds"),
    "overlap": ({"AU12": [(0, 400, "1"), (300, 500, "2")]}, "overlapping events of AU12 with different intensities: in eaf/a.eaf tier AU12 at 0.3 s"),
    "case": ({"AU12L": [], "AU12l": []}, "an AU is named twice: in eaf/a.eaf, got AU12L and AU12l"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_line(folder: Path, aupair: Command, name: str) -> None:
    tiers, message = BAD_FILES[name]
    write_eaf(folder / "eaf" / "a.eaf", tiers)
    outcome = aupair("import", "elan", "eaf", "--videos", "movies")
    assert outcome.code == 3
    assert outcome.line.startswith(message)
    assert not Path("data").exists()


@pytest.mark.parametrize("content", ["", "no xml", "<a/>", "<ANNOTATION_DOCUMENT VERSION='3.0'/>"])
def test_what_is_not_elans_is_refused(folder: Path, aupair: Command, content: str) -> None:
    text(folder / "a.eaf", content)
    assert aupair("import", "elan", "a.eaf").line.startswith("not a readable ELAN file: in a.eaf, got ")


def test_an_annotation_without_a_time_is_refused(folder: Path, aupair: Command) -> None:
    path = write_eaf(folder / "a.eaf", {"AU12": [(80, 200, "")]}, "movies/a.mp4")
    path.write_text(path.read_text().replace(' TIME_VALUE="80"', ""))
    assert aupair("import", "elan", "a.eaf").line.startswith("an annotation without a time: in a.eaf tier AU12")


def test_two_participants_are_refused(folder: Path, aupair: Command) -> None:
    path = write_eaf(folder / "a.eaf", {"AU12": [], "AU1": []}, "movies/a.mp4", "Ann")
    path.write_text(path.read_text().replace('"Ann"', '"Ben"', 1))
    assert aupair("import", "elan", "a.eaf").line.startswith("tiers of two participants: in a.eaf, got Ann, Ben")


def test_a_file_without_a_movie_is_an_error_unless_allowed(folder: Path, aupair: Command) -> None:
    write_eaf(folder / "eaf" / "a.eaf", {"AU12": [(0, 40, "")]})
    write_eaf(folder / "eaf" / "z.eaf", {"AU12": []}, "gone/z.mp4")
    outcome = aupair("import", "elan", "eaf", "--videos", "movies")
    assert outcome.line.startswith(
        "labels without a video: in eaf/z.eaf, got no movie, expected z.mp4; name the folder of the movies by --videos"
    )
    assert aupair("import", "elan", "eaf", "--videos", "movies", "--allow-missing").code == 0
    assert notes(folder / "data")["labelled videos left out: labels without a video"] == ["eaf/z.eaf"]


def test_two_files_about_one_video_are_refused(folder: Path, aupair: Command) -> None:
    for name in ("coder1", "coder2"):
        write_eaf(folder / "eaf" / f"{name}.eaf", {"AU12": [(0, 40, "")]}, "../movies/a.mp4")
    assert aupair("import", "elan", "eaf").line.startswith(
        "a video is labelled twice, got a: eaf/coder1.eaf, eaf/coder2.eaf"
    )


def test_tiers_named_twice_are_refused(folder: Path, aupair: Command) -> None:
    write_eaf(folder / "a.eaf", {"AU12": []})
    outcome = aupair("import", "elan", "a.eaf", "--tier", "AU12=x", "--tier", "AU12=y")
    assert outcome.line.startswith("an AU is named twice: in --tier, got AU12")


def test_an_annotation_without_its_time_slot_is_refused(folder: Path, aupair: Command) -> None:
    path = write_eaf(folder / "a.eaf", {"AU12": [(80, 200, "")]}, "movies/a.mp4")
    path.write_text(re.sub('TIME_SLOT_REF2="[^"]+"', 'TIME_SLOT_REF2="ts9"', path.read_text()))
    outcome = aupair("import", "elan", "a.eaf")
    assert outcome.code == 3
    assert outcome.line.startswith("not a readable ELAN file: in a.eaf tier AU12, got no time slot or annotation 'ts9'")

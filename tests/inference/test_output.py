"""The folder of predictions: results of the same model and settings are continued, others are not replaced in silence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aupair import Recognizer
from conftest import contents, rows_of
from stand_in import StandIn
from videos import write_grey_video


class Model(StandIn):
    """A model that remembers the videos that it scored."""

    def __init__(self, sha256: str = "a") -> None:
        self.sha256, self.scored, self.loaded = sha256, list[str](), 0

    def load(self, *_: object) -> "Model":
        self.loaded += 1
        return self

    def score_video(self, source: Path) -> Any:
        self.scored.append(source.stem)
        return super().score_video(source)


@pytest.fixture
def predict(tmp_path: Path, aupair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call the command with a model, on videos of the folder `in`; results are in `out`."""
    for k, name in enumerate("abc"):
        path = write_grey_video(tmp_path / "in" / f"{name}.avi", *range(6))
        os.utime(path, (k, k))

    def call(model: Model, *arguments: object) -> Any:
        monkeypatch.setattr(Recognizer, "load", model.load)
        monkeypatch.setattr("aupair.registry.versions.pin_version", str)
        monkeypatch.setattr("aupair.registry.versions.resolve_bundle", Path)
        monkeypatch.setattr("aupair.inference.bundle.hash_selection", lambda _: model.sha256)
        videos = [tmp_path / "in" / word if str(word).endswith(".avi") else word for word in arguments]
        return aupair("predict", *videos, "--out", tmp_path / "out", "--model", "models:/aupair/1", "--workers", 1)

    return call


def test_the_same_settings_continue_and_add(tmp_path: Path, predict: Callable[..., Any]) -> None:
    first, second, third = Model(), Model(), Model()
    assert predict(first, "a.avi", "b.avi").code == 0
    os.utime(tmp_path / "in" / "b.avi")  # changed since
    (tmp_path / "out" / "a.png").touch()
    outcome = predict(second, "b.avi", "c.avi", "a.avi")
    assert outcome.code == 0
    assert second.scored == ["b", "c"]
    assert "1 of 3 videos are finished already; --overwrite predicts them again" in outcome.out + outcome.err
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert sorted(Path(row["video"]).name for row in rows) == ["a.avi", "b.avi", "c.avi"]
    before = contents(tmp_path / "out")
    assert predict(third, "a.avi").code == 0
    assert third.scored == []
    assert contents(tmp_path / "out").keys() == before.keys(), "the rows and files of other videos stay"
    assert len(rows_of(tmp_path / "out" / "summary.csv")) == 3


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        (Model("b"), (), "got model models:/aupair/1 (a), expected model models:/aupair/1 (b)"),
        (Model(), ("--abstain", ".2"), "got abstain None, expected abstain 0.2"),
    ],
)
def test_other_results_are_not_replaced_in_silence(
    tmp_path: Path, predict: Callable[..., Any], model: Model, more: tuple[str, ...], message: str
) -> None:
    assert predict(Model(), "a.avi").code == 0
    before = contents(tmp_path / "out")
    outcome = predict(model, "a.avi", *more)
    assert outcome.code != 0
    assert outcome.line.startswith(f"other results are in the folder: in {tmp_path / 'out'}, {message}")
    assert outcome.line.endswith("name another folder for --out, or replace them by --overwrite")
    assert contents(tmp_path / "out") == before
    assert not model.loaded, "it is refused before the networks are loaded"
    assert predict(model, "a.avi", *more, "--overwrite").code == 0
    assert model.scored[-1:] == ["a"]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--abstain", ".2"), 4, "other results are in the folder: in {out}, got abstain None, expected abstain 0.2;"),
        (("--coverage", ".5"), 4, "other results are in the folder: in {out}, got abstain None, expected abstain 0.5;"),
        (("--aus", "AU4"), 4, "other results are in the folder: in {out}, got aus AU1,AU2,AU4"),
        (("--subjects", "{in}/people.csv"), 4, "other results are in the folder: in {out}, got subjects None,"),
        (("--subjects", "{in}/none.csv"), 3, "not a readable table: in {in}/none.csv"),
        (("{other}/a.avi",), 4, "the results of another video: in {out}/a.csv, got {in}/a.avi"),
        (("{in}/none.avi",), 3, "no such video or folder: in {in}/none.avi"),
        (("--aus", "AU4,AU4"), 3, "an AU is named twice: in the AUs to predict, got AU4"),
        (("--abstain", ".2", "--risk", ".1"), 2, "these options exclude each other, got --abstain and --risk"),
        (("--device", "cuda:99"), 2, "no such device, got cuda:99"),
    ],
)
def test_what_needs_no_model_is_refused_before_the_registry_is_asked(
    tmp_path: Path,
    predict: Callable[..., Any],
    aupair: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert predict(Model(), "a.avi").code == 0
    monkeypatch.setattr("aupair.registry.versions.pin_version", None)
    (tmp_path / "in" / "people.csv").write_text("video,subject\na,somebody\n")
    write_grey_video(tmp_path / "other" / "a.avi", *range(3))
    before = contents(tmp_path)
    places = {name: tmp_path / name for name in ("in", "out", "other")}
    words = [word.format(**places) for word in more]
    sources = [] if more[0].startswith("{") else [tmp_path / "in" / "a.avi"]
    outcome = aupair("predict", *sources, "--out", tmp_path / "out", *words)
    assert outcome.code == code
    assert outcome.line.startswith(message.format(**places))
    assert contents(tmp_path) == before


def test_results_of_an_older_version_and_of_another_video_of_that_name_stay(
    tmp_path: Path, predict: Callable[..., Any]
) -> None:
    assert predict(Model(), "a.avi").code == 0
    write_grey_video(tmp_path / "other" / "a.avi", *range(3))
    line = predict(Model(), tmp_path / "other").line
    assert line.startswith(
        f"the results of another video: in {tmp_path / 'out' / 'a.csv'}, got {tmp_path / 'in' / 'a.avi'}"
    )
    (tmp_path / "out" / "predict.json").unlink()
    assert "got no predict.json" in predict(Model(), "a.avi").line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("predict.json", "[]", "not the settings of results: in {out}/predict.json, got list"),
        ("predict.json", "null", "not the settings of results: in {out}/predict.json, got NoneType"),
        ("summary.csv", "video,status,frames,faces,message,output\na\0,ok,1,1,,a\n", "not a summary: in {out}/summary"),
    ],
)
def test_altered_results_are_refused(
    tmp_path: Path, predict: Callable[..., Any], name: str, content: str, message: str
) -> None:
    assert predict(Model(), "a.avi").code == 0
    (tmp_path / "out" / name).write_text(content)
    outcome = predict(Model(), "a.avi")
    assert outcome.code == 4
    assert outcome.line.startswith(message.format(out=tmp_path / "out"))


def test_an_overwrite_that_is_stopped_leaves_no_row_of_the_other_settings(
    tmp_path: Path, predict: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(Model("a"), "a.avi", "b.avi").code == 0
    broken = Model("b")
    monkeypatch.setattr(broken, "score_video", lambda source: (_ for _ in ()).throw(KeyboardInterrupt()))
    predict(broken, "a.avi", "b.avi", "--overwrite")
    last = Model("b")
    assert predict(last, "a.avi", "b.avi").code == 0
    assert last.scored == ["a", "b"], "the results of the other model were there"

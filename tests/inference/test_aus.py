"""Models of any AUs: columns, predictions of some of the AUs, a competition's files."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aupair import Recognizer
from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, AupairError, ParamsError
from aupair.inference.abstain import choose_abstain_share
from aupair.inference.predict import predict_videos
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.submission import write_submission
from aupair.inference.timeline import save_prediction_picture
from aupair.report import timelines
from brightness import WholeFrames, make_recognizer
from bundle_parts import AU_SETS
from listener import Listener
from videos import write_grey_video

PARAMS = {"extract_features": {"batch": 4, "context_points": 0}}
COLUMNS = ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence")


def predictions(aus: tuple[str, ...], n: int = 4, intensity: bool = False) -> VideoPredictions:
    """Return random predictions; the third frame has no face."""
    rng = np.random.default_rng(len(aus))
    y_hat, sigma, raw, confidence = rng.random((4, n, len(aus))).astype(np.float32)
    decision = (raw > 0.5).astype(np.int8)
    for values in (y_hat, sigma, raw, confidence):
        values[2] = np.nan
    decision[2] = -1
    scores = VideoScores(np.arange(n) / 10, ["ok", "ok", "no_face", "ok"][:n], y_hat, sigma)
    return VideoPredictions(aus, scores, decision, raw, confidence, 5 * raw if intensity else None)


def recognizer() -> WholeFrames:
    return WholeFrames(**vars(make_recognizer(PARAMS, 255)))


@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
@pytest.mark.parametrize("intensity", [False, True])
def test_a_table_has_the_columns_of_its_aus(tmp_path: Path, aus: tuple[str, ...], intensity: bool) -> None:
    predictions(aus, intensity=intensity).write_csv(tmp_path / "v.csv")
    endings = ("", "_intensity", *COLUMNS[1:]) if intensity else COLUMNS
    written = pd.read_csv(tmp_path / "v.csv")
    assert list(written) == ["frame", "time_s", "status", *(f"{au}{ending}" for au in aus for ending in endings)]
    assert written.iloc[2, 3:].isna().all()
    assert written.iloc[3, 3:].notna().all()


@pytest.mark.parametrize("intensity", [False, True])
def test_some_of_the_aus_have_the_values_that_they_have_among_all(intensity: bool) -> None:
    everything = predictions(AU_SETS["twenty"], intensity=intensity)
    some = everything.only(["AU43", "AU9"])
    assert some.aus == ("AU43", "AU9")
    table = everything.to_table()
    columns = [name for au in some.aus for name in table if name == au or name.startswith(f"{au}_")]
    pd.testing.assert_frame_equal(some.to_table(), table[["frame", "time_s", "status", *columns]])
    assert some.faces == 3


def test_a_recognizer_of_some_aus_writes_their_columns_in_the_model_s_order(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "clip.avi", *range(10, 250, 30))
    limits = {}
    for name, model in (("all", recognizer()), ("some", recognizer().only(["AU12", "AU4"]))):
        predict_videos([video], model, tmp_path / name, abstain=0.3)
        limits[name] = model.limits(0.3)
    everything, some = (pd.read_csv(tmp_path / name / "clip.csv", dtype=str) for name in ("all", "some"))
    assert list(some) == [
        "frame",
        "time_s",
        "status",
        *(f"{au}{ending}" for au in ("AU4", "AU12") for ending in COLUMNS),
    ]
    pd.testing.assert_frame_equal(some, everything[list(some)])
    assert "abstain" in set(some["AU4"])
    np.testing.assert_array_equal(limits["some"], limits["all"][:, [2, 6]])


@pytest.mark.parametrize(
    ("aus", "message"),
    [
        (
            ["AU9", "AU4", "au12"],
            r"^the model does not know these AUs, got AU9, au12, expected some of AU1, AU2, .*AU26$",
        ),
        (["AU4", "AU4"], r"^an AU is named twice: in the AUs to predict, got AU4, expected each AU once$"),
        ([], r"^no AU: in the AUs to predict"),
        ([""], r"^not the name of an AU: in the AUs to predict, got nothing"),
    ],
)
def test_aus_that_cannot_be_predicted_are_one_line(aus: list[str], message: str) -> None:
    with pytest.raises(AupairError, match=message) as caught:
        recognizer().only(aus)
    assert "\n" not in str(caught.value)


def test_the_python_interface_predicts_some_aus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(WholeFrames, Recognizer):
        pass

    video = write_grey_video(tmp_path / "clip.avi", *range(10, 250, 30))
    model = Model(**vars(make_recognizer(PARAMS, 255).only(["AU1", "AU2"])))
    table, other = model.predict(video), model.predict(video, aus=["AU26"])
    assert [name for name in table if "_" not in name] == ["frame", "status", "AU1", "AU2"]
    assert [name for name in other if "_" not in name] == ["frame", "status", "AU26"]
    monkeypatch.setattr("aupair.api.resolve_bundle", lambda model: tmp_path)
    monkeypatch.setattr("aupair.inference.recognizer.BundleRecognizer.load", lambda folder, device: model)
    assert Recognizer.load("work/bundle", "cpu", ["AU7"]).aus == ("AU7",)


def test_the_risk_of_all_aus_is_not_promised_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    some = recognizer().only(["AU4"])
    with pytest.raises(ParamsError) as caught:
        choose_abstain_share(some, risk=0.1)
    todo = "leave one of them out: the risk is that of all AUs of the model together"
    assert str(caught.value) == f"these options exclude each other, got --risk and --aus; {todo}"
    assert choose_abstain_share(some, coverage=0.8) == pytest.approx(0.2)


def test_a_picture_with_faces_shows_the_aus_in_the_order_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    draw = timelines.draw_timeline

    def watch(series: timelines.Series, title: str, panels: list[int], **options: object) -> object:
        drawn.append([series.aus[k] for k in panels])
        return draw(series, title, panels, **options)

    monkeypatch.setattr(timelines, "draw_timeline", watch)
    monkeypatch.setattr("aupair.faces.video.iter_faces", lambda *_: [])
    for aus in (["AU12", "AU4"], []):
        save_prediction_picture(tmp_path / "a.png", recognizer().only(["AU1", "AU4", "AU12"]), Path("a.mp4"), "a", aus)
    assert drawn == [["AU12", "AU4"], ["AU1", "AU4", "AU12"]]


@pytest.mark.parametrize("form", ["files", "table"])
@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
def test_a_submission_has_the_aus_of_the_tables(tmp_path: Path, aus: tuple[str, ...], form: str) -> None:
    expected = predictions(aus).decision
    expected[2] = expected[1]
    for video in ("a", "b"):
        predictions(aus).write_csv(tmp_path / "predictions" / f"{video}.csv")
    log = Listener()
    write_submission(tmp_path / "predictions", tmp_path / "out", form=form, log=log)
    path = tmp_path / "out" / ("predictions.txt" if form == "table" else "a.txt")
    header, *rows = path.read_text().splitlines()
    assert header == ",".join([*(["image_location"] if form == "table" else []), *aus])
    assert [row.split(",")[-len(aus) :] for row in rows[:4]] == expected.astype(str).tolist()
    assert len(log.lines) == (aus != AFFWILD2)
    assert all(re.match("not the AUs of Aff-Wild2's challenges: (without|also) AU", line) for line in log.lines)


def test_the_competition_s_aus_in_another_order_are_reported(tmp_path: Path) -> None:
    predictions(AFFWILD2[::-1]).write_csv(tmp_path / "predictions" / "a.csv")
    log = Listener()
    write_submission(tmp_path / "predictions", tmp_path / "out", log=log)
    assert log.lines == ["not the AUs of Aff-Wild2's challenges: in another order"]


def test_tables_of_different_aus_are_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    for video, aus in {"a": ("AU1", "AU2"), "b": ("AU1", "AU9"), "c": ("AU1", "AU2")}.items():
        predictions(aus).write_csv(folder / f"{video}.csv")
    with pytest.raises(ArtifactError) as caught:
        write_submission(folder, tmp_path / "out")
    assert str(caught.value) == (
        f"a table with other AUs: in {folder / 'b.csv'}, got without AU2 and also AU9, expected AU1, AU2, as in a.csv; "
        "predict all videos with the same model and --aus"
    )
    assert not (tmp_path / "out").exists()
    expected = tmp_path / "list.txt"
    expected.write_text("a\nc\ngone,2\n")
    write_submission(folder, tmp_path / "out", expected, missing="zeros")
    assert (tmp_path / "out" / "gone.txt").read_text() == "AU1,AU2\n0,0\n0,0\n"
    expected.write_text("gone,1\n")
    (folder / "b.csv").unlink()
    write_submission(folder, tmp_path / "zeros", expected, missing="zeros")
    assert (tmp_path / "zeros" / "gone.txt").read_text() == "AU1,AU2\n0,0\n", "the AUs of the other videos"

"""The recognizer, with parts whose results can be computed by hand."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from aupair import store
from aupair.aus import AFFWILD2
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.evaluation.confidence import TERMS
from aupair.evaluation.reference import Group, Reference
from aupair.faces.decode import VideoError
from aupair.faces.row import FaceRow
from aupair.inference import recognizer as module
from aupair.inference.bundle import write_bundle
from aupair.inference.predictions import VideoPredictions, VideoScores
from aupair.inference.recognizer import Arrays, BundleRecognizer, read_selection
from aupair.mapping.columns import columns
from aupair.mapping.extractor import Extractor
from aupair.mapping.features import read_smoothed
from aupair.mapping.model import Mapping
from aupair.mapping.networks import MappingNetworks
from aupair.mapping.smoother import Noise, Uncertainty
from aupair.mapping.statistics import Statistics
from aupair.params import Params
from aupair.ranking.ensemble import load_ensemble
from aupair.ranking.scores import read_sigma
from brightness import A, make_recognizer, score_brightness
from bundle_parts import parts_of_flow


class Scorer:
    """Scores the brightness, and remembers how many images it was given at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray, quality: np.ndarray) -> Arrays:
        self.batches.append(len(images))
        assert quality.shape == (len(images), 3)
        return score_brightness(images, quality)


def recognizer(scorer: Scorer, uses: np.ndarray | None = None) -> BundleRecognizer:
    """Scale brightnesses from 0 to 2 to -1 to 1, in batches of four."""
    return make_recognizer({"extract_features": {"batch": 4, "context_points": 0}}, 2, scorer=scorer, uses=uses)


def video(values: list[int | None]) -> list[FaceRow]:
    """A frame for each value; None has no face."""
    images = [None if value is None else np.full((8, 8, 3), value, np.uint8) for value in values]
    return [FaceRow(k, k / 10, "no_face" if image is None else "ok", image) for k, image in enumerate(images)]


def predict_rows(recognizer: BundleRecognizer, rows: Iterable[FaceRow]) -> VideoPredictions:
    return recognizer.decide_video(recognizer.score_rows(rows))


def test_every_frame_has_a_row_and_no_face_has_no_numbers() -> None:
    result = predict_rows(recognizer(Scorer()), iter(video([0, None, 2, 1])))
    assert result.scores.status == ["ok", "no_face", "ok", "ok"]
    assert result.faces == 3
    np.testing.assert_allclose(result.scores.time, [0, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(result.decision[:, 0], [0, -1, 1, 0])  # y' = -1, -, 1, 0 against .5
    np.testing.assert_allclose(result.raw[:, 3], [-1, np.nan, 1, 0])
    np.testing.assert_allclose(result.scores.y_hat[:, 3], [0, np.nan, 2, 1])
    margins = np.array([1.5, np.nan, 0.5, 0.5])
    np.testing.assert_allclose(result.confidence[:, 11], 1 / (1 + np.exp(-margins)), rtol=1e-6)


def test_each_au_takes_the_mapping_that_was_chosen() -> None:
    uses = np.arange(A) % 2 == 0
    predictions = predict_rows(recognizer(Scorer(), uses), video([0, 2]))
    np.testing.assert_array_equal(predictions.decision[0], (~uses).astype(int))
    np.testing.assert_array_equal(predictions.decision[1], uses.astype(int))


@pytest.mark.parametrize("ahead", [1, 5, 32])
def test_faces_found_in_advance_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    rows = video([0, None, 2, 1, *range(3), None])
    monkeypatch.setattr("aupair.faces.video.iter_faces", lambda *_: iter(rows))
    monkeypatch.setattr(module, "_ROWS_AHEAD", ahead)
    one = recognizer(Scorer())
    monkeypatch.setattr(BundleRecognizer, "_recompress", lambda _, row: row)
    scores, expected = one.score_video(tmp_path / "clip.mp4"), one.score_rows(rows)
    assert scores.status == expected.status
    assert scores.y_hat.tobytes() == expected.y_hat.tobytes()


@pytest.mark.parametrize("error", [cv2.error("no such\nimage"), MemoryError()])
def test_a_video_at_which_a_library_fails_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def rows(source: Path, *_: object) -> Iterator[FaceRow]:
        yield from video([0, 1])
        if source.stem == "bad":
            raise error

    monkeypatch.setattr("aupair.faces.video.iter_faces", rows)
    videos = [tmp_path / name for name in ("a.mp4", "bad.mp4", "c.mp4")]
    first, bad, last = recognizer(Scorer()).score_videos(videos)
    assert isinstance(bad, VideoError)
    assert bad.status == "crashed"
    assert str(bad).startswith(f"no faces could be found: in {videos[1]}, got ")
    assert "\n" not in str(bad)
    assert isinstance(first, VideoScores)
    assert isinstance(last, VideoScores)


def test_a_video_is_compared_with_the_training_videos() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 3, (32, 32, 3)).astype(np.uint8) for _ in range(12)]
    rows = [FaceRow(k, k / 10, "ok", image, transform=np.eye(2, 3) / 2) for k, image in enumerate(images)]
    plain = recognizer(Scorer())
    assert predict_rows(plain, rows).differing is None, "a model of an older version"
    size = Group(np.log([64.0]), np.eye(1), 1.0)
    for limit, differs in ((1.0, []), (1e-9, ["face size"])):
        known = replace(plain, reference=Reference(False, {"face size": replace(size, limit=limit)}))
        result = predict_rows(known, rows)
        assert list(result.differing or ()) == differs
        described = np.isfinite(result.scores.known_appearance).all(axis=1)
        assert np.flatnonzero(described).tolist() == [0, 5, 10]
        assert "calibrated" in result.to_table()
        assert result.decision.tobytes() == predict_rows(plain, rows).decision.tobytes()


def test_a_batch_of_images_is_held_and_not_more() -> None:
    scorer = Scorer()
    alive = []

    def rows() -> object:
        for row in video([k % 3 for k in range(10)]):
            yield row
            alive.append(len(scorer.batches))

    predictions = predict_rows(recognizer(scorer), rows())
    assert scorer.batches == [4, 4, 2]
    assert alive == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2], "a batch is scored as soon as it is full"
    assert len(predictions.decision) == 10


@pytest.mark.parametrize("size", [1, 7, 100])
def test_deciding_in_pieces_changes_no_bit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(0)
    y_hat, sigma = rng.normal(size=(60, A)).astype(np.float32), rng.lognormal(size=(60, A)).astype(np.float32)
    for values in (y_hat, sigma):
        values[[0, 30, 31, *range(40, 52)]] = np.nan
    quality = rng.random((60, 3)).astype(np.float32)
    scores = VideoScores(np.arange(60) / 25, ["ok"] * 60, y_hat, sigma, quality, sigma)
    other = VideoScores(np.arange(60) / 25, ["ok"] * 60, y_hat[::-1] + 1, sigma[::-1], quality)
    one = smoothing(recognizer(Scorer(), rng.random(A) < 0.5), rng)
    for given in (None, one.smooth([scores, other])):
        whole = one.decide_video(scores, given)
        monkeypatch.setattr(module, "_PIECE", size)
        parts = one.decide_video(scores, given)
        monkeypatch.undo()
        for name in ("decision", "raw", "confidence"):
            assert getattr(parts, name).tobytes() == getattr(whole, name).tobytes()
        assert np.isfinite(whole.raw).any(axis=1).sum() == 45


def smoothing(one: BundleRecognizer, rng: np.random.Generator) -> BundleRecognizer:
    """Return the recognizer with a smoother and mappings of random weights."""
    section = one.params.extract_features.model_copy(update={"smoother": "both", "compare": ()})
    scales = {"sigma": Uncertainty(np.zeros(A), np.ones(A)), "quality": Uncertainty(np.zeros(1), np.ones(1))}
    statistics = Statistics(-np.ones(A, np.float32), np.ones(A, np.float32))
    extractor = Extractor(
        section, {"both": Noise(0.1, 2.0, (1.0,) * A)}, scales, dict.fromkeys(section.routes, statistics)
    )
    networks = {}
    for route in section.routes:
        moments = rng.random((2, A, len(columns(section, False)))).astype(np.float32) + 0.5
        networks[route] = MappingNetworks(*map(torch.from_numpy, moments), 8, 0.0, seeds=2)
    return replace(one, extractor=extractor, mapping=Mapping(networks, AFFWILD2))


def test_values_are_smoothed_by_sigma_without_the_guard() -> None:
    rng = np.random.default_rng(0)
    one = smoothing(recognizer(Scorer()), rng)
    y_hat, sigma, other = rng.normal(size=(60, A)), *rng.lognormal(size=(2, 60, A))
    time, status = np.arange(60) / 25, ["ok"] * 60
    unguarded, guarded, alone = one.smooth(
        [
            VideoScores(time, status, y_hat, sigma, unguarded=other),
            VideoScores(time, status, y_hat, other, unguarded=sigma),
            VideoScores(time, status, y_hat, other),
        ]
    )
    np.testing.assert_array_equal(unguarded.values["both"], alone.values["both"])
    assert not np.allclose(unguarded.values["both"], guarded.values["both"])


@pytest.mark.parametrize("values", [[None, None], []])
def test_a_video_without_a_face_asks_no_network(values: list[None]) -> None:
    scorer = Scorer()
    result = predict_rows(recognizer(scorer), video(list(values)))
    assert scorer.batches == []
    assert result.decision.shape == (len(values), A)
    assert (result.decision == -1).all()
    assert np.isnan(result.confidence).all()


def test_predict_gives_the_very_scores_that_evaluate_judged(finished: Path, tiny: Params, tmp_path: Path) -> None:
    """Decoding, tracking, alignment and JPEG included, to the last bit, for videos that the final networks score."""
    work = finished / "work"
    write_bundle(tmp_path / "bundle", parts_of_flow(finished, tiny), tiny)
    loaded = BundleRecognizer.load(tmp_path / "bundle", "cpu")
    frames = load_frames(work / "labels.parquet", work / "faces")
    y_hat, sigma = (
        load_ensemble(sorted((work / "f").iterdir()), len(frames), "all").y_hat,
        read_sigma(work / "h", len(frames)),
    )
    for split in ("select", "validation"):
        video = frames.video[np.argmax(frames.of_split(split))]
        of_video = frames.video == video
        predicted = loaded.predict_video(finished / "data" / "videos" / f"{frames.videos[video]}.mp4")
        scores, columns = predicted.scores, predicted.columns()
        for ending, stored in (("_smoothed", "both"), ("_smoothed_sd", "both.spread")):
            own = np.stack([columns[f"{au}{ending}"] for au in AFFWILD2], axis=1)
            np.testing.assert_array_equal(own, read_smoothed(work / "features", frames)[stored][of_video])
        assert np.isfinite(y_hat[of_video]).any()
        np.testing.assert_array_equal(scores.y_hat, y_hat[of_video])
        np.testing.assert_array_equal(scores.sigma, sigma[of_video])


def test_columns_are_five_for_each_au_in_order() -> None:
    columns = predict_rows(recognizer(Scorer()), video([0])).columns()
    expected = [
        f"{au}{end}" for au in AFFWILD2 for end in ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence")
    ]
    assert list(columns) == expected


def test_a_selection_that_lacks_an_au_is_one_line(tmp_path: Path) -> None:
    entry = {"variant": "P1", "threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.0)}
    tree = {**{au: entry for au in AFFWILD2 if au != "AU7"}, "confidence_quantiles": [0, 1]}
    store.write_json(tmp_path / "selection.json", tree)
    with pytest.raises(ArtifactError, match="AU7") as caught:
        read_selection(tmp_path / "selection.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ahead", [1, 5, 32])
def test_videos_in_turn_have_the_scores_of_each_alone_and_a_damaged_one_its_error(
    monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    rows = {"a": video([0, None, 2, 1]), "b": video([1, 2]), "c": video([2] * 40)}

    class Reader(BundleRecognizer):
        def read_faces(self, source: Path) -> Iterator[FaceRow]:
            yield from rows[source.name]
            if source.name == "b":
                raise VideoError("broken in the middle", where=source)

    monkeypatch.setattr(module, "_ROWS_AHEAD", ahead)
    reader = Reader(**vars(recognizer(Scorer())))
    first, second, third = reader.score_videos([Path("a"), Path("b"), Path("c")])
    assert isinstance(second, VideoError)
    for scores, name in ((first, "a"), (third, "c")):
        assert isinstance(scores, VideoScores)
        expected = reader.score_rows(rows[name])
        assert scores.status == expected.status
        assert scores.y_hat.tobytes() == expected.y_hat.tobytes()
    with pytest.raises(VideoError, match="broken in the middle"):
        reader.score_video(Path("b"))

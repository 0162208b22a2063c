"""The recognizer, with parts whose results can be computed by hand."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aupair import store
from aupair.aus import AUS
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.evaluation.confidence import TERMS, Confidence
from aupair.evaluation.selection import Selection
from aupair.inference import recognizer as module
from aupair.inference.bundle import Parts, write_bundle
from aupair.inference.predictions import VideoPredictions
from aupair.inference.recognizer import BundleRecognizer, read_selection
from aupair.mapping.extractor import Statistics, columns
from aupair.mapping.fit import Mapping
from aupair.mapping.networks import MappingNetworks
from aupair.params import Params, parse_params
from aupair.ranking.scores import read_sigma, read_y_hat

A = len(AUS)


@dataclass
class Row:
    frame: int
    time: float
    status: str
    image: np.ndarray | None


class Scorer:
    """y_hat is the image's mean, sigma 1; it remembers how many images it held at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(images))
        mean = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
        return np.repeat(mean[:, None], A, axis=1), np.ones((len(images), A), np.float32)


def recognizer(scorer: Scorer, uses: np.ndarray | None = None) -> BundleRecognizer:
    """The mapping with uncertainty gives y' (own value, scaled), the one without gives -y'."""
    coefficients = np.tile([0.0, 1.0, 0.0, 0.0, 0.0], (A, 1))
    chosen = np.ones(A, bool) if uses is None else uses
    statistics = Statistics(
        np.zeros(A, np.float32), np.full(A, 2, np.float32), np.ones(A, np.float32), np.zeros((A, 201), np.float32)
    )
    return BundleRecognizer(
        scorer, statistics, lambda features: (features[:, :, 0], -features[:, :, 0]),
        Selection(0, chosen, np.full(A, 0.5), Confidence(coefficients, np.linspace(0.5, 1, 101))),
        parse_params({"extract_features": {"batch": 4, "context_points": 0}}),
    )  # fmt: skip


def video(values: list[int | None]) -> list[Row]:
    """A frame for each value; None has no face."""
    images = [None if value is None else np.full((8, 8, 3), value, np.uint8) for value in values]
    return [Row(k, k / 10, "no_face" if image is None else "ok", image) for k, image in enumerate(images)]


def predict_rows(recognizer: BundleRecognizer, rows: Iterable[Row]) -> VideoPredictions:
    return recognizer.decide_video(recognizer.score_rows(rows))


def test_every_frame_has_a_row_and_no_face_has_no_numbers() -> None:
    result = predict_rows(recognizer(Scorer()), iter(video([0, None, 2, 1])))
    assert result.status == ["ok", "no_face", "ok", "ok"]
    assert result.faces == 3
    np.testing.assert_array_equal(result.frame, [0, 1, 2, 3])
    np.testing.assert_allclose(result.time, [0, 0.1, 0.2, 0.3])
    predictions = result.predictions
    np.testing.assert_array_equal(predictions.decision[:, 0], [0, -1, 1, 0])  # y' = -1, -, 1, 0 against .5
    np.testing.assert_allclose(predictions.raw[:, 3], [-1, np.nan, 1, 0])
    np.testing.assert_allclose(predictions.pseudo_intensity[:, 3], [0, np.nan, 2, 1])
    margins = np.array([1.5, np.nan, 0.5, 0.5])
    np.testing.assert_allclose(predictions.confidence[:, 11], 1 / (1 + np.exp(-margins)), rtol=1e-6)


def test_each_au_takes_the_mapping_that_was_chosen() -> None:
    uses = np.arange(A) % 2 == 0
    predictions = predict_rows(recognizer(Scorer(), uses), video([0, 2])).predictions
    np.testing.assert_array_equal(predictions.decision[0], (~uses).astype(int))
    np.testing.assert_array_equal(predictions.decision[1], uses.astype(int))


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
    assert len(predictions.frame) == 10


@pytest.mark.parametrize("size", [1, 7, 100])
def test_deciding_in_pieces_changes_no_bit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(0)
    y_hat, sigma = rng.normal(size=(60, A)).astype(np.float32), rng.lognormal(size=(60, A)).astype(np.float32)
    for values in (y_hat, sigma):
        values[[0, 30, 31, *range(40, 52)]] = np.nan
    pool = rng.normal(size=(90, A)).astype(np.float32), rng.lognormal(size=(90, A)).astype(np.float32)
    one = recognizer(Scorer(), rng.random(A) < 0.5)
    mapping = MappingNetworks(*(torch.from_numpy(a) for a in network_inputs(one, rng)), 8, 0.0)
    one = replace(one, mapping=Mapping(mapping, 8))
    for given in (None, pool):
        whole = one.decide(y_hat, sigma, np.arange(60) / 25, given)
        monkeypatch.setattr(module, "PIECE", size)
        parts = one.decide(y_hat, sigma, np.arange(60) / 25, given)
        monkeypatch.undo()
        for name in ("decision", "raw", "confidence"):
            assert getattr(parts, name).tobytes() == getattr(whole, name).tobytes()
        assert np.isfinite(whole.raw).any(axis=1).sum() == 45


def network_inputs(one: BundleRecognizer, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the plain, center and scale arrays of a mapping for its features."""
    plain = np.array([group == "plain" for _, group in columns(one.params.extract_features)])
    return [plain, *(rng.random((2, A, len(plain))).astype(np.float32) + 0.5)]


@pytest.mark.parametrize("values", [[None, None], []])
def test_a_video_without_a_face_asks_no_network(values: list[None]) -> None:
    scorer = Scorer()
    result = predict_rows(recognizer(scorer), video(list(values)))
    assert scorer.batches == []
    assert result.predictions.decision.shape == (len(values), A)
    assert (result.predictions.decision == -1).all()
    assert np.isnan(result.predictions.confidence).all()


def test_predict_gives_the_very_scores_that_evaluate_judged(finished: Path, tiny: Params, tmp_path: Path) -> None:
    """Decoding, tracking, alignment and JPEG included, to the last bit, for videos that the final networks score."""
    work = finished / "work"
    trial = work / "trials" / "1"
    parts = Parts(
        trial / "f", trial / "h", trial / "mapping", trial / "features" / "statistics.safetensors",
        work / "selection.json", work / "data.json", finished / "reports" / "metrics.json",
    )  # fmt: skip
    write_bundle(tmp_path / "bundle", parts, tiny)
    loaded = BundleRecognizer.load(tmp_path / "bundle", "cpu")
    frames = load_frames(work / "labels.parquet", work / "faces")
    y_hat, sigma = read_y_hat(trial / "f", len(frames)), read_sigma(trial / "h", len(frames))
    for split in ("select", "validation"):
        video = frames.video[np.argmax(frames.of_split(split))]
        of_video = frames.video == video
        predictions = loaded.predict_video(finished / "data" / "videos" / f"{frames.videos[video]}.mp4").predictions
        assert np.isfinite(y_hat[of_video]).any()
        np.testing.assert_array_equal(predictions.pseudo_intensity, y_hat[of_video])
        np.testing.assert_array_equal(predictions.uncertainty, sigma[of_video])


def test_columns_are_five_for_each_au_in_order() -> None:
    columns = predict_rows(recognizer(Scorer()), video([0])).predictions.columns()
    expected = [f"{au}{end}" for au in AUS for end in ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence")]
    assert list(columns) == expected


def test_a_selection_that_lacks_an_au_is_one_line(tmp_path: Path) -> None:
    entry = {"variant": "P1", "threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.0)}
    tree = {**{au: entry for au in AUS if au != "AU7"}, "trial": 0, "confidence_quantiles": [0, 1]}
    store.write_json(tmp_path / "selection.json", tree)
    with pytest.raises(ArtifactError, match="AU7") as caught:
        read_selection(tmp_path / "selection.json")
    assert "\n" not in str(caught.value)

"""f out of fold: no network scores people it was trained on, and validation has no influence on training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aupair.aus import AFFWILD2
from aupair.params import Params
from aupair.ranking.fit import forward_all
from aupair.ranking.losses import make_pair_batch
from aupair.ranking.pairs import draw_folds, draw_groups, draw_pairs
from aupair.ranking.pseudo_intensity import PseudoIntensity, _evaluate_f, train_f
from aupair.ranking.samples import TrainingSet
from aupair.ranking.sampling import GroupSampler, ListSampler
from aupair.training_params import Optimiser, RankPairs
from frame_sets import make_frames
from training_sets import NARROW, SIZE, SPLIT, Faces, RecordingTrainingSet, draw_fixed_pairs, same_weights

LENGTH, CPU = 10, torch.device("cpu")
SUBJECTS = (0, 0, 1, 2, 3, 4, 5, 6)  # of each video
PARAMS = Params.model_validate(
    {
        "train_pseudo_intensity": {
            "network": NARROW,
            "optimiser": {
                "name": "adamw", "learning_rate": 1e-3, "steps": 4, "fold_steps": 3, "batch": 10,
                "evaluate_every": 2,
            },
        }
    }
)  # fmt: skip


def random_faces(count: int) -> Faces:
    return Faces(np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)))


def make_data(folds: int = 2, mode: str = "groups", **changes: Any) -> RecordingTrainingSet:
    n = len(SUBJECTS) * LENGTH
    labels = (np.random.default_rng(0).random((n, 12)) < 0.4).astype(np.int8)
    frames = make_frames(SPLIT, labels, SUBJECTS, np.arange(n) % 7 != 0)
    groups = draw_groups(frames, 4, 3, (0, 1)) if mode == "groups" else None
    values: dict[str, Any] = {
        "frames": frames, "images": random_faces(n), "groups": groups, "pairs": draw_fixed_pairs(frames, 6),
        "folds": draw_folds(frames, folds, (0, 3)),
    }  # fmt: skip
    return RecordingTrainingSet(**{**values, **changes})


@pytest.fixture(scope="module")
def crossed() -> tuple[RecordingTrainingSet, PseudoIntensity]:
    data = make_data()
    return data, train_f(data, PARAMS, 0)


@pytest.mark.parametrize("mode", ["groups", "reference"])
def test_no_batch_holds_a_held_out_person_or_another_split(mode: str) -> None:
    data = make_data(mode=mode)
    result = train_f(data, PARAMS, 0)
    assert list(result.models) == ["final", "fold0", "fold1"]
    assert [len(batches) for batches in data.batches] == [4, 3, 3]
    frames = data.frames
    for name, batches in zip(result.models, data.batches):
        rows = np.concatenate(batches)
        assert frames.of_split("fit")[rows].all()
        assert frames.usable[rows].all()
        scored = data.scoring_mask(name)
        people = set(frames.subject[rows].tolist())
        assert people.isdisjoint(frames.subject[scored].tolist())  # it never saw anyone whose y_hat it gives
        assert (data.training_masks()[name][rows]).all()


def test_a_frame_of_fit_is_scored_by_one_network_and_any_other_by_all(
    crossed: tuple[RecordingTrainingSet, PseudoIntensity],
) -> None:
    data, result = crossed
    times = sum(data.scoring_mask(name).astype(int) for name in result.models)
    np.testing.assert_array_equal(times, np.where(data.frames.of_split("fit"), 1, len(result.models)))
    for name, y_hat in result.y_hat.items():
        scored = data.scoring_mask(name) & data.frames.ok
        np.testing.assert_array_equal(np.isfinite(y_hat), np.broadcast_to(scored[:, None], y_hat.shape))
        assert y_hat.dtype == np.float32


def test_y_hat_is_the_output_of_the_right_network(crossed: tuple[RecordingTrainingSet, PseudoIntensity]) -> None:
    data, result = crossed
    for name, model in result.models.items():
        rows = np.flatnonzero(data.scoring_mask(name) & data.frames.ok)
        outputs = forward_all(model, data.images, rows, CPU)
        np.testing.assert_array_equal(result.y_hat[name][rows], (outputs - result.center[name]) / result.scale[name])


def test_standardised_on_unseen_frames_and_never_on_validation(
    crossed: tuple[RecordingTrainingSet, PseudoIntensity],
) -> None:
    data, result = crossed
    frames = data.frames
    for name in result.models:
        judged = data.scoring_mask(name) & frames.of_split("select" if name == "final" else "fit")
        y = result.y_hat[name][judged & frames.ok]
        np.testing.assert_allclose(np.median(y, axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("folds", [1, 2])
def test_validation_faces_leave_no_trace(folds: int) -> None:
    data = make_data(folds)
    hidden = data.frames.of_split("validation")
    altered = random_faces(len(data.frames))
    altered.pixels[hidden] = 255 - altered.pixels[hidden]
    one, other = train_f(data, PARAMS, 0), train_f(replace(make_data(folds), images=altered), PARAMS, 0)
    for name, model in one.models.items():
        assert same_weights(model, other.models[name])
        np.testing.assert_array_equal(one.center[name], other.center[name])
        np.testing.assert_array_equal(one.scale[name], other.scale[name])
        y, altered_y = one.y_hat[name], other.y_hat[name]
        np.testing.assert_array_equal(y[~hidden], altered_y[~hidden])
        assert not np.allclose(y[hidden & data.frames.ok], altered_y[hidden & data.frames.ok])
    assert one.curves == other.curves


def test_without_cross_fitting_one_network_scores_all() -> None:
    data = make_data(folds=1)
    result = train_f(data, PARAMS, 0)
    assert list(result.models) == ["final"]
    y_hat = result.y_hat["final"]
    assert (np.isnan(y_hat[:, 0]) == ~data.frames.ok).all()
    select = y_hat[data.frames.of_split("select") & data.frames.ok]
    np.testing.assert_allclose(np.median(select, axis=0), 0, atol=1e-5)


def test_curves_name_their_network(crossed: tuple[RecordingTrainingSet, PseudoIntensity]) -> None:
    _, result = crossed
    assert [(row["network"], row["step"]) for row in result.curves] == [
        ("f.final", 2), ("f.final", 4), ("f.fold0", 2), ("f.fold0", 3), ("f.fold1", 2), ("f.fold1", 3),
    ]  # fmt: skip
    assert {"train_loss", "loss", "pair_accuracy"} <= result.curves[0].keys()


def test_trials_differ_and_repeat(crossed: tuple[RecordingTrainingSet, PseudoIntensity]) -> None:
    _, result = crossed
    again, other = (train_f(make_data(), PARAMS, seed) for seed in (0, 1))
    for name, y_hat in result.y_hat.items():
        np.testing.assert_array_equal(again.y_hat[name], y_hat)
        assert not np.allclose(other.y_hat[name], y_hat, equal_nan=True)


def test_a_person_without_annotations_is_scored_too() -> None:
    data = make_data()
    labels = data.frames.labels.copy()
    labels[data.frames.subject == 3] = -1
    frames = replace(data.frames, labels=labels)
    folds = draw_folds(frames, 2, (0, 3))
    groups = draw_groups(frames, 4, 3, (0, 1))
    pairs = {**data.pairs, "fit": draw_pairs(frames, "fit", 6, (0, 2, 0))}
    result = train_f(replace(data, frames=frames, folds=folds, groups=groups, pairs=pairs), PARAMS, 0)
    scored = np.any([np.isfinite(y_hat[:, 0]) for y_hat in result.y_hat.values()], axis=0)
    np.testing.assert_array_equal(scored, frames.ok)


def test_sampler_by_mode_takes_its_own_batch_size() -> None:
    optimiser = Optimiser(batch=14)
    trained = make_data().frames.of_split("fit")
    groups = TrainingSet.sampler(make_data(), trained, optimiser, (0,))
    assert isinstance(groups, GroupSampler)
    assert len(groups(0)[0]) == 3 * 4
    pairs = TrainingSet.sampler(make_data(mode="reference"), trained, optimiser, (0,))
    assert isinstance(pairs, ListSampler)
    assert len(pairs(0)[1]) == 7


def test_evaluation_on_select_equals_a_loop(crossed: tuple[RecordingTrainingSet, PseudoIntensity]) -> None:
    data, result = crossed
    model, pairs = result.models["final"], data.pairs["select"]
    out = np.full((len(data.frames), len(AFFWILD2)), np.nan, np.float32)
    rows = np.flatnonzero(data.frames.ok)
    out[rows] = forward_all(model, data.images, rows, CPU)
    losses, right = [], []
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        d = float(r) * float(out[i, au] - out[j, au])
        losses.append(max(0.0, 0.8 - d))
        right.append(1.0 if d > 0 else 0.5 if d == 0 else 0.0)
    got = _evaluate_f(model, data, data.pairs["select"], RankPairs(margin=0.8, device="cpu"))
    assert got["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert got["pair_accuracy"] == pytest.approx(np.mean(right), rel=1e-5)


def test_make_pair_batch_names_each_row_once() -> None:
    pairs = make_data().pairs["fit"]
    rows, batch = make_pair_batch(pairs)
    assert (np.diff(rows) > 0).all()
    assert (rows[batch.i.numpy()] == pairs.i).all()
    assert (rows[batch.j.numpy()] == pairs.j).all()
    assert float(batch.weight.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "mirror"), [("AU12", True), ("AU12L", False)])
def test_faces_are_mirrored_unless_an_au_belongs_to_one_side(
    monkeypatch: pytest.MonkeyPatch, name: str, mirror: bool
) -> None:
    data, seen = make_data(folds=1), []
    aus = tuple(name if au == "AU12" else au for au in data.frames.aus)
    monkeypatch.setattr(
        "aupair.ranking.fit.augment", lambda x, _strength, _generator, mirrored, _part: (seen.append(mirrored), x)[1]
    )
    train_f(replace(data, frames=replace(data.frames, aus=aus)), PARAMS, 0)
    assert bool(torch.cat(seen).any()) == mirror


def test_the_pairs_that_judge_a_network_are_of_people_it_never_saw() -> None:
    data = make_data()
    for name, trained in data.training_masks().items():
        pairs = data.held_out_pairs(name)
        judges, trained_on = (set(data.frames.subject[rows].tolist()) for rows in (pairs.i, trained))
        assert judges
        assert judges.isdisjoint(trained_on)
        assert (data.frames.of_split("select" if name == "final" else "fit")[pairs.i]).all()


def test_a_long_list_of_pairs_is_judged_by_a_share_of_it() -> None:
    data = make_data(mode="reference")
    long = draw_pairs(data.frames, "fit", 500, (0, 0))
    data = replace(data, pairs=data.pairs | {"fit": long})
    pairs = data.held_out_pairs("fold0")
    assert len(data.pairs["select"]) <= len(pairs) < 2 * len(data.pairs["select"])
    assert set(pairs.au.tolist()) == set(long[data.scoring_mask("fold0")[long.i]].au.tolist())

"""Distillation: student and teacher see the same image, a fold's student has a fold's teacher, no label is used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, ParamsError
from aupair.params import Params, parse_params
from aupair.ranking.distill import OFFSET, StudentWithTeacher, distillation_loss
from aupair.ranking.ensemble import Member, load_ensemble
from aupair.ranking.losses import make_pair_batch
from aupair.ranking.networks import FLOOR, build_network
from aupair.ranking.pseudo_intensity import _evaluate_f, train_f
from aupair.ranking.samples import TrainingSet
from aupair.ranking.scores import load_f, read_sigma, save_f, save_h
from aupair.ranking.sigma import MemberScorer, load_sigma_model
from aupair.ranking.teacher import load_teacher
from aupair.ranking.uncertainty import train_h
from aupair.training_params import IntegratedNetwork
from training_sets import LENGTH, NARROW, SIZE, Faces, small_training_set

NETWORK = {**NARROW, "dropout": 0.0}
STUDENT = IntegratedNetwork(**NETWORK)


def make_faces(count: int) -> Faces:
    """Return noisy faces, each of another brightness."""
    rng = np.random.default_rng(1)
    noise = rng.integers(-20, 20, (count, SIZE, SIZE, 3))
    return Faces(rng.integers(30, 220, (count, 1, 1, 1)) + noise)


class Brightness(nn.Module):
    """A teacher whose y_hat of each AU is the brightness, and log sigma its negative half; it records its images."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[torch.Tensor] = []
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(images)
        self.norm(images)  # alters its statistics unless it is in eval mode
        light = (images.mean(dim=(1, 2, 3))[:, None] - 125) / 55
        return torch.cat([light.expand(-1, 12), -0.5 * light.expand(-1, 12)], dim=1)


def make_data(folds: int = 2) -> TrainingSet:
    return small_training_set(lambda labels: make_faces(len(labels)), folds=folds)


def make_params(steps: int = 3, objective: str = "distill", h: str = "integrated", **changes: Any) -> Params:
    sharing = "integrated" if h == "integrated" else "shared"
    optimiser = {
        "name": "adamw", "learning_rate": 5e-3, "steps": steps, "fold_steps": 2, "batch": 18, "evaluate_every": steps,
        "keep": "last",
    }  # fmt: skip
    f = {"network": NETWORK | {"sharing": sharing}, "optimiser": optimiser, "augment": 0.0, "device": "cpu"}
    own: dict[str, Any] = {"kind": h, "device": "cpu"}
    if h == "network":
        own |= {"network": NARROW, "optimiser": optimiser}
    if h == "factors":
        own |= {"factors": 4, "inner_folds": 2, "priors": [1.0]}
    return parse_params({"train_pseudo_intensity": f | {"objective": objective} | changes, "train_uncertainty": own})


def test_distillation_loss_equals_a_plain_python_loop() -> None:
    outputs, video = np.random.default_rng(0).normal(size=(5, 48)), np.array([7, 3, 7, 7, 3])
    total = 0.0
    for n, row in enumerate(outputs):
        for a in range(12):
            shared = np.mean([outputs[m, a] - outputs[m, 24 + a] for m in range(5) if video[m] == video[n]])
            value, raw, y_hat, log_sigma = (row[k * 12 + a] for k in range(4))
            sigma = FLOOR + np.log1p(np.exp(raw + 0.54))
            total += (value - y_hat - shared) ** 2 + OFFSET * shared**2 + 0.3 * (np.log(sigma) - log_sigma) ** 2
    got = distillation_loss(torch.from_numpy(outputs), torch.from_numpy(video), 0.3)
    assert float(got) == pytest.approx(total / (5 * 12), rel=1e-5)


def test_both_see_one_image_and_only_the_student_is_fitted() -> None:
    student, teacher = build_network(STUDENT, SIZE, 0, 12), Brightness()
    both = StudentWithTeacher(student, teacher).train()
    images = torch.rand(4, 3, SIZE, SIZE) * 255
    outputs = both(images)
    assert outputs.shape == (4, 48)
    assert teacher.images[0] is images
    torch.testing.assert_close(outputs[:, 24:], Brightness()(images))
    assert int(teacher.norm.num_batches_tracked) == 0, "the teacher is in eval mode while the student trains"
    distillation_loss(outputs, torch.tensor([0, 0, 1, 1]), 1.0).backward()
    assert student.heads()[0].weight.grad is not None
    assert all(key.startswith("student.") for key in both.state_dict()), "a checkpoint holds no teacher"
    assert both.eval()(images).shape == (4, 24)
    assert len(teacher.images) == 1, "in eval mode the student runs alone"


def test_a_student_learns_its_teachers_outputs() -> None:
    data = make_data(folds=1)
    result = train_f(data, make_params(steps=60), 0, teachers=lambda name: Brightness())
    scored = data.frames.ok & data.frames.of_split("validation")
    light = data.images(np.flatnonzero(scored)).mean(axis=(1, 2, 3))
    assert min(np.corrcoef(result.y_hat["final"][scored, a], light)[0, 1] for a in range(12)) > 0.9
    assert result.curves[-1]["loss"] < 0.5


def test_no_label_is_learned_from() -> None:
    data = make_data()
    other = replace(data, frames=replace(data.frames, labels=1 - data.frames.labels))
    first, second = (train_f(one, make_params(), 0, teachers=lambda name: Brightness()) for one in (data, other))
    for name, y_hat in first.y_hat.items():
        np.testing.assert_array_equal(y_hat, second.y_hat[name])


def test_each_network_learns_from_its_own_teacher_on_the_frames_it_may_see() -> None:
    data = make_data()
    teachers = {name: Brightness() for name in data.training_masks()}
    train_f(data, make_params(), 0, teachers=teachers.__getitem__)
    faces = [face.tobytes() for face in data.images(np.arange(len(data.frames)))]
    for name, may_see in data.training_masks().items():
        seen = {
            image.permute(1, 2, 0).to(torch.uint8).numpy().tobytes()
            for batch in teachers[name].images
            for image in batch
        }
        rows = np.flatnonzero([face in seen for face in faces])
        judges = data.held_out_pairs(name)
        judged_on = np.isin(np.arange(len(data.frames)), np.concatenate([judges.i, judges.j]))
        assert (may_see | judged_on)[rows].all(), "people who are held out are used for evaluation, not for training"
        assert (data.frames.ok & may_see)[rows].sum() > LENGTH
        assert data.frames.ok[rows].all()


def test_evaluation_on_select_compares_with_the_teacher() -> None:
    data, params = make_data(), make_params().train_pseudo_intensity
    student = build_network(STUDENT, SIZE, 0, 12).eval()
    rows, batch = make_pair_batch(data.pairs["select"])
    images = torch.from_numpy(data.images(rows)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        outputs, targets = student(images), Brightness()(images)
    figures = _evaluate_f(student, data, data.pairs["select"], params, targets)
    expected = distillation_loss(
        torch.cat([outputs, targets], 1), torch.from_numpy(data.frames.video[rows]), params.network.uncertainty_weight
    )
    assert figures["loss"] == pytest.approx(float(expected), rel=1e-4)
    d = batch.difference(outputs[:, :12])
    assert figures["pair_accuracy"] == pytest.approx(float((d > 0).float().mean()), abs=1e-3)


@pytest.mark.parametrize("kind", ["network", "factors", "integrated"])
def test_a_teacher_returns_the_scores_that_its_run_wrote(kind: str, tmp_path: Path) -> None:
    data, params, folder = make_data(), make_params(objective="pairs", h=kind), tmp_path / "f" / "0"
    save_f(folder, train_f(data, params, 0), params, SIZE, AFFWILD2)
    ensemble = load_ensemble([folder], len(data.frames), "all")
    unknown = np.full((len(data.frames), 3), np.nan, np.float32)
    h = train_h(data, ensemble, unknown, lambda member: load_f(folder, member.name), params, 0)
    save_h(tmp_path / "h", h, params, SIZE, AFFWILD2)
    sigma, fit = read_sigma(tmp_path / "h", len(data.frames)), data.frames.of_split("fit")
    for name, trained in data.training_masks().items():
        rows = np.flatnonzero((~fit if name == "final" else fit & ~trained) & data.frames.ok)
        images = torch.from_numpy(data.images(rows)).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            outputs = load_teacher(tmp_path, SIZE, name).eval()(images).numpy()
        np.testing.assert_allclose(outputs[:, :12], ensemble.y_hat[rows], atol=1e-3)
        if kind != "factors" or name == "final":
            np.testing.assert_allclose(outputs[:, 12:], np.log(sigma[rows]), atol=1e-3)
        else:  # readers that learned from people of the fold score it, and those of the other fold teach it
            other = {"fold0": "fold1", "fold1": "fold0"}[name]
            reader, guard = load_sigma_model(tmp_path / "h").readers[Member(0, other)], h.model.guard
            scorer = MemberScorer(load_f(folder, other)[0], reader).eval()
            with torch.no_grad():
                log_sigma = scorer(images)[:, 12:].numpy()
            assert guard is not None
            np.testing.assert_allclose(outputs[:, 12:], np.maximum(guard.apply(log_sigma), np.log(0.05)), atol=1e-3)
    with pytest.raises(ArtifactError, match="teacher was trained on faces of another size") as caught:
        load_teacher(tmp_path, 64, "final")
    assert "got 32, expected 64" in str(caught.value)


def test_without_a_teacher_training_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"objective: distill needs a teacher, got none.*aupair distill"):
        train_f(make_data(), make_params(), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_pseudo_intensity": {"objective": "distill", "network": {"sharing": "shared"}}},
            r"train_pseudo_intensity\.network\.sharing.*got 'shared', expected 'integrated'",
        ),
        (
            {"train_pseudo_intensity": {"objective": "distill"}, "train_uncertainty": {}},
            "`integrated` in both",
        ),
        ({"train_pseudo_intensity": {"network": {"shrink": 8}}}, "at least 32 pixels .* after shrink"),
        ({"train_uncertainty": {"network": {"shrink": 8}}}, "at least 32 pixels .* after shrink"),
        ({"train_pseudo_intensity": {"network": {"shrink": 0}}}, "shrink"),
    ],
)
def test_params_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_params(changes)

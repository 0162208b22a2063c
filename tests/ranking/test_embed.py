"""Frozen trunks: features once for each face, whatever the batch; heads on them, as by a plain loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError, ParamsError
from aupair.evaluation.cost import cost_of
from aupair.params import Params, load_params, parse_params
from aupair.ranking import embed as module
from aupair.ranking.checkpoint import Checkpoints
from aupair.ranking.embed import embed
from aupair.ranking.embeddings import TRUNK, Embeddings
from aupair.ranking.ensemble import Ensemble, Member
from aupair.ranking.fit import CHUNK
from aupair.ranking.images import FaceImages
from aupair.ranking.networks import AUNetwork, build_network
from aupair.ranking.pairs import draw_folds, draw_groups
from aupair.ranking.pseudo_intensity import train_f
from aupair.ranking.scores import Scorer, load_f, save_f, save_h
from aupair.ranking.sigma import write_state
from aupair.ranking.teacher import load_teacher
from aupair.ranking.trunks import load_trunk
from aupair.ranking.uncertainty import train_h
from conftest import contents, files_below
from face_files import write_faces
from frame_sets import make_frames
from training_sets import NARROW, SIZE, SPLIT, RecordingTrainingSet, draw_fixed_pairs, same_weights

LENGTH, CPU = 11, torch.device("cpu")
OPTIMISER = {"name": "adamw", "learning_rate": 3e-3, "steps": 5, "fold_steps": 4, "batch": 12, "evaluate_every": 2}
FACTORY = """
import torch
from torch import nn
def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 9, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def settings(copies: int = 0, h: Any = None, precision: str = "float32", **network: Any) -> Params:
    network = {**NARROW, "dropout": 0.0, "frozen": True, **network}
    if network.get("kind", "vgg16") != "vgg16":
        network = {key: value for key, value in network.items() if key not in NARROW or key == "weights"}
    tree = {
        "embed_faces": {"copies": copies, "device": "cpu"},
        "train_pseudo_intensity": {
            "network": network,
            "optimiser": OPTIMISER,
            "device": "cpu",
            "precision": precision,
        },
        "train_uncertainty": h or {"kind": "factors", "factors": 5, "device": "cpu"},
    }
    return parse_params(tree)


def make_frames_of_faces() -> Frames:
    n = len(SPLIT) * LENGTH
    labels = (np.random.default_rng(0).random((n, 12)) < 0.4).astype(np.int8)
    ok = np.arange(n) % 7 != 0
    ok[5 * LENGTH : 6 * LENGTH] = False  # a video without any face
    return make_frames(SPLIT, labels, ok=ok)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Frames]:
    folder, frames, rng = tmp_path_factory.mktemp("faces"), make_frames_of_faces(), np.random.default_rng(1)
    for video, rows in zip(frames.videos, frames.slices()):
        pixels = [rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for _ in range(LENGTH)]
        jpegs = [store.encode_jpeg(image) if ok else b"" for image, ok in zip(pixels, frames.ok[rows])]
        write_faces(folder / f"{video}.arrow", jpegs)
    return folder, frames


def make_data(images: FaceImages | Embeddings, frames: Frames) -> RecordingTrainingSet:
    groups = draw_groups(frames, 4, 3, (0, 1))
    return RecordingTrainingSet(frames, images, groups, draw_fixed_pairs(frames, 6), draw_folds(frames, 2, (0, 3)))


@pytest.mark.parametrize("kind", ["vgg16", "mobile_of_mine:build"])
def test_features_are_those_of_each_face_alone_in_half_precision(
    faces: tuple[Path, Frames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "mobile_of_mine.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, frames = faces
    embed(folder, tmp_path / "e", frames, settings(kind=kind))
    embeddings, trunk = Embeddings(tmp_path / "e", frames), load_trunk(tmp_path / "e" / TRUNK)
    images, rows = FaceImages(folder, frames), np.flatnonzero(frames.ok)
    alone = np.concatenate([trunk(torch.from_numpy(images(rows[[k]])).permute(0, 3, 1, 2)) for k in range(len(rows))])
    got = embeddings(rows)
    assert got.dtype == np.float32
    assert (got == got.astype(np.float16)).all()
    np.testing.assert_allclose(got, alone, rtol=2e-3, atol=2e-3)
    assert got.std(axis=0).max() > 0
    assert (embeddings(rows[::-1]) == got[::-1]).all()
    assert embeddings.size == SIZE


def test_features_depend_on_neither_threads_nor_order_and_stay_when_nothing_changed(
    faces: tuple[Path, Frames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "one", frames, settings(copies=2))
    before = files_below(tmp_path / "one")
    monkeypatch.setattr("aupair.ranking.images.count_cores", lambda: 5)
    embed(folder, tmp_path / "two", frames, settings(copies=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    head = settings(copies=2)
    optimiser = head.train_pseudo_intensity.optimiser.model_copy(update={"learning_rate": 1.0})
    section = head.train_pseudo_intensity.model_copy(update={"optimiser": optimiser})
    embed(folder, tmp_path / "one", frames, head.model_copy(update={"train_pseudo_intensity": section}))
    after = files_below(tmp_path / "one")
    assert {name: after[name] for name in after if name.endswith(".npy")} == {
        name: before[name] for name in before if name.endswith(".npy")
    }


def test_a_killed_stage_continues_with_the_videos_that_are_missing(
    faces: tuple[Path, Frames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "whole", frames, settings())
    written: list[str] = []
    from aupair.ranking import embed as module

    write = module._write_features

    def killed(path: Path, *args: Any) -> None:
        if len(written) == 3:
            (path.parent / f".{path.name}.abcdefgh.tmp").mkdir()  # as store.atomic leaves it when it is killed
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, *args)

    monkeypatch.setattr(module, "_write_features", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(folder, tmp_path / "e", frames, settings())
    with pytest.raises(ArtifactError, match=r"missing file"):
        Embeddings(tmp_path / "e", frames)
    kept = files_below(tmp_path / "e")
    monkeypatch.setattr(module, "_write_features", write)
    embed(folder, tmp_path / "e", frames, settings())
    assert contents(tmp_path / "e") == contents(tmp_path / "whole")
    assert all(files_below(tmp_path / "e")[name] == kept[name] for name in written)


def test_other_weights_faces_or_copies_are_computed_again_and_an_unfrozen_trunk_leaves_nothing(
    faces: tuple[Path, Frames], tmp_path: Path
) -> None:
    folder, frames = faces
    other = build_network(settings(frozen=False).train_pseudo_intensity.network, SIZE, 5, 12)
    write_state(tmp_path / "f.safetensors", other)
    seen = set()
    for params in (settings(), settings(copies=1), settings(weights=str(tmp_path / "f.safetensors"))):
        embed(folder, tmp_path / "e", frames, params)
        names = {path.name for path in (tmp_path / "e").glob("*.npy")}
        assert len(names) == len(frames.videos) - 1, "one video has no face"
        assert params.embed_faces.copies or names.isdisjoint(seen)
        seen |= names
    state = load_trunk(tmp_path / "e" / TRUNK).network.state_dict()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items()), (
        "the trunk of an earlier f"
    )
    embed(folder, tmp_path / "e", frames, settings(frozen=False))
    assert list(contents(tmp_path / "e")) == ["about.json"]


def test_a_copy_is_augmented_mirrors_a_video_as_a_whole_and_belongs_to_fit(
    faces: tuple[Path, Frames], tmp_path: Path
) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "e", frames, settings(copies=3))
    embeddings, n = Embeddings(tmp_path / "e", frames), len(frames)
    rows = np.flatnonzero(frames.ok & frames.of_split("fit"))
    plain, copies = embeddings(rows), [embeddings(rows + k * n) for k in (1, 2, 3)]
    assert all(np.abs(copy - plain).max() > 0.01 for copy in copies)
    assert np.abs(copies[0] - copies[1]).max() > 0.01
    shapes = {int(np.load(path).shape[0]) for path in (tmp_path / "e").glob("*.npy")}
    assert shapes == {1, 4}
    drawn = [embeddings.draw_copies(rows, step, 7) for step in range(40)]
    for chosen in drawn:
        copy, row = np.divmod(chosen, n)
        assert (row == rows).all()
        assert all(len(set(copy[frames.video[rows] == v])) == 1 for v in set(frames.video[rows]))
    assert {int(k) for chosen in drawn for k in chosen // n} == {0, 1, 2, 3}
    assert (embeddings.draw_copies(rows, 4, 7) == drawn[4]).all()


def test_a_head_on_frozen_random_features_is_trained_as_by_a_plain_loop(
    faces: tuple[Path, Frames], tmp_path: Path
) -> None:
    folder, frames = faces
    params = settings(copies=1)
    embed(folder, tmp_path / "e", frames, params)
    embeddings = Embeddings(tmp_path / "e", frames)
    data = make_data(embeddings, frames)
    params = params.model_copy(
        update={
            "train_pseudo_intensity": params.train_pseudo_intensity.model_copy(
                update={"optimiser": params.train_pseudo_intensity.optimiser.model_copy(update={"keep": "last"})}
            )
        }
    )
    trained = train_f(data, params, 4).models["final"]

    head = build_network(params.train_pseudo_intensity.network, embeddings.features, 4000, 12).networks[0]
    assert [type(layer) for layer in head].count(nn.Linear) == 3, "VGG16's own classifier"
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.0)
    for step, rows in enumerate(data.batches[0]):
        x = torch.from_numpy(embeddings(embeddings.draw_copies(rows, step, 4000)))
        y, total, count = head(x), torch.zeros(()), 0
        losses: dict[tuple[int, int], list[torch.Tensor]] = {}
        for i, a in enumerate(rows):
            for j, b in enumerate(rows[:i]):
                for au in range(12):
                    difference = int(frames.labels[a, au]) - int(frames.labels[b, au])
                    if frames.video[a] == frames.video[b] and difference:
                        d = np.sign(difference) * (y[i, au] - y[j, au])
                        losses.setdefault((int(frames.video[a]), au), []).append(torch.relu(1 - d))
        for cell in losses.values():
            total, count = total + torch.stack(cell).mean(), count + 1
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    for name, value in head.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[f"networks.0.{name}"], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("sharing", "h"),
    [
        ("shared", {"kind": "factors", "factors": 5}),
        ("shared", {"kind": "network", "network": {**NARROW, "frozen": True}, "optimiser": OPTIMISER}),
        ("per_au", {"kind": "factors", "factors": 5}),
        ("integrated", {"kind": "integrated"}),
    ],
)
def test_a_bundles_scorer_sees_each_face_once_and_repeats_the_scores_of_training(
    faces: tuple[Path, Frames], tmp_path: Path, sharing: str, h: dict[str, Any]
) -> None:
    folder, frames = faces
    params = settings(h=h | {"device": "cpu"}, sharing=sharing)
    embed(folder, tmp_path / "embeddings", frames, params)
    data = make_data(Embeddings(tmp_path / "embeddings", frames), frames)
    f = train_f(data, params, 0)
    save_f(tmp_path / "f" / "0", f, params, SIZE, frames.aus)
    members = (Member(0, "final"), Member(0, "fold0"), Member(0, "fold1"))
    stack = np.stack([f.y_hat[name] for _, name in members])
    known = ~np.isnan(stack)
    y_hat = (np.where(known, stack, 0).sum(0, dtype=np.float64) / np.maximum(known.sum(0), 1)).astype(np.float32)
    y_hat[~frames.ok] = np.nan
    quality = np.zeros((len(frames), 3), np.float32)
    ensemble = Ensemble((0,), members, y_hat, None)
    trained = train_h(data, ensemble, quality, lambda m: load_f(tmp_path / "f" / "0", m.name), params, 0)
    save_h(tmp_path / "h", trained, params, SIZE, frames.aus)

    scorer = Scorer([tmp_path / "f" / "0"], tmp_path / "h", members, "cpu", tmp_path / "embeddings" / TRUNK)
    passes: list[int] = []
    assert scorer._trunk is not None
    scorer._trunk.register_forward_hook(lambda *_: passes.append(1))
    rows = np.flatnonzero(frames.ok & ~frames.of_split("fit"))
    scores = scorer(FaceImages(folder, frames)(rows), quality[rows])
    assert len(passes) == -(-len(rows) // CHUNK), (len(rows), "once for a chunk, whatever the number of networks")
    np.testing.assert_allclose(scores.y_hat, y_hat[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores.sigma, trained.sigma[rows], rtol=1e-4)
    assert trained.unguarded[frames.ok].std() > 0 or h["kind"] == "network"
    assert sum(path.stat().st_size for path in (tmp_path / "f" / "0").glob("*.safetensors")) > 0
    state = load_f(tmp_path / "f" / "0")[0].state_dict()
    assert not any(value.ndim == 4 for value in state.values()), "no trunk in the files of f"
    images = torch.from_numpy(FaceImages(folder, frames)(rows)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        outputs = load_teacher(tmp_path, SIZE, "final")(images)
    np.testing.assert_allclose(outputs[:, :12], y_hat[rows], rtol=1e-4, atol=1e-4)
    assert np.isfinite(outputs.numpy()).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_faces": {"copies": 2}}, "embed_faces.copies: 0 unless"),
        (
            {
                "train_pseudo_intensity": {
                    "objective": "distill",
                    "network": {**NARROW, "sharing": "integrated", "frozen": True},
                }
            },
            "network.frozen: false together with objective: distill",
        ),
        (
            {"train_uncertainty": {"kind": "network", "network": {"kind": "resnet50", "frozen": True}}},
            "train_uncertainty.network with frozen: true has the kind and the weights of f's network",
        ),
        (
            {"train_pseudo_intensity": {"network": {"kind": "resnet50", "frozen": True, "trained_blocks": 1}}},
            "network: in params, got frozen: True, trained_blocks: 1, expected trained_blocks: null together with frozen: true",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    sections = {"train_pseudo_intensity": {"network": NARROW}, "train_uncertainty": {"kind": "factors"}}
    with pytest.raises(ParamsError, match=message):
        parse_params(sections | change)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_training_of_a_head_continues_with_the_same_copies(
    faces: tuple[Path, Frames], tmp_path: Path, precision: str
) -> None:
    folder, frames = faces
    params = settings(copies=1, precision=precision)
    embed(folder, tmp_path / "e", frames, params)
    data = make_data(Embeddings(tmp_path / "e", frames), frames)
    whole = train_f(data, params, 0)
    calls: list[int] = []

    def breaks(rows: np.ndarray, step: int, seed: int) -> np.ndarray:
        calls.append(step)
        if step == 4:
            raise InterruptedError
        return data.images.draw_copies(rows, step, seed)

    broken = make_data(Embeddings(tmp_path / "e", frames), frames)
    object.__setattr__(broken, "augmentation", lambda strength: {"draw": breaks})
    with pytest.raises(InterruptedError):
        train_f(broken, params, 0, checkpoints=Checkpoints(tmp_path / "c", "key"))
    again = train_f(data, params, 0, checkpoints=Checkpoints(tmp_path / "c", "key"))
    assert calls == [0, 1, 2, 3, 4]
    assert all(same_weights(again.models[name], model) for name, model in whole.models.items())


def test_processes_that_share_a_batch_see_the_same_copies(faces: tuple[Path, Frames], tmp_path: Path) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "e", frames, settings(copies=2))
    embeddings = Embeddings(tmp_path / "e", frames)
    rows = np.flatnonzero(frames.ok & frames.of_split("fit"))[:20]
    parts = [embeddings.draw_copies(part, 3, 5) for part in (rows[:7], rows[7:])]
    assert (np.concatenate(parts) == embeddings.draw_copies(rows, 3, 5)).all()


def test_features_of_other_faces_get_one_line(faces: tuple[Path, Frames], tmp_path: Path) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "e", frames, settings())
    fewer = replace(frames, ok=frames.ok & (np.arange(len(frames)) != 1))
    with pytest.raises(
        ArtifactError, match=r"features of other faces: in .*v0.*\.npy, got 9, expected 8; delete it and run embed"
    ):
        Embeddings(tmp_path / "e", fewer)
    path = next((tmp_path / "e").glob("v1.*.npy"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ArtifactError, match=r"features cannot be read: in .*v1.*\.npy"):
        Embeddings(tmp_path / "e", frames)
    embed(folder, tmp_path / "e", frames, settings())
    assert Embeddings(tmp_path / "e", frames)(np.flatnonzero(frames.ok)).std() > 0, "a damaged file is computed again"


def test_features_that_are_the_same_for_all_faces_are_refused(
    faces: tuple[Path, Frames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, frames = faces
    forward = module.forward_in_chunks
    monkeypatch.setattr(module, "forward_in_chunks", lambda *inputs: 1e-9 * forward(*inputs))
    expected = r"^the features of all faces are the same: in .*, got only zeros; use pretrained weights for the trunk"
    with pytest.raises(ArtifactError, match=expected):
        embed(folder, tmp_path / "e", frames, settings())


def test_weights_that_do_not_fit_leave_the_features_as_they_are(faces: tuple[Path, Frames], tmp_path: Path) -> None:
    folder, frames = faces
    embed(folder, tmp_path / "e", frames, settings())
    before = contents(tmp_path / "e")
    params = settings()
    network = params.train_pseudo_intensity.network.model_copy(update={"weights": str(tmp_path / "none.pth")})
    section = params.train_pseudo_intensity.model_copy(update={"network": network})
    with pytest.raises(ArtifactError, match="no weights"):
        embed(folder, tmp_path / "e", frames, params.model_copy(update={"train_pseudo_intensity": section}))
    assert contents(tmp_path / "e") == before


def test_a_frozen_trunk_is_counted_once() -> None:
    file = Path(__file__).parents[2] / "params.yaml"
    trained = cost_of(load_params(file), 12)
    frozen = cost_of(load_params(file, ["train_pseudo_intensity.network.frozen=true"]), 12)
    assert (trained["passes"], frozen["passes"]) == (3, 1)
    assert frozen["parts"]["f"]["gmac_per_frame"] < 0.4 * trained["parts"]["f"]["gmac_per_frame"]
    backbone = load_params(
        file, ["train_pseudo_intensity.network.kind=resnet50", "train_pseudo_intensity.network.frozen=true"]
    )
    cost = cost_of(backbone, 12)
    assert cost["parts"]["f"]["gmac_per_frame"] == pytest.approx(4.09, abs=0.05), "torchvision says 4.09"


def test_an_au_network_of_heads_takes_features() -> None:
    heads = AUNetwork(settings(sharing="per_au").train_pseudo_intensity.network, 104, 3)
    assert heads(torch.zeros(2, 104)).shape == (2, 3)
    assert heads.forward_with_map(torch.zeros(2, 104), heads.layers_through(5))[1].shape == (2, 26, 2, 2)

"""The flow with a frozen trunk, from features to predictions of the bundle, and a student of its networks."""

from pathlib import Path

import numpy as np
import pytest

from aupair import stages, store
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.inference.bundle import write_bundle
from aupair.inference.recognizer import BundleRecognizer
from aupair.kubeflow.step import params_for
from aupair.params import Params, load_params
from aupair.ranking.ensemble import load_ensemble
from aupair.ranking.scores import read_sigma
from bundle_parts import parts_of_flow
from conftest import Command, artifact, contents, files_below

FROZEN = [
    "train_pseudo_intensity.network.frozen=true", "embed_faces.copies=1", "embed_faces.device=cpu",
    "train_uncertainty={kind: factors, factors: 4, device: cpu}",
]  # fmt: skip


@pytest.fixture
def frozen(home: Path) -> tuple[Path, Params]:
    """A flow whose f is trained on the features of a frozen trunk; check-data to sample-pairs have run before."""
    params = load_params(home / "params.yaml", FROZEN)
    for stage in stages.FLOW[3:-1]:
        stages.run_stage(stage.name, params, root=home)
    return home, params


def test_predict_repeats_the_scores_of_the_stages_and_the_bundle_has_the_trunk_once(
    frozen: tuple[Path, Params], tmp_path: Path
) -> None:
    home, params = frozen
    write_bundle(tmp_path / "bundle", parts_of_flow(home, params), params)
    files = contents(tmp_path / "bundle")
    assert sorted(name for name in files if name.startswith("trunk/")) == [
        "trunk/about.json",
        "trunk/weights.safetensors",
    ]
    assert not any("embeddings" in name or name.endswith(".npy") for name in files)
    recognizer = BundleRecognizer.load(tmp_path / "bundle", "cpu")
    frames = load_frames(artifact(home, "labels"), artifact(home, "faces"))
    y_hat = load_ensemble([artifact(home, "f", trial) for trial in params.trials], len(frames), params.ensemble).y_hat
    sigma = read_sigma(artifact(home, "h"), len(frames))
    video = int(frames.video[frames.of_split("validation")][0])
    rows = frames.slices()[video]
    jpegs = store.read_faces(artifact(home, "faces") / f"{frames.videos[video]}.arrow")["jpeg"].to_pylist()
    ok = frames.ok[rows]
    faces = np.stack([store.decode_jpeg(jpeg) for jpeg, face in zip(jpegs, ok) if face])
    scores = recognizer.predict_faces(faces, fps=25.0).scores
    np.testing.assert_array_equal(scores.y_hat, y_hat[rows][ok])
    assert np.isfinite(sigma[rows][ok]).all()
    assert np.isfinite(scores.sigma).all()


def test_another_head_uses_the_same_features(frozen: tuple[Path, Params], aupair: Command) -> None:
    home, _ = frozen
    before = {name: time for name, time in files_below(home / "work/embeddings").items() if name.endswith(".npy")}
    options = [text for option in FROZEN for text in ("--set", option)]
    outcome = aupair("run", "embed-faces", *options, "--set", "train_pseudo_intensity.network.dropout=0.5")
    assert outcome.code == 0, outcome.err
    after = {name: time for name, time in files_below(home / "work/embeddings").items() if name.endswith(".npy")}
    assert after == before
    outcome = aupair("run", "train-pseudo-intensity", "--trial", 0, *options, "--set", "train_pseudo_intensity.network.frozen=false",
                     "--set", "embed_faces.copies=0")  # fmt: skip
    assert outcome.code == 0, "a trunk of its own needs no features"


@pytest.mark.parametrize("stage", ["train-pseudo-intensity", "train-uncertainty"])
def test_features_of_another_trunk_are_not_trained_on(frozen: tuple[Path, Params], aupair: Command, stage: str) -> None:
    options = [text for option in FROZEN for text in ("--set", option)]
    wider = ("--set", "train_pseudo_intensity.network.batch_norm=false")
    if stage == "train-uncertainty":
        assert aupair("run", "embed-faces", *options, *wider).code == 0
        wider = ()
    outcome = aupair("run", stage, *options, *wider)
    assert outcome.code == 4
    assert outcome.line.startswith("the features are of another trunk: in work/embeddings/trunk, got batch_norm: ")
    assert outcome.line.endswith("; run embed-faces, and the stages after it")


def test_a_missing_file_of_weights_ends_the_first_stages_before_their_work(home: Path, aupair: Command) -> None:
    before = contents(home / "work")
    of_h = "train_uncertainty={kind: network, network: {weights: h.pth}}"
    for stage in ("check-data", "preprocess-faces", "sample-pairs"):
        for setting, file in (("train_pseudo_intensity.network.weights=f.pth", "f.pth"), (of_h, "h.pth")):
            outcome = aupair("run", stage, "--set", setting)
            assert outcome.code == 4
            assert outcome.line == (
                f"no weights: in {file}, got no such file, expected default, none, or a file of weights"
            )
    assert contents(home / "work") == before
    (home / "f.pth").write_text("is read later")
    outcome = aupair("run", "sample-pairs", "--set", "train_pseudo_intensity.network.weights=f.pth")
    assert outcome.code == 0, outcome.err


OTHERS = {
    "embed_faces.copies=2": ("of other copies of the faces", "copies: 1, expected copies: 2", "embed-faces"),
    "embed_faces.augment=0.75": ("of other copies of the faces", "augment: 0.5, expected augment: 0.75", "embed-faces"),
    "seed=3": ("of other copies of the faces", "seed: 0, expected seed: 3", "embed-faces"),
    "preprocess_faces.size=64": ("of faces of another size", "32, expected 64", "preprocess-faces"),
}
"""params that the features depend on -> what is wrong, what was got and expected, and the stage to run"""


def test_only_features_of_the_params_are_trained_on(
    frozen: tuple[Path, Params], aupair: Command, tmp_path: Path
) -> None:
    home, params = frozen
    before = files_below(home / "work")
    for stage in ("train-pseudo-intensity", "train-uncertainty"):
        for other, (what, values, todo) in OTHERS.items():
            outcome = aupair("run", stage, *(text for option in (*FROZEN, other) for text in ("--set", option)))
            assert outcome.code == 4, (stage, other)
            expected = f"the features are {what}: in work/embeddings, got {values}; run {todo}, and the stages after it"
            assert outcome.line == expected
    assert files_below(home / "work") == before

    f = contents(home / "work/f/0")
    section = params.train_pseudo_intensity.model_dump(mode="json")
    stage = stages.get_stage("train-pseudo-intensity")
    own = params_for(stage, {"seed": 0, "train_pseudo_intensity": section}, 0)
    stages.run_stage(stage.name, own, root=home, trial=0)
    assert contents(home / "work/f/0") == f, "a task of Kubeflow knows nothing of embed_faces"

    about = store.read_json(home / "work/embeddings/about.json")
    assert (about.pop("augment"), about.pop("seed")) == (0.5, 0)
    store.write_json(home / "work/embeddings/about.json", about)
    stages.run_stage(stage.name, params, root=home, trial=0)
    assert contents(home / "work/f/0") == f, "an earlier version stored the number of copies alone"

    path = home / "work/embeddings/trunk/about.json"
    about = store.read_json(path)
    store.write_json(path, about | {"network": about["network"] | {"weights": "x.safetensors"}})
    with pytest.raises(ArtifactError, match=r"another trunk.* got weights: x.safetensors, expected weights: none"):
        write_bundle(tmp_path / "bundle", parts_of_flow(home, params), params)
    assert not (tmp_path / "bundle").exists(), "predict would give f the features of another trunk"

"""The whole flow with intensity as the target: levels in, pairs of levels, ICC, a registered model that says levels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.data.frames import Frames, load_frames
from aupair.errors import ArtifactError
from aupair.evaluation.selection import MAPPINGS
from aupair.inference.recognizer import read_selection
from aupair.mapping.features import Features
from aupair.mapping.fit import fit_mappings
from aupair.params import Params, TrainMapping, parse_params
from aupair.ranking.pairs import Pairs
from aupair.ranking.samples import load_samples, load_training_set
from conftest import Command, artifact, rows_of, run_flow
from frame_sets import make_frames

CONSTANTS = ("all-zero", "fit-median", "fit-mean")
ROWS = (*CONSTANTS, "no-uncertainty", "constant-noise", "uncertainty-columns", "sigma", "P1", "P2")


@pytest.fixture(scope="module")
def settings(tiny: Params) -> Params:
    """The tiny settings, levels as the target, one trial."""
    tree = tiny.model_dump(mode="json") | {"target": "intensity", "trials": [0]}
    return parse_params(tree)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, settings: Params) -> Path:
    """A folder in which the flow of intensities has run up to evaluate; `home` is a copy of it. Tests must not change it."""
    root = tmp_path_factory.mktemp("graded") / "home"
    run_flow(root, corpus, settings)
    return root


def frames_of(root: Path) -> Frames:
    return load_frames(artifact(root, "labels"), artifact(root, "faces"))


def level_pairs(frames: Frames, pairs: Pairs) -> dict[tuple[int, int], int]:
    """How many pairs there are of each (higher, lower) level; checks that r has the sign of the levels' difference."""
    a, b = (frames.labels[rows, pairs.au].astype(int) for rows in (pairs.i, pairs.j))
    np.testing.assert_array_equal(np.sign(a - b), pairs.r)
    high_low, counts = np.unique(np.stack([np.maximum(a, b), np.minimum(a, b)], axis=1), axis=0, return_counts=True)
    return {(int(high), int(low)): int(n) for (high, low), n in zip(high_low, counts)}


@pytest.mark.slow
def test_f_is_trained_on_pairs_of_all_levels(finished: Path, settings: Params) -> None:
    frames = frames_of(finished)
    assert set(np.unique(frames.labels)) == set(range(6))
    training = load_training_set(artifact(finished, "labels"), artifact(finished, "faces"), artifact(finished, "pairs"))
    sampler = training.sampler(training.training_masks()["final"], settings.train_pseudo_intensity.optimiser, (0,))
    counts: dict[tuple[int, int], int] = {}
    for step in range(20):
        rows, pairs, weight = sampler(step)
        assert weight.sum() == pytest.approx(1, abs=1e-5)
        global_pairs = Pairs(rows[pairs.i], rows[pairs.j], pairs.au, pairs.r)
        for key, n in level_pairs(frames, global_pairs).items():
            counts[key] = counts.get(key, 0) + n
    every = {(high, low) for high in range(6) for low in range(high)}
    assert set(counts) == every, "(4, 2) as well as (1, 0)"


def test_fixed_pairs_are_balanced_over_level_pairs(finished: Path) -> None:
    frames = frames_of(finished)
    pairs = load_samples(artifact(finished, "pairs"), frames).pairs["fit"]
    for au in range(len(AFFWILD2)):
        own = pairs[pairs.au == au]
        counts = level_pairs(frames, own)
        possible = len({key for rows in frames.slices() for key in _present(frames, rows, au)})
        assert len(counts) == possible
        assert max(counts.values()) - min(counts.values()) <= 1, AFFWILD2[au]


def _present(frames: Frames, rows: slice, au: int) -> set[tuple[int, int]]:
    """The level pairs of a fit video."""
    usable = (frames.usable & frames.of_split("fit"))[rows]
    levels = np.unique(frames.labels[rows][usable, au]).tolist()
    return {(high, low) for high in levels for low in levels if high > low}


@pytest.mark.parametrize("loss", ["l1", "cross_entropy"])
def test_a_mapping_learns_the_order_of_levels(loss: str) -> None:
    rng, n, videos = np.random.default_rng(0), 120, 8
    size = n * videos
    labels = rng.choice(6, (size, len(AFFWILD2)), p=[0.6, 0.15, 0.1, 0.05, 0.05, 0.05]).astype(np.int8)
    frames = make_frames([0, 0, 0, 0, 1, 1, 2, 2], labels)
    values = np.tanh(labels[..., None] / 3) + rng.normal(0, 0.02, (size, len(AFFWILD2), 2))
    features = {"raw": Features(values.astype(np.float32))}
    numbers = {"width": 16, "dropout": 0.0, "learning_rate": 0.01, "draws": 512, "epochs": 20, "seeds": 2}
    settings = TrainMapping(loss=loss, **numbers, device="cpu")
    mapping, _ = fit_mappings(frames, features, 6, settings, 0)
    for raw in mapping.map_all(features).values():
        means = [
            [raw[frames.of_split("validation") & (labels[:, au] == k), au].mean() for k in range(6)] for au in range(12)
        ]
        assert (np.diff(means, axis=1) > 0.25).all()
        assert np.abs(np.mean(means, axis=0) - np.arange(6)).max() < 0.4


def test_metrics_have_rows_of_levels_beside_those_of_occurrence(finished: Path, settings: Params) -> None:
    metrics = store.read_json(artifact(finished, "metrics"))
    assert (metrics["target"], metrics["levels"]) == ("intensity", 6)
    rows = {(row["name"], row["split"]): row for row in metrics["intensity_rows"]}
    assert set(rows) == {(name, split) for name in ROWS for split in ("select", "validation")}
    for (name, _), row in rows.items():
        assert set(row["per_au"]) == set(AFFWILD2)
        assert 0 <= row["mae"] <= 5
        assert -1 <= row["icc"] <= 1
        assert (row["icc"] == 0) == (name in CONSTANTS)
        low, high = row["intervals"]["mae"]
        assert low <= row["mae"] <= high
    assert {row["name"] for row in metrics["rows"]} >= {"all-zero", "best-constant", "no-uncertainty", "P1", "P2"}
    frames = frames_of(finished)
    annotated = frames.of_split("validation") & (frames.labels[:, 0] >= 0)
    assert rows["all-zero", "validation"]["mae"] == pytest.approx(frames.labels[annotated].mean())
    table = artifact(finished, "table").read_text()
    assert "**Intensity on validation**" in table
    assert f"{rows['P2', 'validation']['icc']:.3f}" in table
    assert "unless ICC(3,1) on `select` is lower with uncertainty" in table


def test_the_choice_is_made_by_icc_and_recorded(finished: Path) -> None:
    tree = store.read_json(artifact(finished, "selection"))
    assert (tree["target"], tree["levels"]) == ("intensity", 6)
    rows = {
        r["name"]: r["per_au"] for r in store.read_json(artifact(finished, "metrics"))["intensity_rows"][: len(ROWS)]
    }
    for au in AFFWILD2:
        entry = tree[au]
        assert entry["chosen_by"] == "icc"
        difference = rows["P1"][au]["icc"] - rows["no-uncertainty"][au]["icc"]
        assert entry["difference"] == pytest.approx(difference)
        assert entry["loss_limit"] >= tree["tie"]
        keeps_uncertainty = difference >= -entry["loss_limit"]
        assert entry["mapping"] == MAPPINGS[keeps_uncertainty]
        assert rows["P2"][au]["icc"] == pytest.approx(rows["P1" if keeps_uncertainty else "no-uncertainty"][au]["icc"])
    assert read_selection(artifact(finished, "selection")).thresholds.shape == (len(AFFWILD2),)


def test_register_and_predict_write_levels(home: Path, aupair: Command) -> None:
    from aupair.registry.versions import list_versions

    done = aupair("run", "register-model")
    assert done.code == 0, done.err
    (version,) = list_versions()
    metrics = store.read_json(artifact(home, "metrics"))
    row = next(r for r in metrics["intensity_rows"] if (r["name"], r["split"]) == ("P2", "validation"))
    assert float(version.tags["validation.icc.p2"]) == pytest.approx(row["icc"], abs=1e-6)
    card = (home / "work" / "bundle" / "MODEL_CARD.md").read_text()
    assert f"| P2 | validation | {row['icc']:.3f} | {row['mae']:.3f} |" in card
    _check_run(version.run_id, row)
    done = aupair("predict", "data/videos/s003c0.mp4", "--model", "models:/aupair/1", "--out", "out")
    assert done.code == 0, done.err
    lines = rows_of(home / "out" / "s003c0.csv")
    assert list(lines[0])[3:10] == [
        "calibrated", "AU1", "AU1_intensity", "AU1_raw", "AU1_pseudo_intensity", "AU1_uncertainty", "AU1_confidence",
    ]  # fmt: skip
    for line in lines:
        for au in AFFWILD2:
            if line["status"] == "ok":
                assert float(line[f"{au}_intensity"]) == pytest.approx(
                    np.clip(float(line[f"{au}_raw"]), 0, 5), abs=2e-5
                )
            else:
                assert line[f"{au}_intensity"] == line[au] == ""
    _check_served(home, lines)


def _check_run(run_id: str, row: dict[str, Any]) -> None:
    """The run of the flow has the headline."""
    from aupair.registry import mlflow_store

    logged = mlflow_store.open_mlflow().get_run(run_id).data.metrics
    for key in ("icc", "mae"):
        assert logged[f"validation/{key}"] == pytest.approx(row[key])


def _check_served(home: Path, lines: list[dict[str, str]]) -> None:
    """The python function has the columns of the signature, and they are predict's."""
    import mlflow

    model = mlflow.pyfunc.load_model("models:/aupair/1")
    named = model.metadata.get_output_schema().input_names()
    assert named == [name for name in lines[0] if name.startswith("AU")]
    rows = store.read_faces(home / "work" / "faces" / "s003c0.arrow")
    faces = np.stack([store.decode_jpeg(jpeg) for jpeg in rows["jpeg"].to_pylist() if jpeg])
    table = model.predict(faces, params={"fps": 6.0})
    assert list(table) == named
    assert table["AU12_intensity"].between(0, 5).all()


def test_labels_and_choices_of_another_target_are_an_error(home: Path, settings: Params) -> None:
    occurrence = parse_params(settings.model_dump(mode="json") | {"target": "occurrence"})
    with pytest.raises(ArtifactError, match=r"^labels of another target, got intensity, expected occurrence; run the"):
        stages.run_stage("evaluate", occurrence, root=home)
    with pytest.raises(
        ArtifactError,
        match=r"^the selection is of another target: in .*selection\.json, got intensity, expected occurr",
    ):
        stages.run_stage("register-model", occurrence, root=home)

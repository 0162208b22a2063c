"""Bundles of any AUs, with small networks of random weights: loaded, at work, and those of earlier versions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aupair import Recognizer, store
from aupair.aus import AFFWILD2
from aupair.inference.bundle import write_bundle
from aupair.params import Params
from bundle_parts import AU_SETS, write_real_parts
from conftest import Command

THREE = AU_SETS["three"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Path:
    """A bundle of three AUs. Tests must not change it."""
    folder = tmp_path_factory.mktemp("three")
    write_bundle(folder / "bundle", write_real_parts(folder / "work", THREE, tiny), tiny)
    return folder / "bundle"


def faces(n: int = 7) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
def test_a_bundle_predicts_the_aus_that_it_was_made_for(tmp_path: Path, tiny: Params, aus: tuple[str, ...]) -> None:
    write_bundle(tmp_path / "bundle", write_real_parts(tmp_path / "work", aus, tiny), tiny)
    recognizer = Recognizer.load(tmp_path / "bundle", "cpu")
    assert recognizer.aus == aus
    predictions = recognizer.predict_faces(faces(), 10.0)
    assert predictions.aus == aus
    assert predictions.decision.shape == (7, len(aus))
    assert all(np.isfinite(values).all() for name, values in predictions.columns().items())
    some = Recognizer.load(tmp_path / "bundle", "cpu", aus=aus[-1:]).predict_faces(faces(), 10.0)
    for name, values in some.columns().items():
        assert values.tobytes() == predictions.columns()[name].tobytes(), name
    assert recognizer.limits(0.3).shape == (2, len(aus))


def test_a_bundle_of_before_predicts_the_same_as_affwild2(tmp_path: Path, tiny: Params) -> None:
    write_bundle(tmp_path / "bundle", write_real_parts(tmp_path / "work", AFFWILD2, tiny), tiny)
    table = Recognizer.load(tmp_path / "bundle", "cpu").predict_faces(faces(), 10.0).to_table()
    path = tmp_path / "bundle" / "selection.json"
    tree = store.read_json(path)
    del tree["aus"]
    store.write_json(path, tree)
    about = store.read_json(tmp_path / "bundle" / "about.json")
    files = sorted(name for name in about["files"] if "/" in name)  # format 2 has no hashes
    store.write_json(tmp_path / "bundle" / "about.json", {"format": 2, "members": about["members"], "files": files})
    old = Recognizer.load(tmp_path / "bundle", "cpu")
    assert old.aus == AFFWILD2
    pd.testing.assert_frame_equal(old.predict_faces(faces(), 10.0).to_table(), table)
    assert [name for name in table if name.startswith("AU1_")] == [
        "AU1_raw", "AU1_pseudo_intensity", "AU1_uncertainty", "AU1_confidence", "AU1_smoothed", "AU1_smoothed_sd",
    ]  # fmt: skip


def test_the_command_writes_some_of_the_aus_or_names_those_that_there_are(
    tmp_path: Path, corpus: Path, bundle: Path, aupair: Command
) -> None:
    command = ("predict", corpus / "videos" / "s003c0.mp4", "--model", bundle, "--device", "cpu", "--out")
    done = aupair(*command, tmp_path / "out", "--aus", f"{THREE[-1]}, AU12L", "--abstain", ".2")
    assert done.code == 0, done.err
    written = pd.read_csv(tmp_path / "out" / "s003c0.csv")
    endings = ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence", "_smoothed", "_smoothed_sd")
    assert list(written)[3:] == [f"{au}{ending}" for au in (THREE[0], THREE[2]) for ending in endings]
    assert (tmp_path / "out" / "s003c0.png").exists()
    for option, line in {
        "AU12": f"the model does not know these AUs, got AU12, expected some of {', '.join(THREE)}",
        "AU12L,AU12L": "an AU is named twice: in the AUs to predict, got AU12L, expected each AU once",
    }.items():
        refused = aupair(*command, tmp_path / "none", "--aus", option)
        assert (refused.code != 0, refused.line) == (True, line)
    assert not (tmp_path / "none").exists()

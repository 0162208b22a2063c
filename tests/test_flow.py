"""The whole flow in this process, on a tiny corpus: what it leaves, that it repeats, what it may read."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.evaluation.selection import MAPPINGS
from aupair.params import Params
from aupair.ranking.scores import read_sigma, read_y_hat
from conftest import artifact

ROWS = ("all-zero", "all-one", "best-constant", "no-uncertainty", "P1", "P2")
INTERVALS = ("f1", "accuracy", "score")

RETRAIN = """
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

allowed = {"aupair"}
waiting = ["torch", "torchvision", "numpy", "pyarrow", "opencv-python", "pydantic", "pyyaml", "safetensors"]
while waiting:
    name = waiting.pop().lower().replace("_", "-")
    if name not in allowed:
        allowed.add(name)
        try:
            waiting += [Requirement(text).name for text in requires(name) or () if "extra" not in text]
        except PackageNotFoundError:
            pass
owners = packages_distributions()
refused = {"dlib"} | {m for m, names in owners.items() if not {n.lower().replace("_", "-") for n in names} & allowed}
assert {"mlflow", "pandas", "matplotlib", "great_expectations", "scipy", "dlib", "rich", "typer", "dvc"} <= refused


class Refuse:
    # Lets libraries look whether a module is there, and refuses to load it.

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in refused else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"the training path must not import {spec.name}", name=spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Refuse())
for name in [name for name in sys.modules if name.partition(".")[0] in refused]:
    del sys.modules[name]
from pathlib import Path
from aupair import stages
from aupair.params import load_params

for name in ("train-pseudo-intensity", "train-uncertainty", "extract-features", "train-mapping"):
    stages.run_stage(name, load_params(Path("params.yaml")), trial=1)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder (or the file itself) by its name."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_stage_leaves_what_the_flow_says_and_nothing_else(finished: Path, tiny: Params) -> None:
    written = {artifact(finished, name, t) for s in stages.FLOW[:-1] for name in s.writes for t in tiny.trials}
    for path in written:
        assert contents(path), path
    for folder in ("work", "reports"):
        for path in (finished / folder).rglob("*"):
            assert path.is_dir() or any(path == w or w in path.parents for w in written), path


def test_a_row_for_every_frame_all_the_way(finished: Path, tiny: Params) -> None:
    frames = load_frames(artifact(finished, "labels"), artifact(finished, "faces"))
    assert len(frames) == 8 * 30
    assert [int(frames.of_split(split).sum()) for split in SPLITS] == [120, 60, 60]
    assert frames.ok.mean() > 0.9
    for trial in tiny.trials:
        for values in (
            read_y_hat(artifact(finished, "f", trial), len(frames)),
            read_sigma(artifact(finished, "h", trial), len(frames)),
        ):
            np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(frames.ok[:, None], values.shape))


def test_trials_differ(finished: Path) -> None:
    for name in ("f", "h", "features", "mapping"):
        assert contents(artifact(finished, name, 0)) != contents(artifact(finished, name, 1)), name


def test_metrics_have_the_keys_that_others_rely_on(finished: Path) -> None:
    metrics = store.read_json(artifact(finished, "metrics"))
    assert {(row["name"], row["split"]) for row in metrics["rows"]} == {
        (name, split) for name in ROWS for split in ("select", "validation")
    }
    for row in metrics["rows"]:
        assert all(0 <= row[key] <= 1 for key in ("f1", "accuracy", "exact_match", "score"))
        assert row["score"] == pytest.approx((row["f1"] + row["accuracy"]) / 2)
        assert all(len(row["intervals"][key]) == 2 for key in INTERVALS)
        assert set(row["per_au"]) == set(AUS)
    numbers = {
        "pair_accuracy": ("clear", "mean"),
        "uncertainty.pair_nll": ("h", "constant"),
        "uncertainty.auroc_correct": ("margin", "margin_over_sigma"),
        "uncertainty.gain_at_80": ("sigma", "random", "cover"),
        "uncertainty.spearman_misorder": ("mean",),
        "uncertainty.auroc_own_region": ("mean",),
    }
    for path, keys in numbers.items():
        tree = metrics
        for part in path.split("."):
            tree = tree[part]
        for key in keys:
            assert isinstance(tree[key], float), f"{path}.{key}"
            assert math.isfinite(tree[key]), f"{path}.{key}"


def test_the_selection_names_a_mapping_and_its_evidence_for_each_au(finished: Path, tiny: Params) -> None:
    selection = store.read_json(artifact(finished, "selection"))
    assert selection["trial"] in tiny.trials
    for au in AUS:
        assert selection[au]["mapping"] in MAPPINGS
        assert {"threshold", "difference", "difference_interval", "probability_with_better"} <= set(selection[au])
        chosen = MAPPINGS[selection[au]["difference"] > selection["tie"]]
        assert selection[au]["mapping"] == chosen, au


def test_the_reports_can_be_opened(finished: Path) -> None:
    table = artifact(finished, "table").read_text()
    assert "Synthetic faces" in table
    assert "not accuracy on people" in table
    pictures = sorted(path.name for path in artifact(finished, "plots").iterdir())
    assert pictures == ["f1.png", "reliability.png", "risk_coverage.png", "timelines.png"]
    assert all(cv2.imread(str(artifact(finished, "plots") / name)) is not None for name in pictures)
    assert (artifact(finished, "data_docs") / "index.html").exists()


def test_training_repeats_to_the_byte_with_nothing_but_its_own_libraries(home: Path) -> None:
    names = ("f", "h", "features", "mapping")
    before = {name: contents(artifact(home, name, 1)) for name in names}
    for name in names:
        shutil.rmtree(artifact(home, name, 1))
    done = subprocess.run([sys.executable, "-c", RETRAIN], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert contents(artifact(home, name, 1)) == before[name], name


def test_no_stage_before_evaluate_can_read_the_conditions(home: Path, tiny: Params) -> None:
    readers = [stage.name for stage in stages.FLOW if "data" in stage.reads]
    assert readers == ["check-data", "preprocess-faces", "evaluate"], "all others do not get the folder at all"
    before = {name: contents(artifact(home, name)) for name in ("labels", "faces")}
    (home / "data" / "conditions.csv").unlink()
    shutil.rmtree(artifact(home, "faces"))
    for name in readers[:2]:
        stages.run_stage(name, tiny, root=home)
    assert {name: contents(artifact(home, name)) for name in before} == before


def test_evaluate_goes_by_the_list_of_trials_and_not_by_what_lies_there(home: Path, tiny: Params) -> None:
    only = tiny.model_copy(update={"trials": (1,)})
    stages.run_stage("evaluate", only, root=home)
    assert store.read_json(artifact(home, "selection"))["trial"] == 1
    shutil.rmtree(home / "work" / "trials" / "0")
    stages.run_stage("evaluate", only, root=home)
    with pytest.raises(ArtifactError, match=r"^missing input: in .*trials/0/f; run train-pseudo-intensity first$"):
        stages.run_stage("evaluate", tiny, root=home)


def test_without_conditions_the_flow_ends_too(home: Path, tiny: Params) -> None:
    (home / "data" / "conditions.csv").unlink()
    stages.run_stage("evaluate", tiny, root=home)
    metrics = store.read_json(artifact(home, "metrics"))
    assert metrics["pair_accuracy"]["clear"] is None
    assert metrics["uncertainty"]["gain_at_80"]["cover"] is None
    assert "Synthetic" not in artifact(home, "table").read_text()

"""`aupair distill`: a student in the workspace of variants, beside its teacher."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.ablation.student import REPORTS, _student_params
from aupair.ablation.workspace import FOLDER
from aupair.aus import AFFWILD2
from aupair.errors import ParamsError
from aupair.evaluation.cost import cost_of
from aupair.params import load_params
from conftest import Command

REPOSITORY = Path(__file__).parents[2]
ROOT = FOLDER / "checkout"
NARROW = ("--set", "train_pseudo_intensity.network.width=.02")


@pytest.fixture(scope="module")
def checkout(finished: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished flow that DVC tracks, with its settings in the environment; the tests of this file share it."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("student") / "checkout"))
    shutil.copyfile(REPOSITORY / "dvc.yaml", folder / "dvc.yaml")
    for command in ("init -q --no-scm", "add -q data", "commit -q --force evaluate --with-deps"):
        subprocess.run(["dvc", *command.split()], cwd=folder, env=environment, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
            patch.setenv(key, environment[key])
        yield folder


def fingerprint(*folders: str) -> str:
    """Hash all files below some folders, but for those of the student."""
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        if not {FOLDER, REPORTS} & set(path.parents):
            total.update(f"{path}\0".encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.slow
def test_a_student_goes_the_whole_way_and_leaves_its_teacher_alone(checkout: Path, aupair: Command) -> None:
    before = fingerprint("data", "work", "reports")
    done = aupair("distill", *NARROW)
    assert done.code == 0, done.err
    assert done.err.count("running stage") == 6
    assert fingerprint("data", "work", "reports") == before
    work = ROOT / "work"
    network = store.read_json(work / "f" / "0" / "about.json")["network"]
    assert (network["sharing"], network["width"]) == ("integrated", 0.02)
    assert [folder.name for folder in (work / "f").iterdir()] == ["0"], "one trial, whatever its teacher has"
    of_h = store.read_json(work / "h" / "about.json")
    assert (of_h["kind"], of_h["ensemble"]) == ("integrated", [[0, "final"]])

    figures = store.read_json(REPORTS / "student.json")
    for name, reports in (("teacher", Path("reports")), ("student", REPORTS)):
        rows = store.read_json(reports / "metrics.json")["rows"]
        f1 = {row["split"]: row["f1"] for row in rows if row["name"] == "P2"}
        assert (figures[name]["f1_select"], figures[name]["f1_validation"]) == (f1["select"], f1["validation"])
        assert f"{f1['validation']:.3f}" in done.out
        assert figures[name]["frames_per_second"] > 0
    assert figures["student"]["gmac_per_frame"] < figures["teacher"]["gmac_per_frame"]
    assert figures["student"]["parameters"] < figures["teacher"]["parameters"]
    assert f"{figures['student']['parameters']:,}" in done.out
    lost = figures["student"]["f1_validation"] - figures["teacher"]["f1_validation"]
    assert f"its mean F1 on validation differs by {lost:+.3f}" in " ".join(done.out.split())
    assert (REPORTS / "report.html").exists()


def _stages(text: str) -> set[str]:
    """The stages that ran."""
    return set(re.findall("running stage '(.*?)'", text))


@pytest.mark.slow
def test_what_was_trained_before_is_not_trained_again(checkout: Path, aupair: Command) -> None:
    # DVC's run cache leaves out embed-faces, whose output persists; it has nothing to compute
    assert _stages(aupair("distill", *NARROW).err) == {"embed-faces"}
    mapped = aupair("distill", *NARROW, "--set", "train_mapping.width=4")
    assert _stages(mapped.err) == {"embed-faces", "train-mapping", "evaluate"}
    routes = store.read_json(ROOT / "work" / "mapping" / "about.json")["routes"]
    assert {route["width"] for route in routes.values()} == {4}


@pytest.mark.slow
def test_a_student_can_be_registered_and_predicts(checkout: Path, aupair: Command) -> None:
    done = aupair("distill", *NARROW, "--register")
    assert done.code == 0, done.err
    number = store.read_json(ROOT / "work" / "registered.json")["version"]
    shown = " ".join(aupair("registry", "show", number).out.split())
    assert "student.of.files │ " in shown

    from aupair import Recognizer

    recognizer = Recognizer.load(f"models:/aupair/{number}", "cpu")
    rows = store.read_faces(next(iter(sorted((checkout / "work" / "faces").glob("*.arrow"))))).to_pylist()
    faces = np.stack([store.decode_jpeg(row["jpeg"]) for row in rows if row["status"] == "ok"])
    assert recognizer.predict_faces(faces, 6.0).decision.shape == (len(faces), len(AFFWILD2))


def test_what_is_missing_or_wrong_is_one_line(home: Path, aupair: Command) -> None:
    assert "did you mean" in aupair("distill", "--set", "train_pseudo_intensity.networks=1").line
    shared = aupair("distill", "--set", "train_pseudo_intensity.network.sharing=shared").line
    assert "integrated" in shared
    shutil.rmtree(home / "work" / "h")
    assert "no teacher: in" in aupair("distill").line
    assert not FOLDER.exists(), "nothing is begun"
    wrong = aupair("run", "train-mapping", "--trial", 0, "--teacher", "work").line
    assert wrong.startswith(
        "--teacher does not fit this stage, got train-mapping, expected train-pseudo-intensity with objective: distill"
    )
    direct = aupair(
        "run", "train-pseudo-intensity", "--trial", 0, "--set", "train_pseudo_intensity.objective=distill", "--set",
        "train_pseudo_intensity.network.sharing=integrated", "--set", "train_uncertainty.kind=integrated",
    )  # fmt: skip
    assert "`aupair distill` finds one" in direct.err.splitlines()[-1]


def test_several_processes_are_refused_before_they_train(
    home: Path, aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    outcome = aupair("distill")
    assert (outcome.code, outcome.line) == (2, "distill runs in one process, got several; run it without torchrun")
    assert not FOLDER.exists()


@pytest.mark.parametrize(("name", "side"), [("params.yaml", 96), ("params/affwild2.yaml", 112)])
def test_students_are_small_and_see_no_more_than_they_need(name: str, side: int) -> None:
    teacher = load_params(REPOSITORY / name)
    params = _student_params(teacher)
    network = params.train_pseudo_intensity.network
    assert (params.trials, params.ensemble) == ((0,), "final")
    assert params.preprocess_faces == teacher.preprocess_faces
    assert teacher.preprocess_faces.size // network.shrink == side
    assert network.weights == "none"
    ours, theirs = cost_of(params, 12)["parts"], cost_of(teacher, 12)["parts"]
    assert sum(part["gmac_per_frame"] for part in ours.values()) < 0.4 * sum(
        p["gmac_per_frame"] for p in theirs.values()
    )
    assert "h" not in ours, "a face is forwarded once for both"
    assert _student_params(teacher, ["train_mapping.width=5"]).train_mapping.width == 5
    with pytest.raises(ParamsError, match="did you mean width"):
        _student_params(teacher, ["train_mapping.widht=5"])

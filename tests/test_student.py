"""`aupair distill`: a student beside its teacher, in a folder of its own."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store, student
from aupair.aus import AUS
from aupair.errors import ParamsError
from aupair.evaluation.cost import cost_of
from aupair.params import load_params

REPOSITORY = Path(__file__).parents[1]
ROOT = Path("work") / "student"


def fingerprint(*folders: str) -> str:
    """Hash all files below some folders, but for the student's."""
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        if ROOT not in path.parents and path.name != "times.jsonl":
            total.update(f"{path}\0".encode() + path.read_bytes())
    return total.hexdigest()


def test_a_student_goes_the_whole_way_and_leaves_its_teacher_alone(home: Path, aupair: Any) -> None:
    before = fingerprint("data", "work", "reports")
    done = aupair("distill", "--set", "train_pseudo_intensity.network.width=.02")
    assert done.code == 0, done.err
    assert fingerprint("data", "work", "reports") == before
    number = store.read_json(home / "work" / "selection.json")["trial"]
    trial = ROOT / "work" / "trials" / str(number)
    about = store.read_json(trial / "f" / "about.json")["network"]
    assert (about["sharing"], about["width"]) == ("integrated", 0.02)
    assert store.read_json(trial / "h" / "about.json")["kind"] == "integrated"

    figures = store.read_json(ROOT / "reports" / "student.json")
    for name, root in (("teacher", home), ("student", ROOT)):
        rows = store.read_json(root / "reports" / "metrics.json")["rows"]
        f1 = {row["split"]: row["f1"] for row in rows if row["name"] == "P2"}
        assert (figures[name]["f1_select"], figures[name]["f1_validation"]) == (f1["select"], f1["validation"])
        assert f"{f1['validation']:.3f}" in done.out
        assert figures[name]["frames_per_second"] > 0
    assert figures["student"]["gmac_per_frame"] < figures["teacher"]["gmac_per_frame"]
    assert figures["student"]["parameters"] < figures["teacher"]["parameters"]
    assert f"{figures['student']['parameters']:,}" in done.out

    trained = (trial / "f" / "final.safetensors").stat().st_mtime_ns
    again = aupair("distill", "--set", "train_pseudo_intensity.network.width=.02")
    assert again.err.count("done before") == len(student.STAGES)
    assert (trial / "f" / "final.safetensors").stat().st_mtime_ns == trained
    mapped = aupair("distill", "--set", "train_pseudo_intensity.network.width=.02", "--set", "train_mapping.width=4")
    assert mapped.code == 0
    assert mapped.err.count("done before") == 3, "f, h and features; the mapping and evaluate are made again"
    assert store.read_json(trial / "mapping" / "about.json")["width"] == 4


def test_another_teacher_is_learned_from_anew_and_not_taken_for_the_judged_one(home: Path, aupair: Any) -> None:
    chosen = store.read_json(home / "work" / "selection.json")["trial"]
    assert aupair("distill").code == 0
    one = store.read_arrays(ROOT / "work" / "trials" / str(chosen) / "f" / "final.safetensors")
    done = aupair("distill", "--trial", 1 - chosen, "--register")
    assert done.code == 0, done.err
    assert "done before" not in done.err
    other = store.read_arrays(ROOT / "work" / "trials" / str(1 - chosen) / "f" / "final.safetensors")
    assert any(not np.array_equal(one[key], other[key]) for key in one)
    figures = store.read_json(ROOT / "reports" / "student.json")
    assert figures["teacher"]["f1_validation"] is None, "the reports above are of the other trial"
    assert figures["student"]["f1_validation"] is not None
    number = store.read_json(ROOT / "work" / "registered.json")["version"]
    shown = aupair("registry", "show", number)
    assert f"student.of.trial │ {1 - chosen}" in " ".join(shown.out.split())
    assert "student.of.version" not in shown.out, "that teacher is not registered"

    from aupair import Recognizer

    recognizer = Recognizer.load(f"models:/aupair/{number}", "cpu")
    rows = store.read_faces(next(iter(sorted((home / "work" / "faces").glob("*.arrow"))))).to_pylist()
    faces = np.stack([store.decode_jpeg(row["jpeg"]) for row in rows if row["status"] == "ok"])
    assert recognizer.predict_faces(faces, 6.0).decision.shape == (len(faces), len(AUS))


def test_what_is_missing_or_wrong_is_one_line(home: Path, aupair: Any) -> None:
    assert "no teacher: in" in aupair("distill", "--trial", 7).line
    assert "did you mean" in aupair("distill", "--set", "train_pseudo_intensity.networks=1").line
    shared = aupair("distill", "--set", "train_pseudo_intensity.network.sharing=shared").line
    assert "integrated" in shared
    (home / "work" / "selection.json").unlink()
    assert "or name a --trial" in aupair("distill").line
    assert not ROOT.exists(), "nothing is begun"
    direct = aupair(
        "run", "train-pseudo-intensity", "--trial", 0, "--set", "train_pseudo_intensity.objective=distill", "--set",
        "train_pseudo_intensity.network.sharing=integrated", "--set", "train_uncertainty.kind=integrated",
    )  # fmt: skip
    assert "`aupair distill` finds one" in direct.err.splitlines()[-1]


def test_several_processes_are_refused_before_they_train(
    home: Path, aupair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    outcome = aupair("distill")
    assert (outcome.code, outcome.line) == (2, "distill is a flow of one process, got several; run it without torchrun")
    assert not (home / "work" / "student").exists()


@pytest.mark.parametrize(("name", "side"), [("params.yaml", 96), ("params/affwild2.yaml", 112)])
def test_students_are_small_and_see_no_more_than_they_need(name: str, side: int) -> None:
    teacher = load_params(REPOSITORY / name)
    params = student.student_of(teacher, 3)
    network = params.train_pseudo_intensity.network
    assert params.trials == (3,)
    assert params.preprocess_faces == teacher.preprocess_faces
    assert teacher.preprocess_faces.size // network.shrink == side
    assert network.weights == "none"
    ours, theirs = cost_of(params)["parts"], cost_of(teacher)["parts"]
    assert sum(part["gmac_per_frame"] for part in ours.values()) < 0.4 * sum(
        p["gmac_per_frame"] for p in theirs.values()
    )
    assert "h" not in ours, "a face is forwarded once for both"
    assert student.student_of(teacher, 0, ["train_mapping.width=5"]).train_mapping.width == 5
    with pytest.raises(ParamsError, match="did you mean width"):
        student.student_of(teacher, 0, ["train_mapping.widht=5"])

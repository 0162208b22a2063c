"""The flow as `dvc repro` runs it, in a temporary copy of the repository with a tiny corpus."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aupair import stages, store
from aupair.params import Params
from aupair.stage import ARTIFACTS

pytestmark = pytest.mark.slow

TRIALS = (0, 1)
ALL = [
    name
    for stage in stages.FLOW
    for name in ([f"{stage.name}@{t}" for t in TRIALS] if stage.per_trial else [stage.name])
]


def call(folder: Path, environment: dict[str, str], *command: str) -> str:
    """Run a program that must succeed, and return its output."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def ran(output: str) -> list[str]:
    """Return the stages that a `dvc repro` ran, in order."""
    start = "Running stage '"
    return [line.removeprefix(start).partition("'")[0] for line in output.splitlines() if line.startswith(start)]


@pytest.fixture(scope="module")
def checkout(clone: Callable[[str], Path], corpus: Path, tiny: Params, environment: dict[str, str]) -> tuple[Path, str]:
    """A copy of the repository with the tiny corpus and settings, after `dvc repro`; and what that printed."""
    folder = clone("dvc")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny.model_dump(mode="json"), sort_keys=False))
    call(folder, environment, "cp", "-r", str(corpus), "data")
    call(folder, environment, "dvc", "add", "-q", "data")
    call(folder, environment, "git", "add", "data.dvc", "params.yaml")
    return folder, call(folder, environment, "dvc", "repro")


def test_every_stage_ran_once_a_trial_and_in_order(checkout: tuple[Path, str]) -> None:
    folder, output = checkout
    order = ran(output)
    assert sorted(order) == sorted(ALL)
    place = {name.partition("@")[0]: index for index, name in enumerate(order)}
    assert [place[stage.name] for stage in stages.FLOW] == sorted(place.values())
    assert store.read_json(folder / "work" / "registered.json")["version"] == 1


def test_check_data_computes_the_hash_that_dvc_wrote(checkout: tuple[Path, str], environment: dict[str, str]) -> None:
    folder, _ = checkout
    tracked = yaml.safe_load((folder / "data.dvc").read_text())["outs"][0]["md5"]
    assert store.read_json(folder / "work" / "data.json")["md5"] == tracked
    shown = call(folder, environment, "aupair", "registry", "show", "1")
    assert tracked in shown
    call(folder, environment, "git", "diff", "--exit-code", "data.dvc")


def test_dvc_gives_the_bytes_that_the_same_stages_give_in_one_process(
    checkout: tuple[Path, str], finished: Path
) -> None:
    """Compare bytes: one machine, one environment, one thread count, whatever processes and caches are in between."""
    folder, _ = checkout
    for name in ("labels", "data_docs", "faces", "pairs", "f", "h", "features", "mapping", "selection", "metrics"):
        for trial in TRIALS:
            place = ARTIFACTS[name].format(trial=trial)
            files = sorted(p for p in [folder / place, *(folder / place).rglob("*")] if p.is_file())
            assert files
            for path in files:
                assert path.read_bytes() == (finished / path.relative_to(folder)).read_bytes(), path


def test_repro_leaves_no_untracked_file_but_dvc_lock(checkout: tuple[Path, str], environment: dict[str, str]) -> None:
    folder, _ = checkout
    lines = call(folder, environment, "git", "status", "--porcelain").splitlines()
    assert [line for line in lines if line.startswith("??") and line != "?? dvc.lock"] == []


def test_a_second_time_runs_register_model_alone_and_makes_no_version(
    checkout: tuple[Path, str], environment: dict[str, str]
) -> None:
    folder, _ = checkout
    before = (folder / "data.dvc").read_bytes()
    assert ran(call(folder, environment, "dvc", "repro")) == ["register-model"]
    assert store.read_json(folder / "work" / "registered.json")["version"] == 1
    listed = call(folder, environment, "aupair", "registry", "list")
    assert len(re.findall(r"^│ +\d+ ", listed, re.MULTILINE)) == 1
    assert (folder / "data.dvc").read_bytes() == before


def test_faces_of_earlier_params_come_from_the_run_cache(
    checkout: tuple[Path, str], environment: dict[str, str]
) -> None:
    folder, _ = checkout
    path, lock = folder / "params.yaml", folder / "dvc.lock"
    before, locked = path.read_text(), lock.read_bytes()
    try:
        path.write_text(before.replace("quality: 95", "quality: 90"))
        assert ran(call(folder, environment, "dvc", "repro", "preprocess-faces")) == ["preprocess-faces"]
    finally:
        path.write_text(before)
    output = call(folder, environment, "dvc", "repro", "preprocess-faces")
    assert ran(output) == []
    assert "cached" in output
    assert lock.read_bytes() == locked
    assert not list((folder / "work").glob(".faces*"))


def changed(folder: Path, environment: dict[str, str]) -> set[str]:
    """Return the stages whose own inputs or params differ from dvc.lock, without the one that always runs."""
    import json

    return {name.partition("@")[0] for name in json.loads(call(folder, environment, "dvc", "status", "--json"))} - {
        "register-model"
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("check_data.few_positives", 7), ("preprocess_faces.quality", 90), ("sample_pairs.frames", 5),
        ("train_pseudo_intensity.optimiser.steps", 4), ("train_uncertainty.floor", 0.1),
        ("extract_features.context", 0.7), ("train_mapping.epochs", 3), ("evaluate.tie", 0.02), ("seed", 1),
    ],
)  # fmt: skip
def test_a_changed_parameter_touches_the_stages_that_name_its_section(
    checkout: tuple[Path, str], environment: dict[str, str], key: str, value: float
) -> None:
    folder, _ = checkout
    path = folder / "params.yaml"
    before = path.read_text()
    tree: dict[str, Any] = yaml.safe_load(before)
    *sections, last = key.split(".")
    inner = tree
    for section in sections:
        inner = inner[section]
    assert inner[last] != value
    inner[last] = value
    try:
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        touched = changed(folder, environment)
    finally:
        path.write_text(before)
    assert touched == {stage.name for stage in stages.FLOW[:-1] if key.partition(".")[0] in stage.sections}
    assert touched


def test_an_ablation_runs_what_a_row_changes_and_leaves_the_users_files_alone(
    checkout: tuple[Path, str], environment: dict[str, str]
) -> None:
    folder, _ = checkout
    before = {path: path.read_bytes() for path in _users_files(folder)}
    call(folder, environment, "aupair", "ablate", "min-max", "value", "P1")
    tree = store.read_json(folder / "reports" / "ablation.json")
    assert {row["name"]: row["state"] for row in tree["rows"]} == dict.fromkeys(
        ("P2", "P1", "value", "min-max"), "scored"
    )
    logs = folder / "work" / "variants" / "logs"
    assert ran((logs / "P2.txt").read_text()) == [], "the user's own run comes from the cache"
    assert ran((logs / "min-max.txt").read_text()) == ["extract-features", "train-mapping", "evaluate"]
    assert before == {path: path.read_bytes() for path in _users_files(folder)}
    metrics = store.read_json(folder / "reports" / "metrics.json")
    for row in tree["rows"][:2]:
        (same,) = [r for r in metrics["rows"] if (r["name"], r["split"]) == (row["name"], "validation")]
        assert row["validation"]["f1"] == pytest.approx(same["f1"])

    again = call(folder, environment, "aupair", "ablate", "min-max", "value", "P1")
    assert "running stage" not in again
    assert ran((logs / "min-max.txt").read_text()) == [], "what ran before comes from the cache"
    assert store.read_json(folder / "reports" / "ablation.json") == tree


def _users_files(folder: Path) -> list[Path]:
    """Return the user's files: params, dvc.lock, work and reports without those of the ablation."""
    files = [folder / name for name in ("params.yaml", "dvc.lock", "data.dvc", "dvc.yaml")]
    for name in ("work", "reports"):
        files += [path for path in (folder / name).rglob("*") if path.is_file()]
    variants = folder / "work" / "variants"
    return sorted(path for path in files if variants not in path.parents and path.stem != "ablation")


def test_fewer_trials_train_no_f_again(checkout: tuple[Path, str], environment: dict[str, str]) -> None:
    """The folder of the trial that is no longer listed still lies there, and is not read. Last: it changes the lock."""
    folder, _ = checkout
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("trials:\n- 0\n- 1\n", "trials:\n- 1\n"))
    assert yaml.safe_load(path.read_text())["trials"] == [1]
    later = ["train-uncertainty", "extract-features", "train-mapping", "evaluate", "register-model"]
    assert ran(call(folder, environment, "dvc", "repro")) == later
    assert (folder / "work" / "f" / "0").exists()
    assert sorted(path.name for path in (folder / "work" / "bundle" / "f").iterdir()) == ["0"]

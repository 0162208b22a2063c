"""The repository as a whole: its files agree, its layers hold, help is quick, and the demo's data stay out of git."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from aupair import stages
from aupair.mapping.columns import columns
from aupair.params import Params, load_params
from aupair.record import Record
from aupair.stage import ARTIFACTS

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MATRIX = "${item.trial}"


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    stages_of_dvc: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    return stages_of_dvc


def names_of(entries: list[Any]) -> list[str]:
    """Return the names in a list of dvc.yaml, whose entries may have options."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def place(artifact: str) -> str:
    return ARTIFACTS[artifact].format(trial=MATRIX)


def test_a_stage_has_one_name_everywhere(pipeline: dict[str, Any]) -> None:
    assert list(pipeline) == [stage.name for stage in stages.FLOW]
    assert [stage.run.__name__ for stage in stages.FLOW] == [stage.section for stage in stages.FLOW]
    sections = [name for name in Params.model_fields if name not in ("aus", "seed", "target", "trials", "ensemble")]
    assert sections == [stage.section for stage in stages.FLOW]


@pytest.mark.parametrize("stage", stages.FLOW, ids=lambda stage: stage.name)
def test_dvc_runs_what_the_flow_says(pipeline: dict[str, Any], stage: stages.Stage) -> None:
    entry = pipeline[stage.name]
    trial = f" --trial {MATRIX}" if stage.per_trial else ""
    assert entry["cmd"] == f"aupair run {stage.name}{trial}"
    assert entry.get("matrix") == ({"trial": "${trials}"} if stage.per_trial else None)
    assert entry["params"] == list(stage.sections)
    assert set(stage.sections) <= set(Params.model_fields)
    outs = names_of(entry.get("outs", []) + entry.get("metrics", []))
    assert sorted(outs) == sorted(place(name) for name in stage.writes)
    # a stage that gathers all trials depends on the folder: dvc.yaml cannot list what a matrix writes
    gathered = {"work/f"} if not stage.per_trial else set()
    reads = {place(name) for name in stage.reads}
    expected = {path for path in reads if MATRIX not in path or stage.per_trial}
    assert set(entry["deps"]) == expected | (gathered if reads - expected else set())


@pytest.mark.parametrize("stage", stages.FLOW, ids=lambda stage: stage.name)
def test_a_stage_takes_what_the_flow_names(stage: stages.Stage) -> None:
    parameters = inspect.signature(stage.run).parameters
    more = (["trial"] if stage.per_trial else []) + (["checkpoints"] if stage.resumable else [])
    more += ["teacher"] if stage.name == "train-pseudo-intensity" else []
    assert sorted(parameters) == sorted([*stage.reads, *stage.writes, "params", *more, "log"])
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


def test_every_artifact_has_one_writer_before_its_readers() -> None:
    known = {"data"}
    for stage in stages.FLOW:
        assert set(stage.reads) <= known, stage.name
        assert not set(stage.writes) & known, stage.name
        known |= set(stage.writes)
    assert known == set(ARTIFACTS)


def test_only_register_model_always_runs_and_the_summary_is_the_metric(pipeline: dict[str, Any]) -> None:
    assert [name for name, entry in pipeline.items() if entry.get("always_changed")] == ["register-model"]
    assert [entry["metrics"] for entry in pipeline.values() if "metrics" in entry] == [["reports/summary.json"]]


def tree_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def keys_of(tree: Any, prefix: str = "") -> set[str]:
    """Return every key of nested mappings, as a.b.c."""
    if not isinstance(tree, dict):
        return {prefix}
    return {key for name, child in tree.items() for key in keys_of(child, f"{prefix}.{name}".lstrip("."))}


PARAMS_FILES = ("params.yaml", "params/affwild2.yaml", "params/paper.yaml", "params/laptop.yaml")


@pytest.mark.parametrize("name", PARAMS_FILES)
def test_a_params_file_has_exactly_the_keys_of_its_own_kinds(name: str) -> None:
    params = load_params(REPOSITORY / name)
    assert keys_of(tree_of(REPOSITORY / name)) == keys_of(params.model_dump()), "no number hides in a default"


def test_the_papers_settings_are_the_papers() -> None:
    paper = load_params(REPOSITORY / "params/paper.yaml")
    assert (paper.trials, paper.ensemble, paper.preprocess_faces.size) == ((0, 1, 2, 3, 4), "final", 224)
    assert (paper.sample_pairs.mode, paper.sample_pairs.train_pairs, paper.sample_pairs.valid_pairs) == (
        "reference", 10_000, 500,
    )  # fmt: skip
    assert paper.sample_pairs.folds == 1
    for section in (paper.train_pseudo_intensity, paper.train_uncertainty):
        network, optimiser = section.network, section.optimiser
        assert (network.width, network.batch_norm, network.weights) == (1.0, False, "imagenet")
        assert (network.frozen_convolutions, network.dropout, network.sharing) == (2, 0.5, "per_au")
        assert (optimiser.name, optimiser.learning_rate, optimiser.schedule) == ("adam", 5e-5, "constant")
        assert optimiser.batch == 2 * 32
        assert optimiser.steps == 10 * 12 * paper.sample_pairs.train_pairs // 32, "ten epochs"
    assert paper.train_pseudo_intensity.margin == 1
    assert (paper.train_uncertainty.loss, paper.train_uncertainty.margin) == ("nll_margin", 1)
    assert len(columns(paper.extract_features, True)) == 1221 + 1, "the authors' columns, and own.rank"
    assert paper.extract_features.routes == ("raw", "columns")
    mapping = paper.train_mapping
    assert (mapping.width, mapping.dropout, mapping.draws, mapping.epochs, mapping.batch) == (4096, 0.5, 10000, 10, 32)
    assert (mapping.seeds, paper.evaluate.thresholds, paper.evaluate.protocol) == (1, "half", "paper")


def test_settings_for_affwild2_differ_from_the_papers_where_it_matters() -> None:
    ours, paper = (load_params(REPOSITORY / f"params/{name}.yaml") for name in ("affwild2", "paper"))
    assert (ours.sample_pairs.mode, ours.train_uncertainty.kind, ours.ensemble) == ("groups", "factors", "all")
    assert ours.sample_pairs.folds > 1, "sigma and the mapping see scores of people that f has not seen"
    assert ours.extract_features.smoother == "both"
    assert ours.evaluate.protocol == "ours", "nothing is chosen on validation"
    f, theirs = ours.train_pseudo_intensity, paper.train_pseudo_intensity
    assert f.optimiser.batch % ours.sample_pairs.frames == 0
    assert f.optimiser.batch // ours.sample_pairs.frames >= 8, "videos in a batch"
    assert 0 < f.optimiser.patience < f.optimiser.steps / f.optimiser.evaluate_every, "it can stop early"
    assert f.network.sharing == "shared"
    networks = len(ours.trials) * (1 + ours.sample_pairs.folds)
    assert networks * f.optimiser.steps * f.optimiser.batch < (
        0.01 * 12 * len(paper.trials) * theirs.optimiser.steps * theirs.optimiser.batch
    ), "faces forwarded in training"
    assert ours.train_mapping.width * 32 <= paper.train_mapping.width
    assert len(columns(ours.extract_features, False)) < 50, "a route fits on the disk"


KINDS = (
    (), ("train_uncertainty.kind=network",), ("extract_features.kind=histogram",), ("sample_pairs.mode=reference",),
    ("train_pseudo_intensity.network.sharing=integrated", "train_uncertainty.kind=integrated"),
)  # fmt: skip


def test_settings_that_the_docs_name_exist() -> None:
    known: set[str] = set()
    for kind in KINDS:
        params = load_params(REPOSITORY / "params.yaml", kind).model_dump()
        known |= set(params) | {
            key[:end] for key in keys_of(params) for end in [*(m.start() for m in re.finditer(r"\.", key)), len(key)]
        }
    sections = "|".join(name for name, field in Params.model_fields.items() if isinstance(field.default, Record))
    for page in (REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("params/*.yaml")):
        named = set(re.findall(rf"\b(?:{sections})\.[a-z][a-z_.]*[a-z]", page.read_text()))
        assert named <= known, f"{page.name}: {sorted(named - known)}"


def test_requirements_hold_no_address() -> None:
    text = (REPOSITORY / "requirements.lock").read_text()
    assert not re.search(r"https?:|git\+|@ |file:", text)
    pinned = re.findall(r"^([a-zA-Z0-9._-]+)(?:\[.*\])?==", text, re.M)
    assert len(pinned) > 100
    assert text.count("--hash=sha256:") >= len(pinned)


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("mlflow/*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_code_that_the_docs_name_exists() -> None:
    missing = []
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")):
        for module, name in re.findall(r"`([a-z_.]+):([A-Za-z_][\w.]*)`", page.read_text()):
            try:
                attrgetter(name)(importlib.import_module(f"aupair.{module}"))
            except (ImportError, AttributeError) as error:
                missing.append(f"{page.name}: {module}:{name}: {error}")
    assert not missing


def test_mlflow_holds_configuration_only() -> None:
    assert not [path for path in (REPOSITORY / "mlflow").rglob("*") if path.suffix in (".py", ".pyc")]


def test_conditions_are_named_by_synth_and_evaluation_alone() -> None:
    package = REPOSITORY / "src" / "aupair"
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"conditions\.csv|load_conditions|[^a-z]Conditions\b", path.read_text())
    }
    inside = {name for name in naming if not name.startswith(("synth/", "evaluation/"))}
    assert inside == {"stages.py"}
    body = {stage.name: inspect.getsource(stage.run) for stage in stages.FLOW}
    assert [name for name, source in body.items() if "conditions" in source] == ["evaluate"]


def test_the_layers_hold() -> None:
    done = subprocess.run([BIN / "lint-imports", "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


HELP = """
import sys
sys.argv = ["aupair", *{arguments!r}]
from aupair.cli import main as cli
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = ("torch", "torchvision", "mlflow", "great_expectations", "cv2", "pandas", "pyarrow", "numpy", "matplotlib", "yaml")
print("HEAVY", [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["predict", "--help"], ["registry", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy_and_shows_an_example(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(arguments=arguments)], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("HEAVY []")
    if "--help" in arguments:
        assert "aupair" in done.stdout
        assert re.search(r"Example|Start with|List, promote", done.stdout)


LIGHT = """
import sys, aupair
assert aupair.__version__
print("HEAVY", [name for name in ("torch", "mlflow", "pandas", "numpy", "yaml") if name in sys.modules])
try:
    aupair.nothing
except AttributeError as error:
    print(error)
"""


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["HEAVY []", "module 'aupair' has no attribute 'nothing'"]


def test_every_command_has_an_example() -> None:
    from aupair.cli.main import app
    from aupair.cli.registry import app as registry

    for command in (*app.registered_commands, *registry.registered_commands):
        assert command.callback is not None
        assert "aupair " in (command.epilog or ""), command.callback.__name__


def dvc(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def files_below(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_the_demo_corpus_is_small_and_its_remote_is_not_the_default() -> None:
    assert sum(files_below(REPOSITORY / "demo").values()) < 15e6
    config = (REPOSITORY / ".dvc" / "config").read_text()
    assert re.search(r"remote \"demo\"", config)
    assert not re.search(r"^\s*remote\s*=", config, re.M), "a default remote: a bare push would write there"
    assert "demo/** -text" in (REPOSITORY / ".gitattributes").read_text()


def test_pulling_needs_no_network_and_a_bare_push_writes_nothing_into_git(
    clone: Callable[[str], Path], environment: dict[str, str]
) -> None:
    folder = clone("demo")
    before = files_below(folder / "demo")
    no_network = {**environment, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    pulled = dvc(folder, no_network, "pull", "-q", "-r", "demo", "data.dvc")
    assert pulled.returncode == 0, pulled.stderr
    assert (folder / "data" / "splits.csv").exists()

    licensed = folder / "data" / "videos" / "licensed.mp4"
    licensed.write_bytes(os.urandom(64))
    assert dvc(folder, environment, "add", "-q", "data").returncode == 0
    pushed = dvc(folder, environment, "push")
    assert pushed.returncode != 0
    assert "no remote specified" in pushed.stderr
    assert files_below(folder / "demo") == before


def test_dvc_lock_is_not_tracked_while_the_data_are_the_demos() -> None:
    """Floats differ between CPUs: a lock of this machine would make every other one's results look changed."""
    entry = yaml.safe_load((REPOSITORY / "data.dvc").read_text())["outs"][0]["md5"]
    if not (REPOSITORY / "demo" / "files" / "md5" / entry[:2] / entry[2:]).exists():
        pytest.skip("data.dvc is not the demo's: its dvc.lock is worth keeping")
    listed = subprocess.run(["git", "ls-files", "dvc.lock"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert listed.stdout == "", "git rm --cached dvc.lock"
    printed = subprocess.run(
        ["make", "-n", "--no-print-directory", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for text in (printed.splitlines()[-1], (REPOSITORY / "README.md").read_text()):
        assert re.search(r"dvc\.lock.* untracked.* differ from CPU to CPU", text), "git status shows it after the demo"


def test_the_demo_corpus_is_what_the_issue_asks_for() -> None:
    """Read from the remote's own index: no video is unpacked for it."""
    entry = yaml.safe_load((REPOSITORY / "data.dvc").read_text())["outs"][0]
    blob = REPOSITORY / "demo" / "files" / "md5"
    index = json.loads((blob / entry["md5"][:2] / entry["md5"][2:]).read_text())
    at = {item["relpath"]: blob / item["md5"][:2] / item["md5"][2:] for item in index}
    assert all(path.is_file() for path in at.values())
    rows = [line.split(",") for line in at["splits.csv"].read_text().split()[1:]]
    people = {split: {subject for _, subject, s in rows if s == split} for split in ("fit", "select", "validation")}
    total = len(set().union(*people.values()))
    assert total >= 24
    assert total == sum(map(len, people.values())), "nobody in two splits"
    assert [len(people[s]) / total for s in people] == [0.5, 0.25, 0.25]
    for video, _, split in rows:
        folder = "Validation_Set" if split == "validation" else "Train_Set"
        assert {f"videos/{video}.mp4"} | {
            f"annotations/{kind}/{folder}/{video}.txt" for kind in ("AU_Set", "AU_Intensity_Set")
        } <= set(at)

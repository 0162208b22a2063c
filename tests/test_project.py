"""`aupair init`: a project of one's own, outside of a checkout, and what it shares with the repository."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from aupair.errors import AupairError, ParamsError
from aupair.params import Params, load_params, project_model_name
from aupair.project import PRESETS, create_project, shipped
from aupair.registry.gate import load_gate
from conftest import REPOSITORY, Command, contents, files_below

FILES = {
    ".gitignore",
    "data/README.md",
    "dvc.yaml",
    "mlflow/registry.yaml",
    "params.yaml",
    "params/cluster.yaml",
}


def own_files(folder: Path) -> set[str]:
    """Return the files of a project without those of git and DVC."""
    return {name for name in files_below(folder) if not name.startswith((".git/", ".dvc"))}


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def no_git_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the variables by which a hook points git at another repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out git and DVC, which take seconds."""
    monkeypatch.setattr("aupair.project._set_up_version_control", lambda folder, git: None)


def test_a_project_has_every_file_and_both_repositories(aupair: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "My faces"
    outcome = aupair("init", folder)
    assert outcome.code == 0, outcome.err
    assert own_files(folder) == FILES
    assert (folder / ".git").is_dir()
    config = (folder / ".dvc" / "config").read_text()
    assert "analytics = false" in config
    assert config.endswith("[plots]\n    html_template = plots.html\n")
    for name in (".dvc/plots.html", ".dvc/plots/bar_horizontal.json"):
        assert (folder / name).read_text() == (REPOSITORY / name).read_text()
    assert load_params(folder / "params.yaml").register_model.name == "My-faces"
    assert project_model_name(folder / "params.yaml") == "My-faces"
    assert load_gate(folder / "mlflow" / "registry.yaml") == load_gate(REPOSITORY / "mlflow" / "registry.yaml")
    # what the flow writes is not for git
    for name in (
        "data/x.mp4",
        "work/x",
        "reports/table.md",
        "reports/summary.json",
        "mlflow.db",
        "mlflow.db.lock",
        "mlruns/1",
        "predictions/x.csv",
    ):
        assert git(folder, "check-ignore", name).strip() == name


@pytest.mark.usefixtures("files_only")
def test_what_a_project_runs_is_what_the_repository_runs(tmp_path: Path) -> None:
    create_project(tmp_path / "own", git=False)
    for name in ("dvc.yaml", "mlflow/registry.yaml", "params/cluster.yaml"):
        assert (tmp_path / "own" / name).read_bytes() == (REPOSITORY / name).read_bytes()
    assert shipped("pipelines") == REPOSITORY / "pipelines"


@pytest.mark.usefixtures("files_only")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_file_of_the_repository_but_for_the_names(preset: str, tmp_path: Path) -> None:
    create_project(tmp_path / "own", preset, "wrinkles-2")
    params, source = load_params(tmp_path / "own" / "params.yaml"), load_params(REPOSITORY / PRESETS[preset])
    named = {"name": "wrinkles-2", "experiment": "wrinkles-2"}
    assert params == source.model_copy(update={"register_model": source.register_model.model_copy(update=named)})
    assert set(yaml.safe_load((tmp_path / "own" / "params.yaml").read_text())) == set(Params.model_fields)


@pytest.mark.usefixtures("files_only")
def test_the_name_of_the_demos_model_is_never_a_default(tmp_path: Path) -> None:
    assert create_project(tmp_path / "aupair") == "aupair-project"


@pytest.mark.parametrize("below", ["", "studies/faces"])
def test_a_git_repository_of_the_user_is_used(below: str, tmp_path: Path) -> None:
    repository = tmp_path / "own"
    repository.mkdir()
    git(repository, "init", "-q")
    folder = repository / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("mine\n")
    (folder / ".gitignore").write_text("*.tmp")
    create_project(folder)
    assert own_files(folder) == {*FILES, "README.md"}
    assert (folder / "README.md").read_text() == "mine\n"
    assert (folder / ".gitignore").read_text().startswith("*.tmp\n\n# The data")
    assert len(list(repository.rglob(".git"))) == 1
    assert (folder / ".dvc" / "config").is_file()


def test_without_git_dvc_works_alone(tmp_path: Path) -> None:
    create_project(tmp_path / "own", git=False)
    assert own_files(tmp_path / "own") == FILES - {".gitignore"}
    assert not (tmp_path / "own" / ".git").exists()
    assert "no_scm = True" in (tmp_path / "own" / ".dvc" / "config").read_text()


def test_no_file_is_replaced(aupair: Command, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 7\n")
    outcome = aupair("init", tmp_path)
    assert (outcome.code, outcome.line) == (
        2,
        f"files would be replaced: in {tmp_path}, got params.yaml; name another folder, or move them",
    )
    assert contents(tmp_path) == {"params.yaml": b"seed: 7\n"}


@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_nothing(existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "own"
    if existing:
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "clip.mp4").write_bytes(b"frames")
    before = contents(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'Having any troubles?' >&2\necho 'ERROR: no space' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(AupairError, match=r"^dvc init -q failed: in .*own, got ERROR: no space$"):
        create_project(folder)
    (tmp_path / "python").unlink()
    assert contents(tmp_path) == before
    assert folder.exists() == existing
    assert [path.name for path in folder.glob("*")] == (["data"] if existing else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "phone"}, "no such preset, got phone, expected laptop or gpu or paper"),
        ({"name": "a/b"}, "not a name for a model, got 'a/b'"),
    ],
)
def test_a_wrong_option_creates_nothing(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=message):
        create_project(tmp_path / "own", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_one_line(aupair: Command, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("")
    assert "cannot write" in aupair("init", tmp_path / "own").line


@pytest.mark.usefixtures("files_only")
def test_commands_take_the_model_of_the_project(
    aupair: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name reaches the registry, without an option."""
    create_project(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    asked: list[str] = []
    monkeypatch.setattr("aupair.registry.versions.list_versions", lambda name: asked.append(name) or [])
    monkeypatch.setattr("aupair.registry.comparison.read_authors", lambda versions: {})
    monkeypatch.setattr("aupair.registry.versions.pin_version", lambda model: asked.append(model) or 1 / 0)
    assert aupair("registry", "list").code == 0
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(ZeroDivisionError):
        aupair("predict", tmp_path / "clip.mp4", "--out", "predictions")
    assert asked == ["own", "models:/own@champion"]


@pytest.mark.parametrize(("text", "name"), [("", "aupair"), ("register_model: {name: b}", "b"), ("seed: 1", "aupair")])
def test_the_models_name_is_that_of_the_params(text: str, name: str, tmp_path: Path) -> None:
    assert project_model_name(tmp_path / "params.yaml") == "aupair"
    (tmp_path / "params.yaml").write_text(text)
    assert project_model_name(tmp_path / "params.yaml") == name


COMPILE = """
import sys
from pathlib import Path
import yaml
from aupair.kubeflow.cluster import Cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.params import Params
def compiled():
    compile_pipeline("train", Params(), Cluster(), Path("train.yaml"))
    spec = next(yaml.safe_load_all(Path("train.yaml").read_text()))
    print(len(spec["deploymentSpec"]["executors"]), spec["pipelineInfo"]["description"].splitlines()[0])
    return Path(sys.modules.pop("pipelines.train").__file__)
text = compiled().read_text()
Path("pipelines").mkdir()
Path("pipelines/train.py").write_text(text.replace("From videos to a registered model.", "Mine."))
assert compiled() == Path("pipelines/train.py").resolve()
"""


def test_pipelines_compile_anywhere_and_a_projects_own_come_first(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COMPILE], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["12 From videos to a registered model.", "12 Mine."]


WHEEL = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import aupair
from aupair.project import create_project, shipped
assert Path(aupair.__file__).is_relative_to(sys.argv[1]), aupair.__file__
assert shipped("pipelines").is_relative_to(sys.argv[1])
create_project(Path("own"), git=False)
"""


@pytest.mark.slow
def test_an_installed_wheel_makes_the_same_project(
    tmp_path: Path, clone: Callable[[str], Path], environment: dict[str, str]
) -> None:
    """The wheel is unpacked, not installed: the environment's own packages stay as they are."""
    source = clone("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    run = {"check": True, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, **run)  # type: ignore[call-overload]
    site = tmp_path / "site"
    wheel = tmp_path / done.stdout.splitlines()[-1]
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], **run)  # type: ignore[call-overload]
    subprocess.run([sys.executable, "-c", WHEEL, str(site)], cwd=tmp_path, env=environment, **run)  # type: ignore[call-overload]
    create_project(tmp_path / "beside" / "own", git=False)
    for name in FILES - {".gitignore"}:
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "beside" / "own" / name).read_bytes()
    assert "aupair_files/components/evaluate.py" in contents(site)
    assert not [name for name in contents(site / "aupair") if name.endswith(".pyc")]

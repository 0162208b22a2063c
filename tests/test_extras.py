"""The core, which predicts and evaluates without the packages of the extras, and the line that names a missing one."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aupair.extras import MODULES, missing_packages_named
from aupair.inference.bundle import _REQUIREMENTS
from bare import run_bare
from bundle_parts import parts_of_flow
from conftest import REPOSITORY, contents, rows_of

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CLI = "from aupair.cli.main import main\n\nif __name__ == '__main__':\n    main()\n"


def names_of(requirements: list[str]) -> set[str]:
    """Return the normalised names of the packages in a list of requirements."""
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


CORE = sorted(names_of(PROJECT["dependencies"]))
EXTRAS = {extra: names_of(lines) for extra, lines in PROJECT["optional-dependencies"].items()}


def imported_modules() -> set[str]:
    """Return the top-level modules that the package, the components and the pipelines import anywhere."""
    names: set[str] = set()
    for folder in ("src/aupair", "components", "pipelines"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"aupair", "components", "pipelines"}


def required_by(names: set[str]) -> set[str]:
    """Return packages with all that they require, directly or not, without the extras of those."""
    closed: set[str] = set()
    while names:
        closed |= names
        lines = [line for name in names for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
        installed = {normalised for normalised in names_of(lines) if is_installed(normalised)}
        names = installed - closed
    return closed


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def owners() -> dict[str, set[str]]:
    """The names of the packages that bring each top-level module."""
    known = {module: names_of(list(names)) for module, names in importlib.metadata.packages_distributions().items()}
    return {"dlib": {"dlib-bin"}, **known}  # its wheel does not list its modules


AFTER_ANOTHER = {"requests": "mlflow", "sqlalchemy": "mlflow", "s3transfer": "boto3", "urllib3": "boto3"}
"""Modules that are imported only after the module of another package, which requires theirs."""


def test_every_import_is_of_the_core_or_of_an_extra_that_is_named(owners: dict[str, set[str]]) -> None:
    core = required_by(set(CORE))
    for module in imported_modules() - set(MODULES):
        allowed = required_by({AFTER_ANOTHER[module]}) if module in AFTER_ANOTHER else core
        assert owners[module] & allowed, f"{module} is neither in the core nor in aupair.extras"


def test_an_optional_package_is_in_the_extra_that_its_message_names(owners: dict[str, set[str]]) -> None:
    core = required_by(set(CORE))
    for module, (_, extra) in MODULES.items():
        assert owners[module] & required_by(EXTRAS[extra]), module
        assert not owners[module] & core, module
    assert PROJECT["optional-dependencies"]["all"] == ["aupair[train,kubeflow]"]
    assert "aupair[all]" in PROJECT["optional-dependencies"]["dev"]


def test_a_bundle_requires_packages_of_the_core_and_mlflow() -> None:
    assert names_of(list(_REQUIREMENTS)) <= {*CORE, "mlflow"}


def test_requirements_are_ranges() -> None:
    for lines in (PROJECT["dependencies"], PROJECT["optional-dependencies"]["train"]):
        assert all(">=" in line and "==" not in line for line in lines)


def test_only_optional_packages_are_translated() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), missing_packages_named():
        import no_such_module  # noqa: F401


@pytest.fixture
def core(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in the finished flow with the core's packages alone."""
    (home / "cli.py").write_text(CLI)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        hidden = ("mlflow", "dvc", "kfp", "great_expectations", "boto3", "psycopg", "docker", "skimage")
        return run_bare(home / "cli.py", *arguments, cwd=home, packages=CORE, hidden=hidden)

    return call


@pytest.mark.slow
def test_the_core_evaluates_and_predicts(
    core: Callable[..., subprocess.CompletedProcess[str]], home: Path, tiny: Any
) -> None:
    from aupair.inference.bundle import write_bundle

    before = contents(home / "reports" / "metrics.json")
    (home / "reports" / "metrics.json").unlink()
    done = core("run", "evaluate")
    assert done.returncode == 0, done.stderr
    assert contents(home / "reports" / "metrics.json") == before

    write_bundle(home / "bundle", parts_of_flow(home, tiny), tiny)
    video = next((home / "data" / "videos").glob("*.mp4"))
    done = core("predict", str(video), "--model", "bundle", "--out", "predictions")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(home / "predictions" / f"{video.stem}.csv")) == 30
    assert core("report").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (("run", "check-data"), "Great Expectations", "train"),
        (("run", "register-model"), "MLflow", "train"),
        (("predict", "data/videos", "--out", "predictions"), "MLflow", "train"),
        (("registry", "list"), "MLflow", "train"),
        (("registry", "promote", "1"), "MLflow", "train"),
        (("ablate", "P2"), "DVC", "train"),
        (("init", "own"), "DVC", "train"),
        (("synth", "corpus", "--subjects", "4"), "scikit-image", "train"),
        (("pipeline", "compile", "-o", "train.yaml"), "Kubeflow Pipelines' SDK", "kubeflow"),
        (("pipeline", "status", "--host", "http://localhost:1"), "Kubeflow Pipelines' SDK", "kubeflow"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    core: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...], package: str, extra: str
) -> None:
    done = core(*arguments)
    expected = f'aupair: {package} is not installed; pip install "aupair[{extra}]"'
    assert done.stderr.splitlines()[-1:] == [expected], done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 11

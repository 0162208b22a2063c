"""The project folder that `aupair init` creates, and the repository files that are installed with the package."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aupair.errors import AupairError, ParamsError
from aupair.extras import require
from aupair.store import write_text, writing

PRESETS = {"laptop": "params/laptop.yaml", "gpu": "params/affwild2.yaml", "paper": "params/paper.yaml"}
"""The params file of the repository that each preset copies."""

_COPIES = ("dvc.yaml", "mlflow/registry.yaml", "params/cluster.yaml")

_PLOTS = (".dvc/plots.html", ".dvc/plots/bar_horizontal.json")
"""The page of `dvc plots show`, and the template that it draws bars with."""
_DVC_CONFIG = """\
    analytics = false
[plots]
    html_template = plots.html
"""

_GITIGNORE = """\
# The data and everything that is computed from it: DVC keeps these, never git.
/data
work/
/reports/
/predictions/
/dvc_plots/
/mlflow.db*
/mlruns/
/mlartifacts/
"""

_PARAMS_HEAD = """\
# The settings of this project (preset {preset}). `dvc repro` runs the stages that a change affects.
# A key that is unknown or has no effect is an error. `aupair run STAGE --set section.key=value` overrides one.
"""

_DATA_README = """\
# data/

    videos/<video>.mp4                      or .avi .mov .mkv .webm
    annotations/occurrence/<video>.csv      a header with the AUs, then a row for each frame: 1, 0, or empty (not labelled)
    annotations/intensity/<video>.csv       optional: levels 0 to 5; needed for `target: intensity`
    subjects.csv                            video,subject: the person in each video; without it, each video is another person
    splits.csv                              written by `aupair split data`

`aupair import csv labels.csv --videos recordings` imports videos, annotations and subjects from a table of labels;
`aupair import --help` lists the other supported layouts.

This folder is not in git. `dvc add data` puts it under the control of DVC, and `dvc push` copies it to your DVC remote, which
should be as private as the recordings.
"""


def shipped(name: str) -> Path:
    """Return the path of a file or folder of the repository, in its installed copy if there is one."""
    installed = Path(__file__).parents[1] / "aupair_files"  # the wheel contains this folder
    return (installed if installed.is_dir() else Path(__file__).parents[2]) / name


def create_project(folder: Path, preset: str = "laptop", name: str = "", git: bool = True) -> str:
    """Create a project in a folder, which may exist, and return the name of its model.

    No existing file is replaced; patterns are appended to an existing .gitignore. After a failure, all that was created is
    removed.

    Args:
        preset: one of PRESETS.
        name: the name of the registered model and of the experiment in MLflow; empty: the folder's name.
        git: set up git, unless the folder is in a repository already; DVC is set up in any case.

    Raises:
        ParamsError: an unknown preset, a wrong name, or a file that would be replaced.
        AupairError: the folder cannot be written, or git or DVC failed.
    """
    if preset not in PRESETS:
        raise ParamsError("no such preset", got=preset, expected=" or ".join(PRESETS))
    name = name or _model_name(folder)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ParamsError("not a name for a model", got=repr(name), expected="letters, digits, dots, hyphens")
    require("dvc")
    if git and shutil.which("git") is None:
        raise AupairError("a program is not installed", got="git", todo="install it, or add --no-git")
    files = _project_files(preset, name)
    if existing := [file for file in files if os.path.lexists(folder / file)]:
        raise ParamsError(
            "files would be replaced", where=folder, got=", ".join(existing), todo="name another folder, or move them"
        )
    with writing(folder), _removed_on_failure(folder, (*files, ".git", ".dvc", ".dvcignore")):
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        _set_up_version_control(folder, git)
        if git:
            _ignore_outputs(folder / ".gitignore")
    return name


def _model_name(folder: Path) -> str:
    """Derive the model's name from the folder's name; never `aupair`, the name of the demo's model."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-_")
    return name if name not in ("", "aupair") else "aupair-project"


def _project_files(preset: str, name: str) -> dict[str, str]:
    """Return the text of each file of a project by its path."""
    params = shipped(PRESETS[preset]).read_text()
    sections = re.sub(r"\A(#.*\n)*", "", params)
    sections = re.sub(r"(?m)^(  (?:name|experiment)): aupair$", rf"\1: {name}", sections)
    files = {"params.yaml": _PARAMS_HEAD.format(preset=preset) + sections, "data/README.md": _DATA_README}
    return files | {file: shipped(file).read_text() for file in _COPIES}


@contextmanager
def _removed_on_failure(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """If the block fails or is interrupted, remove those of the named files that it created, and its empty folders."""
    paths = [folder / name for name in names]
    parents = {parent for path in paths for parent in path.parents}
    created = [path for path in paths if not os.path.lexists(path)]
    created_folders = sorted((parent for parent in parents if not parent.exists()), reverse=True)
    try:
        yield
    except BaseException:
        for path in created:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        for path in created_folders:
            with suppress(OSError):  # not empty: something else is in it now
                path.rmdir()
        raise


def _set_up_version_control(folder: Path, git: bool) -> None:
    """Create the git and DVC repositories in a folder, unless they exist."""
    if git and not _git_root(folder):
        _run(folder, "git", "init", "-q")
    if (folder / ".dvc").exists():
        return
    root = _git_root(folder) if git else None
    option = ["--no-scm"] if root is None else [] if root.samefile(folder) else ["--subdir"]
    _run(folder, sys.executable, "-m", "dvc", "init", "-q", *option)
    config = folder / ".dvc" / "config"  # empty, or no more than the section core
    write_text(config, (config.read_text() or "[core]\n") + _DVC_CONFIG)
    for name in _PLOTS:
        write_text(folder / name, shipped(name).read_text())


def _ignore_outputs(path: Path) -> None:
    """Append the patterns of data and outputs to a .gitignore; the last step, since it cannot be undone after a failure."""
    text = path.read_text() if path.exists() else ""
    if _GITIGNORE not in text:
        write_text(path, f"{text.rstrip()}\n\n{_GITIGNORE}" if text.strip() else _GITIGNORE)


def _git_root(folder: Path) -> Path | None:
    """Return the root of the git repository that contains a folder; None if there is none."""
    process = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True)
    return None if process.returncode else Path(process.stdout.rstrip("\n"))


def _run(folder: Path, *command: str) -> None:
    """Run a command in a folder.

    Raises:
        AupairError: it failed.
    """
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode:
        lines = (process.stderr.strip() or process.stdout.strip() or "no message").splitlines()
        lines.sort(key=lambda line: not line.startswith(("ERROR: ", "fatal: ")))
        what = " ".join(command).removeprefix(f"{sys.executable} -m ")
        raise AupairError(f"{what} failed", where=folder, got=lines[0])

"""The origin of a report: data, commit and versions, shown below its heading and in a table at its end."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import __version__, store
from aupair.data.frames import Frames
from aupair.data.hashing import read_data_md5
from aupair.params import Params
from aupair.report.tables import Table
from aupair.revision import get_revision

if TYPE_CHECKING:
    from aupair.report.reports import Sources

Tree = Mapping[str, Any]

_NO_COMMIT = "none: outside of a git repository"
_UNKNOWN = "not known"
_HIDDEN = ("aus", "standardisation", "guard_of_aus", "signals", "members")
"""Keys of about.json that are computed, not set by a user."""


def describe_origin(sources: "Sources", folder: Path) -> list[tuple[str, str]]:
    """Return the hash of the data, the commit with its date, and the versions of aupair and MLflow, each with its name.

    The time of the run is not included, so that equal runs write equal bytes; MLflow records it for runs that are logged.

    Args:
        folder: the folder of the report, whose git repository determines the commit.
    """
    data = _UNKNOWN if sources.info is None else read_data_md5(sources.info)
    return [
        ("data", data.removesuffix(".dir")),
        ("commit", str(get_revision(folder) or _NO_COMMIT)),
        ("aupair", __version__),
        ("MLflow", _version_of("mlflow")),
    ]


def _version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def origin_table(origin: Sequence[tuple[str, str]], params: Params, frames: Frames, metrics: Tree) -> Table:
    """Return a table of the origin and of the settings that concern the whole report."""
    several = params.ensemble == "all" and len(params.trials) > 1
    lines = [
        *origin,
        ("sha256 of splits, faces and labels", frames.fingerprint()[:16]),
        ("target", params.target),
        ("protocol", str(metrics["protocol"])),
        ("trials", ", ".join(map(str, params.trials))),
        ("networks of f", {"all": "all, their mean", "final": "the best trial's final network"}[params.ensemble]),
        ("spread between networks as an input of sigma", "yes" if several else "none: a frame of fit has one"),
        ("route with uncertainty", str(metrics["route"])),
    ]
    names = {"data": "MD5 of the data folder, as in data.dvc", "MLflow": "MLflow, as installed"}
    return Table("Origin", ["", ""], [[names.get(name, name), value] for name, value in lines])


def settings_table(trained: Mapping[str, Path], params: Params) -> Table:
    """Return a table of the settings that are stored with the trained networks, and of those of evaluate.

    Args:
        trained: the folders of f, h and the mapping, by these names.
    """
    lines: list[Sequence[str]] = []
    for name, folder in trained.items():
        about = store.read_json(folder / "about.json")
        lines += _leaves(name, {key: value for key, value in about.items() if key not in _HIDDEN})
    lines += _leaves("evaluate", params.evaluate.model_dump(mode="json"))
    return Table("Settings", ["setting", "value"], lines)


def _leaves(prefix: str, tree: Tree) -> Iterator[Sequence[str]]:
    """Return the name and the value of each leaf of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{key}", value)
        else:
            yield [f"{prefix}.{key}", str(value)]

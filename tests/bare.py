"""Scripts on a machine that has only some packages and what they require: all others are hidden from them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_BARE = """
import importlib.machinery, importlib.metadata, re, runpy, sys

def add_requirements(names, packages):
    for name in names:
        if name not in packages:
            packages.add(name)
            try:
                lines = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            required = [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in lines if "extra ==" not in line]
            add_requirements([re.sub(r"[-_.]+", "-", package).lower() for package in required], packages)
    return packages

ALLOWED = add_requirements(sys.argv[1].split(), set())
HIDDEN = sys.argv[2].split()
OWNERS = importlib.metadata.packages_distributions()

class BareFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = OWNERS.get(name.partition(".")[0])
        if owners and not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & ALLOWED:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, BareFinder]
for name in HIDDEN:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported: the finder does not hide it")
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


TRAINING = ("torch", "torchvision", "numpy", "pyarrow", "opencv-python", "pydantic", "pyyaml", "safetensors")
"""What the training of f, h and the mappings needs."""


def run_bare(
    script: Path,
    *arguments: str,
    cwd: Path,
    packages: Sequence[str] = TRAINING,
    hidden: Sequence[str] = ("rich", "pandas", "scipy"),
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that can import these packages and no others.

    Args:
        hidden: some modules of other packages; it is checked that they cannot be imported.
    """
    command = [sys.executable, "-c", _BARE, " ".join(packages), " ".join(hidden), str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=2400, cwd=cwd)

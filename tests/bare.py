"""Scripts on a machine that has no more packages than training needs: all others are hidden from them."""

import subprocess
import sys
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

ALLOWED = add_requirements(
    ["torch", "torchvision", "numpy", "pyarrow", "opencv-python", "pydantic", "pyyaml", "safetensors"], set()
)
OWNERS = importlib.metadata.packages_distributions()

class BareFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = OWNERS.get(name.partition(".")[0])
        if owners and not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & ALLOWED:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, BareFinder]
for name in ("rich", "pandas", "scipy"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported: the finder does not hide it")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_bare(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that cannot import any other package."""
    command = [sys.executable, "-c", _BARE, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=2400, cwd=cwd)

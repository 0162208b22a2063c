"""The start of predict: what is imported before the first video, counted and never timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aupair.inference.bundle import write_bundle
from bundle_parts import write_real_parts

SLOW = {
    "boto3", "botocore", "dvc", "great_expectations", "kfp", "matplotlib", "mlflow", "pandas", "requests", "scipy",
    "skimage", "sklearn", "sqlalchemy", "torchvision",
}  # fmt: skip
"""Packages that take a tenth of a second or more to import."""


def imported(code: str) -> set[str]:
    """Return the top-level modules that a new process has imported after some code."""
    listing = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    process = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True)
    return set(json.loads(process.stdout.splitlines()[-1]))


def test_a_bundle_is_loaded_by_torch_alone(tmp_path: Path, tiny: object) -> None:
    write_bundle(tmp_path / "bundle", write_real_parts(tmp_path / "work", ("AU1", "AU2"), tiny), tiny)
    code = f"from aupair import Recognizer; Recognizer.load({str(tmp_path / 'bundle')!r}, 'cpu')"
    names = imported(code)
    assert "torch" in names
    assert names & SLOW == set()


@pytest.mark.parametrize("command", [["--help"], ["predict", "--help"], ["registry", "--help"]])
def test_help_needs_none_of_the_libraries(command: list[str]) -> None:
    code = f"""
import sys
from aupair.cli.main import app
try:
    app({command!r})
except SystemExit:
    pass
"""
    names = imported(code)
    assert names & (SLOW | {"torch", "pyarrow", "cv2"}) == set()


def test_translating_errors_of_the_store_imports_nothing_until_one_is_raised() -> None:
    names = imported("from aupair.registry.mlflow_store import mlflow_errors\nwith mlflow_errors('x'): pass")
    assert names & SLOW == set()

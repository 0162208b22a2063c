"""docs/own_project.md, followed to the letter in an empty folder."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY, rows_of

PAGE = (REPOSITORY / "docs" / "own_project.md").read_text()


@pytest.mark.slow
def test_a_newcomer_can_follow_the_page(tmp_path: Path, environment: dict[str, str]) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(blocks) == 5
    names = {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    script = "set -euo pipefail\n" + "".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**environment, **names}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    project = tmp_path / "faces"
    rows = rows_of(project / "predictions" / "s000c0.csv")
    assert len(rows) == 50
    assert {"AU4", "AU12", "AU25"} == {name for name in rows[0] if re.fullmatch(r"AU\d+", name)}
    assert "version 1 is the champion" in done.stdout
    for line in printed_lines():
        assert line in done.stdout, f"the page shows: {line}"
    left = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    assert left.stdout.split() == ["M", "params.yaml", "??", "dvc.lock", "??", "reports/", "??", "train.yaml"]
    assert os.listdir(project / "reports")


def printed_lines() -> list[str]:
    """Return the lines that the page shows as outputs, but for the predictions, whose figures depend on the machine."""
    shown = re.findall(r"^```\n([A-Za-z].*?)^```$", PAGE, re.M | re.S)
    return [line for text in shown for line in text.splitlines() if line.startswith(("│", "data: ", "next: "))]

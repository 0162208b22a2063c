"""docs/own_project.md: its commands are run as they stand, but for those that train and those that need a trained model."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "own_project.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
SHOWN = re.findall(r"^```\n(data.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.slow
def test_a_newcomer_can_follow_the_page(tmp_path: Path, environment: dict[str, str]) -> None:
    recordings, project, training, model, more = BLOCKS
    assert "dvc repro" in training
    assert "aupair predict" in model
    names = {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    script = "set -euo pipefail\n" + recordings + project + training.partition("dvc repro")[0] + "dvc status\n" + more
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment | names, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(SHOWN) == 2, "what import and split print"
    for line in "".join(SHOWN).splitlines():
        assert line in done.stdout, f"the page shows: {line}"
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path / "faces", capture_output=True, text=True, check=True
    )
    assert changed.stdout.split() == ["M", "params.yaml", "??", "train.yaml"]
    assert "steps: 20" in (tmp_path / "faces" / "params.yaml").read_text()

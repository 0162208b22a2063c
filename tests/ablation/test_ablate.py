"""What `aupair ablate` refuses, and that it can be stopped; runs of the flow themselves are in tests/test_dvc.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aupair import stages
from aupair.ablation.ablate import Ablation, duration
from aupair.errors import ArtifactError
from aupair.params import Params
from conftest import Command

DATA_DVC = "outs:\n- md5: abc.dir\n  path: data\n"


def test_without_tracked_data_it_says_what_to_do(home: Path, aupair: Command) -> None:
    outcome = aupair("ablate", "--budget", "1")
    assert outcome.code == ArtifactError.exit_code
    assert outcome.line == "no data tracked by DVC: in data.dvc, got FileNotFoundError; dvc add data"


def test_an_unknown_row_and_a_wrong_file_are_refused_before_any_work(home: Path, aupair: Command) -> None:
    (home / "data.dvc").write_text(DATA_DVC)
    assert "no such row or group, got printd" in aupair("ablate", "printd").line
    (home / "other.json").write_text("[]")
    assert "expected an ablation.json" in aupair("ablate", "--beside", "other.json").line
    assert not (home / "work" / "ablation").exists()


def test_the_plan_runs_nothing(home: Path, aupair: Command) -> None:
    (home / "data.dvc").write_text(DATA_DVC)
    outcome = aupair("ablate", "printed", "--plan", "--budget", "10")
    assert outcome.code == 0
    assert "printed" in outcome.out
    assert not (home / "work" / "ablation").exists()


def test_two_at_once_are_refused(tmp_path: Path, tiny: Params) -> None:
    from aupair.ablation.ablate import _locked

    ablation = Ablation(tmp_path, tiny, (), "abc")
    with (
        _locked(tmp_path / "work" / "ablation" / "lock"),
        pytest.raises(ArtifactError, match="an ablation is running here already"),
    ):
        ablation.run(0.0)
    assert ablation.run(0.0) == []


def test_a_stop_reaches_the_stage_that_runs(tmp_path: Path) -> None:
    """SIGTERM to the command ends DVC and the stage below it, which are in a session of their own."""
    program = tmp_path / "dvc" / "__main__.py"  # stands for DVC: a shell with a child that would go on for a minute
    program.parent.mkdir()
    program.write_text(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    (tmp_path / "dvc" / "__init__.py").touch()
    script = (
        "from pathlib import Path\n"
        "from aupair.ablation.ablate import _locked\n"
        "from aupair.ablation.workspace import Workspace\n"
        "from aupair.log import SILENT\n"
        "from aupair.params import Params\n"
        f"root = Path({str(tmp_path)!r})\n"
        "with _locked(root / 'lock'):\n"
        "    Workspace(root, root).run(Params(), SILENT, root / 'heard.txt')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE) as process:
        waited = time.monotonic()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() - waited < 60
            time.sleep(0.05)
        child = int((tmp_path / "pid").read_text())
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_for_a_person(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lineage_follows_the_flow(tiny: Params) -> None:
    """A stage's outputs depend on its own sections and on those of the stages it reads from, and on no other."""
    other = tiny.model_copy(update={"train_mapping": tiny.train_mapping.model_copy(update={"epochs": 9})})
    touched = [s.name for s in stages.FLOW[:-1] if stages.lineage(s.name, tiny) != stages.lineage(s.name, other)]
    assert touched == ["train-mapping", "evaluate"]
    seed = tiny.model_copy(update={"seed": 7})
    touched = [s.name for s in stages.FLOW[:-1] if stages.lineage(s.name, tiny) != stages.lineage(s.name, seed)]
    assert touched == [s.name for s in stages.FLOW[2:-1]]

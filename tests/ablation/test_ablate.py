"""Wrong use of `aupair ablate`, its plan, and its workspace; tests/test_dvc.py runs rows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aupair.ablation.ablate import count_aus, run_ablation
from aupair.ablation.workspace import Workspace
from aupair.errors import ArtifactError, ParamsError, RunFailedError
from aupair.log import SILENT
from aupair.params import Params, parse_params
from conftest import Command


def test_a_checkout_without_tracked_data_is_one_line(home: Path, aupair: Command) -> None:
    (home / "dvc.yaml").touch()
    outcome = aupair("ablate", "printed")
    assert outcome.code == ArtifactError.exit_code
    assert outcome.line == "variants of the flow need DVC: in data.dvc, got nothing; dvc add data"


def test_unknown_rows_and_wrong_files_are_refused_before_any_work(home: Path, aupair: Command) -> None:
    assert "no such row or group, got printd" in aupair("ablate", "printd").line
    (home / "other.json").write_text("[]")
    assert "expected an ablation.json" in aupair("ablate", "--beside", "other.json").line
    assert "expected ours" in aupair("ablate", "--set", "evaluate.protocol=paper").line
    assert not (home / "work" / "variants").exists()


def test_the_plan_lists_what_rows_change_and_runs_nothing(home: Path, aupair: Command) -> None:
    outcome = aupair("ablate", "printed", "wide", "half", "--plan", "--set", "evaluate.thresholds=half")
    assert outcome.code == 0
    assert "train_uncertainty.loss: printed" in outcome.out
    assert "train_pseudo_intensity.network.width: 0.1" in outcome.out
    assert "left out: params.yaml has these settings already" in outcome.out
    assert not (home / "work" / "variants").exists()


def test_two_commands_at_once_are_refused(tmp_path: Path, tiny: Params) -> None:
    with Workspace(tmp_path).locked(), pytest.raises(ArtifactError, match="`aupair ablate` or `distill` is running"):
        run_ablation(tmp_path, tiny, ["P2"])


def test_sigterm_ends_dvc_and_the_stage_that_runs(tmp_path: Path) -> None:
    program = tmp_path / "dvc" / "__main__.py"  # stands for DVC: a process with a child that would run for a minute
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
        "from aupair.ablation.workspace import Workspace\n"
        "from aupair.log import SILENT\n"
        "from aupair.params import Params\n"
        f"workspace = Workspace(Path({str(tmp_path)!r}))\n"
        "with workspace.locked():\n"
        "    workspace.root.mkdir()\n"
        "    workspace.run(Params(), 'slow', SILENT)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE) as process:
        start = time.monotonic()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() - start < 60
            time.sleep(0.05)
        child = int((tmp_path / "pid").read_text())
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_fails_is_told_by_its_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc" / "__init__.py").touch()
    (tmp_path / "dvc" / "__main__.py").write_text("print('aupair: no faces'); print('ERROR: stage'); exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workspace = Workspace(tmp_path)
    stale = workspace.root / "work" / "f" / "7"
    stale.mkdir(parents=True)
    with pytest.raises(RunFailedError, match=r"the variant wide failed: in .*wide\.txt, got no faces;"):
        workspace.run(Params(), "wide", SILENT)
    assert not stale.exists(), "h would depend on a trial that the params do not name"


def test_the_papers_protocol_is_refused(tmp_path: Path, tiny: Params) -> None:
    paper = tiny.model_copy(update={"evaluate": tiny.evaluate.model_copy(update={"protocol": "paper"})})
    with pytest.raises(ParamsError, match="expected ours, which chooses on select"):
        run_ablation(tmp_path, paper, [])


def test_the_aus_of_a_checkout_are_those_of_its_params_or_its_annotations(tmp_path: Path) -> None:
    base = parse_params({})
    for kind, head in (("occurrence", "AU1,Head-shake,AU4"), ("intensity", "AU1,AU4")):
        folder = tmp_path / "data" / "annotations" / kind
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text(f"{head}\n")
    (tmp_path / "data" / "videos").mkdir()
    (tmp_path / "data" / "videos" / "a.mp4").write_bytes(b"")
    assert count_aus(tmp_path, base) == 3
    assert count_aus(tmp_path, parse_params({"target": "intensity"})) == 2
    assert count_aus(tmp_path, parse_params({"aus": ["AU4"]})) == 1

"""What killed processes leave behind, and two `dvc repro` at once.

What is left is removed by the next run, and never lies in a folder that DVC hashes. That nothing is left after a kill at
any moment is checked by every case of test_kill.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from aupair import store
from aupair.disk import sweep
from aupair.faces.folder import preprocess
from aupair.ranking import scores
from conftest import REPOSITORY, artifact


def leave(folder: Path, name: str) -> Path:
    """Leave behind what a killed process does that was writing `name`; return it."""
    code = f"import os; from aupair.disk import atomic\nwith atomic({str(folder / name)!r}) as path: path.mkdir(); os._exit(9)"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from pathlib import Path\n" + code.replace("atomic('", "atomic(Path('").replace("') as", "')) as"),
        ],
        check=False,
    )
    (left,) = folder.glob(f".{name}.*.tmp")
    return left


def test_a_trial_is_written_beside_the_folder_that_dvc_hashes(
    home: Path, tiny: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`work/f`, of which each trial is a folder, is a dependency of train-uncertainty."""
    seen: list[str] = []
    write = store.write_json

    def look(path: Path, value: object) -> None:
        seen.extend(os.listdir(home / "work" / "f"))
        assert path.parent.parent.parent == home / "work", "the temporary folder"
        write(path, value)

    monkeypatch.setattr(scores.store, "write_json", look)
    from aupair import stages

    stages.run_stage("train-pseudo-intensity", tiny, root=home, trial=0)  # type: ignore[arg-type]
    assert sorted(set(seen)) == ["0", "1"]
    assert not list((home / "work").glob(".*"))


def test_a_file_in_another_disk_than_its_folder_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "above" / "in").mkdir(parents=True)
    stat = os.stat
    other = tmp_path / "above" / "in"
    monkeypatch.setattr(
        "aupair.disk.os.stat", lambda path, **more: stat("/dev" if Path(path) == other else path, **more)
    )
    with store.atomic(other / "a", beside=other) as temporary:
        temporary.write_text("")
        assert temporary.parent.parent == other


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "ü" * 127):
        store.write_text(tmp_path / name, "whole")
    assert len(os.listdir(tmp_path)) == 2


def test_faces_begin_without_the_leftovers_of_a_killed_run(fresh: Path, tiny: object) -> None:
    folder = fresh / "work" / ".faces-in-progress"
    folder.mkdir(parents=True)
    leave(folder, "s000c0.arrow")
    assert preprocess([], artifact(fresh, "faces"), tiny.preprocess_faces) == []  # type: ignore[attr-defined]
    assert os.listdir(fresh / "work") == ["faces"]


def test_only_folders_of_this_kind_are_swept(tmp_path: Path) -> None:
    leave(tmp_path, "a")
    for name in (".a.fetching", ".a.tmp", "a.abcdefgh.tmp", ".venv"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.abcdefgh.tmp").write_text("a user's file")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".a.abcdefgh.tmp", ".a.fetching", ".a.tmp", ".venv", "a.abcdefgh.tmp"]


@pytest.mark.slow
def test_of_two_dvc_repro_at_once_one_runs_and_the_other_is_refused_or_has_nothing_to_do(
    fresh: Path, environment: dict[str, str]
) -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    (fresh / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"check-data": stages["check-data"]}}))
    for command in ("git init -q", "dvc init -q", "dvc add -q data"):
        subprocess.run(command.split(), cwd=fresh, env=environment, check=True, capture_output=True)
    repro = partial(
        subprocess.Popen, ["dvc", "repro"], cwd=fresh, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    both = [repro(), repro()]
    outputs = [process.communicate()[0].decode() for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, outputs
    for code, output in zip(codes, outputs):
        assert code == 0 or "is busy" in output or "acquire lock" in output, output
    assert sum("Running stage 'check-data'" in output for output in outputs) == 1
    status = subprocess.run(["dvc", "status"], cwd=fresh, env=environment, capture_output=True, text=True, check=True)
    assert "up to date" in status.stdout

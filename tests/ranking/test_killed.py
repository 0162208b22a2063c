"""A training stage that is killed or told to stop, and started again, writes the same bytes."""

import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import stages, store
from aupair.params import Params, parse_params
from aupair.record import apply_settings
from conftest import as_yaml, contents
from listener import Listener

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["aupair.ranking.samples", "aupair.ranking.scores", "aupair.ranking.uncertainty", "torch._dynamo"]
)
"""With all that a child needs; an optimiser of torch imports torch._dynamo."""


def longer(tiny: Params, steps: int = 24, **h: Any) -> Params:
    """The tiny settings, but long enough to be killed on the way."""
    tree = tiny.model_dump()
    for name in ("train_pseudo_intensity", "train_uncertainty"):
        tree[name]["optimiser"] |= {"steps": steps, "fold_steps": 12}
    tree = apply_settings(Params, tree, {f"train_uncertainty.{key}": value for key, value in h.items()}, "the test")
    return parse_params(tree)


def trial_of(name: str) -> int | None:
    """Return 0 for the stage that runs once for each trial."""
    return 0 if stages.get_stage(name).per_trial else None


def run_in_child(name: str, params: Params, home: Path) -> Any:
    process = FORK.Process(target=stages.run_stage, args=(name, params), kwargs={"root": home, "trial": trial_of(name)})
    process.start()
    return process


def saved(folder: Path) -> set[tuple[str, int]]:
    """Return name and time of each checkpoint, by which two versions of it differ."""
    versions = set()
    for path in folder.glob("*.pt"):
        try:
            versions.add((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return versions


def kill_after_a_save(process: Any, folder: Path, rng: np.random.Generator) -> bool:
    """Kill a child some moments after it has saved something; return whether that was before its end."""
    before = saved(folder)
    end = time.monotonic() + 120
    while process.is_alive() and saved(folder) <= before:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.join(rng.uniform(0, 0.15))
    process.kill()
    process.join()
    return bool(process.exitcode == -signal.SIGKILL)


@pytest.mark.parametrize(("name", "kind"), [("train-pseudo-intensity", "network"), ("train-uncertainty", "network")])
def test_killed_at_any_moment_a_stage_ends_with_the_same_bytes(home: Path, tiny: Params, name: str, kind: str) -> None:
    params, rng, log = longer(tiny, kind=kind), np.random.default_rng(0), Listener()
    network, output = ("f", home / "work/f/0") if trial_of(name) == 0 else ("h", home / "work/h")
    checkpoints = home / "work/checkpoints" / (name if trial_of(name) is None else f"{name}-0")
    whole = run_in_child(name, params, home)
    whole.join()
    assert whole.exitcode == 0
    expected = contents(output)
    shutil.rmtree(output)
    killed = [kill_after_a_save(run_in_child(name, params, home), checkpoints, rng) for _ in range(5)]
    assert sum(killed) >= 3
    assert not output.exists()
    stages.run_stage(name, params, root=home, trial=trial_of(name), log=log)
    assert log.lines[0].startswith(f"resuming {network}.final at step ")
    assert contents(output) == expected
    assert not checkpoints.exists()


@pytest.mark.slow
def test_the_command_stops_after_sigterm_and_resumes(home: Path, tiny: Params) -> None:
    params, log = longer(tiny, steps=120), Listener()
    output, checkpoints = home / "work/f/0", home / "work/checkpoints/train-pseudo-intensity-0"
    (home / "params.yaml").write_text(as_yaml(params))
    command = [sys.executable, "-m", "aupair", "run", "train-pseudo-intensity", "--trial", "0"]
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not saved(checkpoints):
        time.sleep(0.002)
    process.terminate()
    printed = process.communicate(timeout=600)[1]
    assert process.returncode == 143, printed
    assert printed.splitlines()[-1].startswith("aupair: stopped: in f.final, got SIGTERM at step "), printed
    stages.run_stage("train-pseudo-intensity", params, root=home, trial=0, log=log)
    assert log.lines[0].startswith("resuming f.final at step ")
    steps = [row["step"] for row in store.read_jsonl(output / "curves.jsonl") if row["network"] == "f.final"]
    assert steps == list(range(2, 121, 2))
    assert not checkpoints.exists()


def test_a_checkpoint_of_other_settings_is_not_used(home: Path, tiny: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    from aupair.ranking import scores

    def broken(*arguments: Any) -> None:
        raise InterruptedError

    other = parse_params(
        {**tiny.model_dump(), "train_pseudo_intensity": {**tiny.train_pseudo_intensity.model_dump(), "margin": 2}}
    )
    with monkeypatch.context() as patch:
        patch.setattr(scores, "save_f", broken)
        with pytest.raises(InterruptedError):
            stages.run_stage("train-pseudo-intensity", other, root=home, trial=0)
    checkpoints = home / "work/checkpoints/train-pseudo-intensity-0"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["f.final.pt", "f.fold0.pt", "f.fold1.pt"]
    before, log = contents(home / "work/f/0"), Listener()
    stages.run_stage("train-pseudo-intensity", tiny, root=home, trial=0, log=log)
    assert contents(home / "work/f/0") == before
    assert len(log.lines) == 3
    assert all("was written with other settings or data" in line for line in log.lines)
    assert not checkpoints.exists()

"""Local runs of the compiled training pipeline in subprocesses: up to a registered version, and failures."""

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aupair import stages, store
from aupair.kubeflow.cluster import Cluster, load_cluster
from aupair.kubeflow.compile import compile_pipeline
from aupair.params import Params
from aupair.registry import mlflow_store
from aupair.stage import ARTIFACTS

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """The result of a local run: exit code, output, and its folder."""

    root: Path
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The folder of artifacts and logs."""
        return next((self.root / "work" / "pipeline").glob("local-*"))

    def artifact(self, stage: str, name: str, trial: int | None = None) -> Path:
        """Return KFP's place of an output of a stage."""
        (pipeline,) = (self.folder / "artifacts").iterdir()
        return (pipeline if trial is None else pipeline / f"for-loop-2-iteration-{trial}") / stage / name


Local = Callable[..., Run]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tiny: Params, environment: dict[str, str]) -> Local:
    """Return a function that runs the training pipeline on a data folder, with arguments and compile options."""

    def run(data: Path, *given: str, options: tuple[str, ...] = ()) -> Run:
        root = tmp_path_factory.mktemp("local")
        (root / "data").symlink_to(data)
        compile_pipeline("train", tiny, load_cluster(None, options), root / "train.yaml", REPOSITORY)
        command = ["aupair", "pipeline", "run", "train.yaml", "--local"]
        for text in given:
            command += ["--param", text]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        return Run(root, done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def whole(local: Local, corpus: Path) -> Run:
    """Run the pipeline with two trials, from the data to a registered version."""
    return local(corpus, "register_model.rehearsals=true")


def test_it_ends_with_a_registered_version_and_a_summary(whole: Run) -> None:
    assert whole.code == 0, whole.err
    assert store.read_json(whole.artifact("register-model", "registered"))["version"] == 1
    assert whole.out.startswith("# SUCCEEDED")
    assert "P2: uncertainty except for AUs where it clearly loses" in whole.out
    assert "mlflow ui --backend-store-uri" in whole.out
    tasks = re.findall(r"^  < (.*): ok", whole.err, re.M)
    assert len(tasks) == 11 + 2, "f runs once for each trial"
    assert {f"train-pseudo-intensity (trial {trial})" for trial in (0, 1)} <= set(tasks)
    assert len(list((whole.folder / "logs").iterdir())) == len(tasks), "a log for each task"


def test_kfp_gives_the_bytes_that_dvc_and_one_process_give(whole: Run, finished: Path) -> None:
    """Compare bytes: one machine, one environment, one thread count. test_dvc.py compares `dvc repro` with the same folder."""
    for stage in stages.FLOW[:-1]:
        for trial in (0, 1) if stage.per_trial else (None,):
            for name in stage.writes:
                expected = finished / ARTIFACTS[name].format(trial=trial)
                files = [path for path in [expected, *expected.rglob("*")] if path.is_file()]
                assert files
                for path in files:
                    copy = whole.artifact(stage.name, name, trial) / path.relative_to(expected)
                    assert copy.read_bytes() == path.read_bytes(), path


def test_mlflow_has_every_stage_of_the_run(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{whole.root}/mlflow.db")
    client = mlflow_store.open_mlflow()
    runs = client.search_runs([client.get_experiment_by_name("aupair").experiment_id])
    assert len(runs) == 1 + 9 + 2, "the parent, nine stages, and f for each trial"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["pipeline_run_id"] for run in runs} == {whole.folder.name}
    of_stage = {run.data.tags["stage"]: run for run in runs}
    parent = of_stage["flow"]
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs if run is not parent} == {parent.info.run_id}
    assert parent.data.tags["data.md5"] == store.read_json(whole.artifact("check-data", "info"))["md5"]
    history = client.get_metric_history(of_stage["train-pseudo-intensity"].info.run_id, "f.final/loss")
    assert [point.step for point in history] == [2, 3], "logged live, and not again at the end"
    version = client.get_model_version("aupair", "1")
    assert version.run_id == parent.info.run_id
    assert version.tags["pipeline_run_id"] == whole.folder.name


def test_no_checkpoint_is_left(whole: Run) -> None:
    checkpoints = whole.root / "work" / "pipeline" / "checkpoints"
    assert not [path for path in checkpoints.rglob("*") if path.is_file()]


def test_a_failing_stage_is_named_with_its_traceback_and_the_rest_is_not_run(
    local: Local, corpus: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "splits.csv").unlink()
    failed = local(data, options=("retries=1", "backoff=0"))
    assert failed.code == 9
    *_, line = failed.err.splitlines()
    log = failed.folder / "logs" / "02-check-data-try2.log"
    assert re.fullmatch(
        rf"aupair: check-data failed: in {re.escape(str(log))}, got .*splits\.csv.*; the log has the rest", line
    )
    assert "Traceback (most recent call last):" in failed.err
    assert "aupair.errors.DataError" in failed.err
    assert failed.err.count("< check-data: FAILED with exit code 1") == 2, "tried once more"
    assert "preprocess-faces" not in failed.err
    assert "Traceback" not in line
    summary = failed.artifact("summarise", "result").read_text()
    assert summary.startswith("# FAILED")
    assert "* failed: check-data" in summary
    assert not failed.artifact("check-data", "labels").exists()
    assert "\x1b" not in failed.err


def test_ctrl_c_ends_the_task_and_starts_no_other(
    corpus: Path, tiny: Params, environment: dict[str, str], tmp_path: Path
) -> None:
    compile_pipeline("train", tiny, Cluster(), tmp_path / "train.yaml", REPOSITORY)
    process = subprocess.Popen(
        ["aupair", "pipeline", "run", "train.yaml", "--local", "--param", f"source={corpus}"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("  > check-data"):
            break
    process.send_signal(signal.SIGINT)  # to the run alone: a task must not outlive it
    output = process.communicate(timeout=60)[1]
    assert (process.returncode, output.splitlines()[-1]) == (130, "aupair: stopped; run it again to continue")
    assert "  > " not in output
    pattern = str(tmp_path / "work")
    assert subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout == ""


def test_a_source_that_is_missing_is_one_line(local: Local, corpus: Path) -> None:
    done = local(corpus, "source=/nowhere/at/all")
    assert (done.code, "fetch-data failed" in done.err.splitlines()[-1]) == (9, True)

"""The command line: wrong use is one line and writes nothing; each command prints what it should."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aupair import __version__, stages
from aupair.stage import ARTIFACTS
from conftest import REPOSITORY, Command, files_below

BAD_USE: dict[str, tuple[tuple[str, ...], str]] = {
    "stage": (("run", "train"), "no such stage, got train, expected one of check-data, preprocess-faces"),
    "trial": (
        ("run", "train-pseudo-intensity", "--trial", "5"),
        "no such trial, got 5, expected one of trials: [0, 1]",
    ),
    "one run": (("run", "check-data", "--trial", "0"), "--trial does not fit a stage that runs once, got check-data"),
    "share": (("split", "data", "--select", "2"), "share of select, got 2.0, expected more than 0 and less than 1"),
    "key": (
        ("run", "check-data", "--set", "train_mapping.epoch=3"),
        "unknown parameter: in params.yaml and --set, got train_mapping.epoch; did you mean epochs?",
    ),
    "section": (
        ("run", "check-data", "--set", "mapping.epochs=3"),
        "unknown parameter: in params.yaml and --set, got mapping",
    ),
    "value": (("run", "check-data", "--set", "train_mapping.epochs=0"), "parameter train_mapping.epochs: in params.ya"),
    "type": (("run", "check-data", "--set", "train_mapping.epochs=many"), "parameter train_mapping.epochs: in params"),
    "no trials": (
        ("run", "check-data", "--set", "trials=[]"),
        "parameter trials: in params.yaml and --set, got [], expected at least 1 item",
    ),
    "no value": (("run", "check-data", "--set", "seed"), "--set is malformed, got seed, expected section.key=value"),
    "no YAML": (
        ("run", "check-data", "--set", "seed=[1"),
        "--set has a wrong value, got seed=[1, expected a value in YAML",
    ),
    "infinite": (
        ("synth", "new", "--coder-noise", "inf"),
        "parameter coder.shift: in the options, got inf, expected a finite",
    ),
    "long name": (("split", "A" * 999), "the name of a file is too long, got AAAA"),
    "params": (("run", "check-data", "--params", "x.yaml"), "no such file: in x.yaml; run it in a project"),
}


@pytest.mark.parametrize("allocate", [lambda: np.ones(10**14), lambda: torch.ones(10**14)])
def test_exhausted_memory_is_one_line(
    aupair: Command, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], object]
) -> None:
    monkeypatch.setattr(stages, "get_stage", lambda name: allocate())
    outcome = aupair("run", "check-data", "--params", str(REPOSITORY / "params.yaml"))
    assert outcome.code == 1
    assert outcome.line.startswith("not enough memory, got ")
    assert outcome.line.endswith("or use a machine with more memory")


@pytest.mark.parametrize("name", BAD_USE)
def test_wrong_use_is_one_line_and_exit_code_2(fresh: Path, aupair: Command, name: str) -> None:
    arguments, message = BAD_USE[name]
    before = files_below(fresh)
    outcome = aupair(*arguments)
    assert outcome.code == 2
    assert outcome.line.startswith(message)
    assert files_below(fresh) == before


def test_a_params_file_that_is_none(fresh: Path, aupair: Command) -> None:
    for text, message in (("a: [", "not YAML: in params.yaml"), ("- 1\n", "not a mapping: in params.yaml")):
        (fresh / "params.yaml").write_text(text)
        outcome = aupair("run", "check-data")
        assert outcome.code == 2
        assert outcome.line.startswith(message)


def test_bad_use_of_the_other_commands(fresh: Path, aupair: Command) -> None:
    before, no_store = files_below(fresh), f"no MLflow store yet: in sqlite:///{fresh}/mlflow.db"
    for arguments, code, message in (
        (("synth", "data"), 3, "the folder is not empty: in "),
        (("synth", "new", "--aus", "AU43,AU99"), 2, "this AU cannot be drawn, got AU99, expected some of AU1,AU2,"),
        (("split", "nowhere"), 3, "no data folder: in nowhere"),
        (("report",), 4, "missing file: in reports/metrics.json; run the stage that writes it"),
        (("predict", "data/videos", "--out", "p"), 5, f"{no_store}; run `dvc repro`"),
        (("predict", "data/annotations", "--out", "p"), 3, "no video: in data/annotations"),
        (("predict", "data/videos", "--out", "p", "--model", "nowhere"), 4, "no such folder: in nowhere"),
        (
            ("predict", "data/videos", "none.mp4", "--out", "p"),
            3,
            "no such video or folder: in none.mp4; check the path",
        ),
        (("registry", "list"), 5, no_store),
        (("registry", "promote", 1), 5, "no promotion gate: in mlflow/registry.yaml; run it in the project"),
        (("registry", "rollback"), 5, "no MLflow store yet"),
    ):
        outcome = aupair(*arguments)
        assert outcome.code == code, arguments
        assert outcome.line.startswith(message)
    assert files_below(fresh) == before


def test_wrong_numbers_are_refused_before_anything_is_done(fresh: Path, aupair: Command) -> None:
    before = files_below(fresh)
    for arguments in (
        ("synth", "new", "--subjects", 2),
        ("synth", "new", "--labelled", 0),
        ("predict", "x", "--out", "p", "--abstain", 2),
        ("nothing",),
    ):
        outcome = aupair(*arguments)
        assert outcome.code == 2, arguments
        assert "Traceback" not in outcome.err
    assert files_below(fresh) == before


def test_report_shows_the_scores_and_where_to_look(home: Path, aupair: Command) -> None:
    outcome = aupair("report")
    assert outcome.code == 0
    for text in ("all zero", "best constant", "ours, no uncertainty", "P1: uncertainty", "P2: uncertainty", "2021 score", "reports/table.md", "reports/plots", "aupair predict",
                 "reports/data_docs/index.html", "mlflow ui --backend-store-uri sqlite:///mlflow.db",
                 "aupair registry list", "aupair registry promote"):  # fmt: skip
        assert text in outcome.out, text
    assert outcome.err == ""


def test_flow_shows_every_stage_with_its_edges(aupair: Command) -> None:
    outcome = aupair("flow")
    assert outcome.code == 0
    for stage in stages.FLOW:
        assert stage.name in outcome.out
    assert all(artifact in outcome.out for artifact in ARTIFACTS)


@pytest.mark.parametrize("frozen", [False, True])
def test_flow_shows_what_the_stages_need_with_the_params(fresh: Path, aupair: Command, frozen: bool) -> None:
    network = f"{{frozen: {str(frozen).lower()}}}"
    text = f"train_pseudo_intensity: {{network: {network}}}\ntrain_uncertainty: {{kind: factors}}\n"
    (fresh / "other.yaml").write_text(text)
    outcome = aupair("flow", "--params", "other.yaml")
    assert outcome.code == 0, outcome.err
    with_gpu = {
        stage.name for stage in stages.FLOW for row in outcome.out.splitlines() if stage.name in row and " GPU" in row
    }
    assert with_gpu == ({"embed-faces"} if frozen else {"train-pseudo-intensity", "train-uncertainty"})
    assert ("24 GiB" in outcome.out) == (not frozen)


def test_version(aupair: Command) -> None:
    outcome = aupair("--version")
    assert (outcome.code, outcome.out) == (0, f"aupair {__version__}\n")


def test_split_prints_its_table_and_leaves_a_supplied_file(fresh: Path, aupair: Command) -> None:
    supplied = (fresh / "data/splits.csv").read_bytes()
    second = aupair("split", "data", "--select", ".4")
    assert second.code == 0
    assert second.out.endswith("\nsplits.csv exists and was not changed; --overwrite replaces it\n")
    assert (fresh / "data/splits.csv").read_bytes() == supplied
    (fresh / "data/splits.csv").unlink()
    outcome = aupair("split", "data", "--select", ".4")
    assert outcome.code == 0
    assert all(text in outcome.out for text in ("fit", "select", "validation", "annotated", "AU1 ", "AU26"))
    assert "was kept" not in outcome.out
    assert len((fresh / "data/splits.csv").read_text().splitlines()) == 9


def test_ctrl_c_is_one_line(fresh: Path, aupair: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "run_stage", interrupted)
    outcome = aupair("run", "check-data")
    assert (outcome.code, outcome.line) == (130, "stopped; run it again to continue")


USAGE = {
    "command": (["predct"], "No such command 'predct'. Did you mean 'predict'?; see `aupair --help`"),
    "option": (["predict", "--ot", "x"], "No such option: --ot (Possible options: --out, --wait); see `aupair predict --help`"),
    "group": (["registry", "promot", "1"], "No such command 'promot'. Did you mean 'promote'?; see `aupair registry --help`"),
    "missing": (["predict"], "Missing argument"),
    "number": (["synth", "d", "--seconds", "abc"], "Invalid value for '--seconds': "),
    "stage": (["run", "check_dat"], "no such stage, got check_dat, expected one of check-data, "),
}  # fmt: skip


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_one_line_with_the_nearest_word_and_exit_code_2(name: str, aupair: Command) -> None:
    arguments, line = USAGE[name]
    outcome = aupair(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.line.startswith(line)
    if name == "stage":
        assert outcome.line.endswith("; did you mean check-data?")


@pytest.mark.parametrize("seconds", ["1e12", "3601", "nan", "inf", "-5"])
def test_a_video_of_an_impossible_length_is_refused(seconds: str, tmp_path: Path, aupair: Command) -> None:
    outcome = aupair("synth", tmp_path / "d", f"--seconds={seconds}")
    assert (outcome.code, outcome.line.partition(":")[0]) == (2, "Invalid value for '--seconds'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("registry", "list"), ("registry", "promote", "1")])
@pytest.mark.parametrize(
    "address",
    [
        "nonsense://u:s3cret@127.0.0.1:9/mlflow",
        "http://u:s3cret'@127.0.0.1:9/",
        "ftp://u:[s3cret]@127.0.0.1:9/",
        "databricks://u:s3cret@127.0.0.1:9/",
    ],
)
def test_a_password_in_an_address_is_not_printed(
    address: str, arguments: tuple[str, ...], aupair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    outcome = aupair(*arguments)
    assert outcome.code == 5
    assert "s3cret" not in outcome.out + outcome.line


def test_a_group_without_a_command_shows_its_help(aupair: Command) -> None:
    outcome = aupair("registry")
    assert "Usage: aupair registry" in outcome.out + outcome.err
    assert outcome.code == 2

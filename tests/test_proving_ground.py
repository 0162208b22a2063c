"""Tests of benchmarks/proving_ground.py: intervals are over people and trainings, finished steps are not run again."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from aupair import stages
from aupair.errors import ParamsError
from aupair.params import Params
from conftest import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: importlib.import_module(name) for name in ("ground_statistics", "ground_report", "proving_ground")}


def test_an_interval_contains_both_people_and_trainings(benchmark: dict[str, ModuleType]) -> None:
    draws = benchmark["ground_statistics"].TrainingDraws(3, 4000, (0,))
    still = [np.full(4000, value) for value in (0.1, 0.2, 0.3)]
    figure = draws.combine([0.1, 0.2, 0.3], still)
    assert figure.value == pytest.approx(0.2)
    assert figure.draws.std() == pytest.approx(0.0816 / np.sqrt(3), rel=0.05)  # the mean of three of three numbers
    people = np.random.default_rng(0).normal(0, 0.05, 4000)
    both = draws.combine([0.1, 0.2, 0.3], [values + people for values in still])
    assert both.draws.std() == pytest.approx(np.hypot(0.0816 / np.sqrt(3), 0.05), rel=0.05)
    other = draws.combine([0.0, 0.1, 0.2], [values + people - 0.1 for values in still])
    assert (both - other).interval == pytest.approx([0.1, 0.1])  # paired in people and trainings


def test_corpora_are_independent(benchmark: dict[str, ModuleType]) -> None:
    statistics, people = benchmark["ground_statistics"], np.random.default_rng(0).normal(0, 1, 4000)
    one, other = (statistics.TrainingDraws(1, 4000, (0, k)).combine([0.0], [people]) for k in range(2))
    assert abs(np.corrcoef(one.draws, other.draws)[0, 1]) < 0.06
    assert statistics.mean_of([one, other]).draws.std() == pytest.approx(np.sqrt(0.5), rel=0.05)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, benchmark: dict[str, ModuleType]) -> list[str]:
    """What is run instead of stages and of synthesise: only the names are noted."""
    names: list[str] = []

    def run_stage(name: str, params: Params, root: Path, log: Any) -> None:
        names.append(f"{root.name} {name}" + (f" {params.seed}" if name == "train-pseudo-intensity" else ""))

    monkeypatch.setattr(stages, "run_stage", run_stage)
    monkeypatch.setattr(benchmark["proving_ground"], "synthesise", lambda data, *_: names.append(f"synth {data.name}"))
    return names


def test_finished_steps_are_not_run_again(
    benchmark: dict[str, ModuleType], calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark["proving_ground"]
    ground, corpus = module.Ground(tmp_path), module.Corpus(stands_for="", synth={"subjects": 8})

    def run_all(corpus: Any, params: Params, seeds: int) -> None:
        key = ground.prepare("one", corpus, params)
        for seed in range(seeds):
            ground.train("one", params, seed, key)

    def run(params: Params, corpus: Any = corpus, seeds: int = 2) -> list[str]:
        calls.clear()
        run_all(corpus, params, seeds)
        return calls

    first = list(run(Params()))
    assert first[:3] == ["synth data", "one check-data", "one preprocess-faces"]
    training = [
        "sample-pairs",
        "embed-faces",
        "train-pseudo-intensity {}",
        "train-uncertainty",
        "extract-features",
        "train-mapping",
        "evaluate",
    ]
    assert first[3:] == [f"seed{seed} {name}".format(seed) for seed in (0, 1) for name in training]
    assert (tmp_path / "one" / "seed1" / "work" / "faces").resolve() == tmp_path / "one" / "work" / "faces"
    assert run(Params()) == []
    assert [name for name in run(Params(), seeds=3) if "seed2" not in name] == []
    other = Params(train_mapping={"width": 8})
    assert run(other) == [f"seed{seed} {name}" for seed in (0, 1) for name in training[-2:]]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_stage", interrupted("train-mapping"))
        with pytest.raises(KeyboardInterrupt):
            run_all(corpus, Params(sample_pairs={"frames": 7}), 2)
    assert run(Params())[:6] == [f"seed0 {name}".format(0) for name in training[:6]]  # what was begun is not done
    assert run(Params(sample_pairs={"frames": 7}))[0] == "seed0 sample-pairs"
    assert run(Params(), module.Corpus(stands_for="", synth={"subjects": 8, "seed": 5})) == first
    assert ground.cost("one", 2)["cpu_seconds"].keys() == {
        "synth",
        "check-data",
        "preprocess-faces",
        *(n.split()[0] for n in training),
    }


def interrupted(stage: str) -> Any:
    """Return a function that runs nothing and is stopped at a stage."""

    def run_stage(name: str, *_: Any, **__: Any) -> None:
        if name == stage:
            raise KeyboardInterrupt

    return run_stage


def test_the_committed_corpora_are_of_the_size_that_was_agreed(benchmark: dict[str, ModuleType]) -> None:
    module = benchmark["proving_ground"]
    corpora = module.load_corpora(BENCHMARKS / "proving_ground.yaml")
    assert len(corpora) == 4
    assert len({corpus.synth.seed for corpus in corpora.values()} - {0, 1}) == 4
    for corpus in corpora.values():
        assert 3500 <= corpus.synth.subjects * corpus.synth.clips * corpus.synth.seconds * corpus.synth.fps <= 24000
    assert list(module.load_corpora(BENCHMARKS / "proving_ground.yaml", ["cameras"])) == ["cameras"]
    with pytest.raises(ParamsError, match=r"no such corpus: in .*got nowhere, expected some of demo-like"):
        module.load_corpora(BENCHMARKS / "proving_ground.yaml", ["nowhere"])


def figures_of(benchmark: dict[str, ModuleType], name: str, p1: float, nll: float) -> Any:
    """Return the figures of a corpus where P1's gain and h's pair NLL are as given, with little spread."""
    statistics, module = benchmark["ground_statistics"], benchmark["proving_ground"]

    def figure(value: float) -> Any:
        return statistics.Figure(value, value + np.random.default_rng(0).normal(0, 0.001, 200))

    f1 = {"all-one": figure(0.3), "no-uncertainty": figure(0.6), "constant-noise": figure(0.6), "P1": figure(0.6 + p1)}
    gains = {"pair NLL of h - constant": figure(nll - 0.5), "AUROC of abs(d)/s - abs(d)": figure(0.01)}
    values = {"pair NLL, h": nll, "pair NLL, constant": 0.5, "ECE, h": 0.02, "ECE, constant": 0.03}
    corpus = module.Corpus(stands_for="a test", synth={"subjects": 8})
    f1["P2"] = figure(0.6 + p1)
    return benchmark["ground_report"].CorpusFigures(name, corpus.stands_for, corpus.synth, 2, f1, gains, values)


@pytest.mark.parametrize(
    ("gains", "nll", "missed"), [((0.02, 0.03), 0.4, 0), ((0.02, -0.05), 0.4, 5), ((0.02, 0.03), 0.6, 2)]
)
def test_goals_are_met_or_missed(
    benchmark: dict[str, ModuleType], gains: tuple[float, float], nll: float, missed: int
) -> None:
    report = benchmark["ground_report"]
    corpora = [figures_of(benchmark, name, gain, nll) for name, gain in zip(("one", "two"), gains)]
    about = {
        "fresh": 0,
        "trainings": 3,
        "params": "params.yaml",
        "commit": "1234567",
        "cores": 2,
        "cost": {key: {"seconds": {"synth": 60}, "cpu_seconds": {"synth": 120}} for key in ("one", "two")},
    }
    tree = report.as_json(corpora, 0.01, about)
    assert [goal["met"] for goal in tree["goals"]].count(False) == missed
    assert tree["differences"]["mean"]["P1 - no-uncertainty"]["value"] == pytest.approx(np.mean(gains))
    page = report.format_page(json.loads(json.dumps(tree)))
    assert page.count("**missed**") == missed
    assert "| all-one | .300 [.2" in page
    assert "| one | a test | 8 (2) | 8 | 520 | 1 (2) |" in page


@pytest.mark.slow
def test_a_tiny_ground_from_the_command_to_the_report(
    benchmark: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synth = {"subjects": 8, "seconds": 5, "fps": 6, "cameras": True, "coder": {"shift": 0.1, "missed": 0.1}}
    (tmp_path / "corpora.yaml").write_text(yaml.safe_dump({"one": {"stands_for": "a test", "synth": synth}}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**TINY, "trials": [0]}))
    command = f"x --corpora corpora.yaml --folder ground --seeds 2 --set seed=7 --report {tmp_path}/report"
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # the command sets them: restored after the test
    monkeypatch.setattr("sys.argv", command.split())
    benchmark["proving_ground"].main()
    tree = json.loads((tmp_path / "report.json").read_text())
    metrics = [
        json.loads((tmp_path / "ground" / "one" / f"seed{k}" / "reports" / "metrics.json").read_text()) for k in (0, 1)
    ]
    rows = [{row["name"]: row["f1"] for row in part["rows"] if row["split"] == "validation"} for part in metrics]
    for row in ("no-uncertainty", "P1", "P2", "best-constant"):
        assert tree["f1"]["one"][row]["value"] == pytest.approx(np.mean([part[row] for part in rows]))
    gain = tree["differences"]["mean"]["P1 - no-uncertainty"]
    assert gain["value"] == pytest.approx(np.mean([part["P1"] - part["no-uncertainty"] for part in rows]))
    assert gain["interval"][0] <= gain["value"] <= gain["interval"][1]
    assert rows[0]["P1"] != rows[1]["P1"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ground").rglob("*") if path.is_file()}
    benchmark["proving_ground"].main()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ground").rglob("*") if path.is_file()}
    corpus = tmp_path / "ground" / "one"
    ground_fresh = importlib.import_module("ground_fresh")
    params = Params(**{**TINY, "trials": [0], "seed": 0})
    ground_fresh.score_fresh(corpus / "seed0", corpus, tmp_path / "again", params)
    for name in ("metrics.json", "draws.json"):  # with the people that the training was evaluated on, nothing changes
        assert (tmp_path / "again" / "reports" / name).read_text() == (corpus / "seed0" / "reports" / name).read_text()
    monkeypatch.setattr("sys.argv", [*command.split(), "--fresh", "2"])
    benchmark["proving_ground"].main()
    people = json.loads((corpus / "fresh" / "seed0" / "reports" / "draws.json").read_text())["people"]
    assert people["names"] == ["s011", "s015", "s019", "s023"]
    fresh = json.loads((tmp_path / "report.json").read_text())
    assert fresh["corpora"]["one"]["validation_people"] == 4
    assert fresh["f1"]["one"]["P1"]["value"] != tree["f1"]["one"]["P1"]["value"]
    assert "figures are of 2 times as many other people of validation" in (tmp_path / "report.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in before} == before

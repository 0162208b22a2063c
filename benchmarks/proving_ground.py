"""Does the method hold on people of other corpora? `make proving-ground`, or

    python benchmarks/proving_ground.py [--corpora FILE] [--folder FOLDER] [--seeds N] [--only NAME ...] [--set KEY=VALUE ...]
    python benchmarks/proving_ground.py --fresh 4       the same trainings on four times as many other people of validation

Writes the corpora of proving_ground.yaml, runs the flow's stages on each with the repository's params.yaml, once for each
seed, and writes proving_ground.md and .json. Steps whose results are in the folder for the same settings are not run
again, so that a run which was stopped continues. docs/proving_ground.md describes the corpora and the intervals.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ground_fresh import fresh_subjects, score_fresh
from ground_report import CorpusFigures, as_json, format_page
from ground_statistics import TrainingDraws
from harness import read_commit

from aupair import stages, store
from aupair.console import ConsoleLog
from aupair.errors import AupairError, ParamsError
from aupair.evaluation.summary import read_metrics
from aupair.log import SILENT, Log
from aupair.params import Evaluate, Params, load_params
from aupair.pool import count_cores
from aupair.record import Record, parse_settings, read_settings
from aupair.stage import ARTIFACTS
from aupair.synth.corpus import SynthParams, synthesise

HERE = Path(__file__).parent
SHARED = ("check-data", "preprocess-faces")
"""stages that do not depend on the seed: run once for each corpus"""
TRAINING = tuple(stage.name for stage in stages.FLOW if stage.name not in (*SHARED, "register-model"))
SPLIT = "validation"
GAINS = {
    "pair NLL of h - constant": "uncertainty.pair_nll.less_constant",
    "AUROC of abs(d)/s - abs(d)": "uncertainty.auroc_correct.gain",
}
"""differences in metrics.json whose values in resamples are in draws.json"""
VALUES = {
    "pair NLL, h": "uncertainty.pair_nll.h",
    "pair NLL, h unguarded": "uncertainty.pair_nll.unguarded",
    "pair NLL, constant": "uncertainty.pair_nll.constant",
    "AUROC, abs(d)/s": "uncertainty.auroc_correct.margin_over_sigma",
    "AUROC, abs(d)": "uncertainty.auroc_correct.margin",
    "ECE, h": "uncertainty.ece",
    "ECE, constant": "uncertainty.ece_constant",
    "pair accuracy, all frames": "pair_accuracy.mean",
    "pair accuracy, clear frames": "pair_accuracy.clear",
}
"""other figures of metrics.json"""


class Corpus(Record):
    """A corpus of the proving ground."""

    stands_for: str
    synth: SynthParams


@dataclass(frozen=True)
class Ground:
    """A folder with a folder for each corpus: `data`, `work` with its faces, and `seed0` ... for each training.

    `steps.json` has the key, the seconds and the CPU seconds of each step that was run; the key is a hash of its settings
    and of those of the steps before it.
    """

    folder: Path
    log: Log = SILENT

    def prepare(self, name: str, corpus: Corpus, params: Params) -> str:
        """Write a corpus and its faces, as far as that is still to do; return the key of the last step."""
        root = self.folder / name
        key = _digest("synth", corpus.synth.model_dump(mode="json", exclude={"workers"}))
        self._run_once(root, "synth", key, partial(self._synthesise, root / "data", corpus.synth))
        return self._run_stages(root, SHARED, params, key)

    def train(self, name: str, params: Params, seed: int, key: str) -> None:
        """Run the flow on a corpus for a seed, as far as that is still to do; `key` is that of the faces."""
        own = self.folder / name / f"seed{seed}"
        _link(self.folder / name, own)
        self._run_stages(own, TRAINING, params.model_copy(update={"seed": seed}), key)

    def trainings(self, name: str, seeds: int) -> list[Path]:
        """Return the folder of each training on a corpus."""
        return [self.folder / name / f"seed{seed}" for seed in range(seeds)]

    def cost(self, name: str, seeds: int) -> dict[str, dict[str, float]]:
        """Return the seconds and CPU seconds of each step of a corpus, those of a training summed over the seeds."""
        total: dict[str, dict[str, float]] = {}
        for root in (self.folder / name, *self.trainings(name, seeds)):
            for step, entry in store.read_json(root / "steps.json").items():
                for key in ("seconds", "cpu_seconds"):
                    of_step = total.setdefault(key, {})
                    of_step[step] = round(of_step.get(step, 0.0) + entry[key], 1)
        return total

    def prepare_fresh(self, name: str, corpus: Corpus, params: Params, times: int) -> str:
        """Write a corpus with other people of validation and its faces, as far as still to do; return the last step's key."""
        root, numbers = self.fresh(name), fresh_subjects(corpus.synth, times)
        key = _digest("synth", corpus.synth.model_dump(mode="json", exclude={"workers"}), numbers)
        self._run_once(root, "synth", key, partial(self._synthesise, root / "data", corpus.synth, numbers))
        return self._run_stages(root, SHARED, params, key)

    def score_fresh(self, name: str, params: Params, seed: int, key: str) -> None:
        """Score a training on the other people of its corpus, if that is still to do; `key` is that of their faces."""
        training, own = self.folder / name / f"seed{seed}", self.fresh(name) / f"seed{seed}"
        key = _digest(key, store.read_json(training / "steps.json")["evaluate"]["key"])
        params = params.model_copy(update={"seed": seed})
        self._run_once(own, "score", key, partial(score_fresh, training, self.fresh(name), own, params))

    def fresh(self, name: str) -> Path:
        """Return the folder of a corpus with other people of validation; it has a folder for the scores of each training."""
        return self.folder / name / "fresh"

    def _synthesise(self, data: Path, params: SynthParams, numbers: Sequence[int] | None = None) -> None:
        shutil.rmtree(data, ignore_errors=True)
        synthesise(data, params, self.log, numbers)

    def _run_stages(self, root: Path, names: Sequence[str], params: Params, key: str) -> str:
        """Run stages in a folder; return the key of the last one."""
        for name in names:
            sections = set(stages.get_stage(name).sections)
            key = _digest(key, name, params.model_dump(mode="json", include=sections))
            self._run_once(root, name, key, partial(stages.run_stage, name, params, root=root, log=self.log))
        return key

    def _run_once(self, root: Path, step: str, key: str, action: Callable[[], None]) -> None:
        """Run a step, unless it was run with the same key."""
        path = root / "steps.json"
        steps = store.read_json(path) if path.exists() else {}
        if steps.get(step, {}).get("key") == key:
            return
        if steps.pop(step, None):  # it is not done any more, also if it is stopped now
            store.write_json(path, steps)
        start, cpu = time.perf_counter(), _cpu_seconds()
        action()
        used = {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}
        steps[step] = {"key": key} | {name: round(value, 1) for name, value in used.items()}
        store.write_json(path, steps)
        print(f"{root.relative_to(self.folder)}: {step}, {used['seconds']:.0f} s", flush=True)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _digest(*parts: Any) -> str:
    """Return a hash of settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _link(root: Path, own: Path) -> None:
    """Let a training use the data, labels and faces of its corpus."""
    for artifact in ("data", "labels", "info", "faces"):
        link = own / ARTIFACTS[artifact]
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((root / ARTIFACTS[artifact]).resolve())


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run the trainings, as many at a time as there are cores.

    Each has one thread: that is faster than one training with all threads, and its sums do not depend on the machine.
    """
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    with ProcessPoolExecutor(count_cores(), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_figures(name: str, corpus: Corpus, roots: Sequence[Path], params: Evaluate, number: int) -> CorpusFigures:
    """Read the figures of all trainings on a corpus from what evaluate wrote.

    Args:
        roots: the folder of each training.
        number: that of the corpus: each one draws other trainings.
    """
    trees = [read_metrics(root / ARTIFACTS["metrics"]) for root in roots]
    draws = [store.read_json(root / ARTIFACTS["draws"]) for root in roots]
    people = [tree["people"] for tree in draws]
    trainings = TrainingDraws(len(roots), params.bootstrap, (params.seed, number))
    f1 = {}
    for row in people[0]["rows"]:
        values = [next(r["f1"] for r in tree["rows"] if (r["name"], r["split"]) == (row, SPLIT)) for tree in trees]
        f1[row] = trainings.combine(values, [own["rows"][row]["draws"] for own in people])
    gains = {}
    for gain, keys in GAINS.items():
        differences = [_value_at(tree, keys)["difference"] for tree in trees]
        gains[gain] = trainings.combine(differences, [tree["gains"][keys] for tree in draws])
    values = {key: [_value_at(tree, keys) for tree in trees] for key, keys in VALUES.items()}
    means = {key: float(np.mean(own)) for key, own in values.items() if None not in own}
    return CorpusFigures(name, corpus.stands_for, corpus.synth, len(people[0]["names"]), f1, gains, means)


def _value_at(tree: Any, keys: str) -> Any:
    """Return the value at a path such as `uncertainty.ece`."""
    for key in keys.split("."):
        tree = tree[key]
    return tree


def load_corpora(path: Path, only: Sequence[str] = ()) -> dict[str, Corpus]:
    """Load the corpora of a file, or some of them.

    Raises:
        ParamsError: the file is malformed, or has no corpus of that name.
    """
    tree = read_settings(path)
    if unknown := set(only) - set(tree):
        raise ParamsError(
            "no such corpus", where=path, got=", ".join(sorted(unknown)), expected=f"some of {', '.join(tree)}"
        )
    return {name: parse_settings(Corpus, tree[name], f"{path}, {name}") for name in tree if not only or name in only}


def main() -> None:
    """Run what is still to run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=HERE / "proving_ground.yaml", help="the file of the corpora")
    parser.add_argument("--folder", type=Path, default=Path("work/proving_ground"), help="what is kept between runs")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params of all corpora")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a parameter")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each corpus")
    parser.add_argument(
        "--fresh",
        type=int,
        default=0,
        metavar="TIMES",
        help="score TIMES as many other people of validation, after the trainings",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these corpora")
    parser.add_argument("--report", type=Path, help="the report, without its suffix; by default beside this file")
    options = parser.parse_args()
    report = options.report or HERE / ("proving_ground_fresh" if options.fresh else "proving_ground")
    params, corpora = load_params(options.params, options.set), load_corpora(options.corpora, options.only)
    ground = Ground(options.folder.resolve(), ConsoleLog())
    silent, seeds = Ground(ground.folder), range(options.seeds)
    keys = {name: ground.prepare(name, corpus, params) for name, corpus in corpora.items()}
    run_all([partial(silent.train, name, params, seed, key) for name, key in keys.items() for seed in seeds])
    if options.fresh:
        keys = {name: ground.prepare_fresh(name, corpus, params, options.fresh) for name, corpus in corpora.items()}
        run_all([partial(silent.score_fresh, name, params, seed, key) for name, key in keys.items() for seed in seeds])
    figures = []
    for number, (name, corpus) in enumerate(corpora.items()):
        roots = [(ground.fresh(name) if options.fresh else ground.folder / name) / f"seed{seed}" for seed in seeds]
        figures.append(read_figures(name, corpus, roots, params.evaluate, number))
    about = {
        "fresh": options.fresh,
        "trainings": options.seeds,
        "params": " ".join([str(options.params), *options.set]),
        "commit": read_commit(),
        "cores": count_cores(),
        "cost": {name: ground.cost(name, options.seeds) for name in corpora},
    }
    tree = as_json(figures, params.evaluate.tie, about)
    store.write_json(report.with_suffix(".json"), tree)
    store.write_text(report.with_suffix(".md"), format_page(tree))
    print(f"written to {report.with_suffix('.md')}")


if __name__ == "__main__":
    try:
        main()
    except AupairError as error:
        print(f"proving_ground.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)

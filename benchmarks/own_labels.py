"""How much is lost if a coder labels a fifth of the frames, AU by AU?

People show three AUs that are none of Aff-Wild2's. Ours knows a fifth of the labels: for each AU stretches of two
seconds, at other times for each AU; two AUs come as events, one as rows with empty cells, through `aupair import csv`.
The reference is the same flow, seeds and settings on the same movies with all labels. Faces are shared, all else is
trained and chosen (thresholds, mappings) on each one's own labels. P2 is scored on the people of validation: both on all
frames, and both on the frames that ours has labels for. Each seed has other people and other networks.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import Row, main

from aupair import stages, store
from aupair.data.frames import Frames, load_frames
from aupair.evaluation.bootstrap import draw_resamples, percentile_interval
from aupair.evaluation.metrics import Counts, f1
from aupair.evaluation.selection import RAW, Selection, annotated_cells, filled_outputs, read_outputs
from aupair.params import Params, load_params
from aupair.stage import ARTIFACTS
from aupair.synth.corpus import SynthParams, synthesise
from aupair.synth.labels import write_tables

ROOT = Path(__file__).parents[1]
AUS = ("AU19", "AU33", "AU43")
BY_EVENT = ("AU33", "AU43")
SHARE, GOAL = 0.2, 0.85
SEEDS = (0, 1, 2)
RESAMPLES = 2000
CORPUS = SynthParams(aus=AUS)
SETTINGS = (
    "preprocess_faces.size=64",
    "train_pseudo_intensity.device=cpu",
    "train_uncertainty.device=cpu",
    "train_mapping.device=cpu",
)
"""smaller faces; all else as in params.yaml"""
FACES = ("check-data", "preprocess-faces")
TRAINING = tuple(stage.name for stage in stages.FLOW if stage.name not in (*FACES, "register-model"))


def make_data(folder: Path, corpus: SynthParams) -> None:
    """Write a data folder with all labels, and one with a share of them."""
    full, partial, tables = folder / "full" / "data", folder / "partial" / "data", folder / "tables"
    synthesise(full, corpus)
    write_tables(full, tables, SHARE, BY_EVENT, corpus.fps, corpus.seed)
    command = [sys.executable, "-m", "aupair", "import", "csv", str(tables), "--coded", str(tables / "coded.csv")]
    command += ["--videos", str(full / "videos"), "--subjects", str(full / "subjects.csv"), "--out", str(partial)]
    subprocess.run(command, check=True)
    for name in ("splits.csv", "conditions.csv"):
        shutil.copyfile(full / name, partial / name)


def prepare(folder: Path, params: Params) -> None:
    """Write the data and its faces, which both share."""
    make_data(folder, CORPUS.model_copy(update={"seed": params.seed}))
    run_stages(folder / "full", params, FACES)
    run_stages(folder / "partial", params, FACES[:1])
    shutil.copytree(folder / "full" / ARTIFACTS["faces"], folder / "partial" / ARTIFACTS["faces"])


def run_stages(root: Path, params: Params, names: Sequence[str]) -> None:
    """Run stages in a folder."""
    for name in names:
        print(f"{root.name}: {name}", flush=True)
        stages.run_stage(name, params, root=root)


def score(folder: Path, params: Params) -> dict[str, Counts]:
    """Count the decisions of both on validation: `full` and `partial` on all frames, and with ` own` on labelled ones."""
    frames = {name: _frames(folder / name) for name in ("full", "partial")}
    counts = {}
    for name in frames:
        selection = Selection.from_json(store.read_json(folder / name / ARTIFACTS["selection"]))
        paths = stages.get_stage("register-model").paths(folder / name, params.trials)
        parts = {key: paths[key] for key in ("f", "h", "features", "mapping")}
        outputs = read_outputs(frames[name], **parts, ensemble=params.ensemble)
        raws = filled_outputs(outputs, frames[name])
        raw = selection.raw(raws[outputs.with_route], raws[RAW])
        for suffix, labels in (("", "full"), (" own", "partial")):
            counts[name + suffix] = annotated_cells(frames[labels], "validation").count(raw, selection.thresholds)
    return counts


def _frames(root: Path) -> Frames:
    return load_frames(root / ARTIFACTS["labels"], root / ARTIFACTS["faces"])


def ratio_interval(counts: dict[str, Counts]) -> list[float]:
    """Return the 95 % interval of the ratio of mean F1 on all frames, by a paired bootstrap over people."""
    weights = draw_resamples(len(counts["full"].frames), RESAMPLES, (0,))
    ours, full = (f1(counts[name].weighted(weights)).mean(axis=-1) for name in ("partial", "full"))
    return percentile_interval(ours / full)


def report(seed: int, counts: dict[str, Counts]) -> dict[str, float]:
    """Print the F1 of each AU; return mean F1 by name."""
    per_au = {name: f1(part.total()) for name, part in counts.items()}
    for name, values in per_au.items():
        print(f"seed {seed}, {name}: {values.mean():.3f}, {dict(zip(AUS, values.round(3).tolist()))}", flush=True)
    low, high = ratio_interval(counts)
    print(f"seed {seed}: {per_au['partial'].mean() / per_au['full'].mean():.3f} [{low:.3f}, {high:.3f}]", flush=True)
    return {name: float(values.mean()) for name, values in per_au.items()}


def measure() -> list[Row]:
    """Run both for each seed, and compare."""
    results = []
    for seed in SEEDS:
        params = load_params(ROOT / "params.yaml", [*SETTINGS, f"seed={seed}"])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder, params)
            for root in (folder / "full", folder / "partial"):
                run_stages(root, params, TRAINING)
            results.append(report(seed, score(folder, params)))
    mean = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
    ratios = ", ".join(f"{result['partial'] / result['full']:.2f}" for result in results)
    return [
        Row(
            question=f"mean F1 of P2 with {SHARE:.0%} of the labels of {', '.join(AUS)}, validation, all frames",
            ours=_describe(mean["partial"], [result["partial"] for result in results]),
            reference=f"all labels: {_describe(mean['full'], [result['full'] for result in results])}",
            ratio=mean["partial"] / mean["full"],
            goal=f"{GOAL} x",
            met=mean["partial"] >= GOAL * mean["full"],
            same=f"movies, faces, seeds, settings; {len(results)} seeds, ratios {ratios}; on the frames that ours has "
            f"labels for: {mean['partial own']:.3f} against {mean['full own']:.3f}",
        )
    ]  # fmt: skip


def _describe(mean: float, values: Sequence[float]) -> str:
    return f"{mean:.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main(measure)

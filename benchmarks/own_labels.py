"""How much is lost if a coder labels a fifth of the frames, AU by AU?

People show three AUs that are none of Aff-Wild2's. Ours knows a fifth of the labels: for each AU stretches of two
seconds, at other times for each AU; two AUs come as events, one as rows with empty cells, through `aupair import csv`.
The reference is the same flow, seeds and settings on the same movies with all labels. Faces are shared, all else is
trained and chosen (thresholds, trial, mappings) on each one's own labels. P2 is scored on validation: ours on its own
labelled frames, and both on all frames. Each seed has other people and other networks.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, main

from aupair import stages, store
from aupair.params import Params, load_params
from aupair.stage import ARTIFACTS
from aupair.synth.corpus import SynthParams, synthesise
from aupair.synth.labels import write_tables

ROOT = Path(__file__).parents[1]
AUS = ("AU19", "AU33", "AU43")
BY_EVENT = ("AU33", "AU43")
SHARE, GOAL = 0.2, 0.85
SEEDS = (0, 1, 2)
CORPUS = SynthParams(aus=AUS)
SETTINGS = (
    "preprocess_faces.size=64",
    "train_pseudo_intensity.optimiser.steps=130",
    "train_pseudo_intensity.optimiser.fold_steps=120",
    "train_pseudo_intensity.device=cpu",
    "train_uncertainty.device=cpu",
    "train_mapping.device=cpu",
)
"""half of the demo's steps on smaller faces; all else as in params.yaml"""
FACES = ("check-data", "preprocess-faces")
TRAINING = tuple(stage.name for stage in stages.FLOW if stage.name not in (*FACES, "register-model"))


def make_data(folder: Path, corpus: SynthParams) -> None:
    """Write three data folders: with all labels, with a share, and with all of validation but a share of the rest."""
    full, partial, judged = (folder / name / "data" for name in ("full", "partial", "judged"))
    synthesise(full, corpus)
    tables = folder / "tables"
    write_tables(full, tables, SHARE, BY_EVENT, corpus.fps, corpus.seed)
    command = [sys.executable, "-m", "aupair", "import", "csv", str(tables), "--coded", str(tables / "coded.csv")]
    command += ["--videos", str(full / "videos"), "--subjects", str(full / "subjects.csv"), "--out", str(partial)]
    subprocess.run(command, check=True)
    for name in ("splits.csv", "conditions.csv"):
        shutil.copyfile(full / name, partial / name)
    shutil.copytree(partial, judged, copy_function=_link)
    for line in (full / "splits.csv").read_text().splitlines()[1:]:
        video, _, split = line.split(",")
        if split == "validation":
            path = Path("annotations") / "occurrence" / f"{video}.csv"
            (judged / path).unlink()
            shutil.copyfile(full / path, judged / path)


def prepare(folder: Path, params: Params) -> None:
    """Write the data and its faces, which both share."""
    make_data(folder, CORPUS.model_copy(update={"seed": params.seed}))
    run_stages(folder / "full", params, FACES)
    run_stages(folder / "partial", params, FACES[:1])
    shutil.copytree(folder / "full" / ARTIFACTS["faces"], folder / "partial" / ARTIFACTS["faces"], copy_function=_link)


def run_stages(root: Path, params: Params, names: Sequence[str]) -> None:
    """Run stages in a folder."""
    for name in names:
        print(f"{root.name}: {name}", flush=True)
        stages.run_stage(name, params, root=root)


def score(root: Path) -> tuple[float, list[float]]:
    """Return mean F1 of P2 on validation, and the F1 of each AU."""
    metrics: dict[str, Any] = store.read_json(root / ARTIFACTS["metrics"])
    (row,) = [row for row in metrics["rows"] if (row["name"], row["split"]) == ("P2", "validation")]
    return row["f1"], [row["per_au"][au]["f1"] for au in AUS]


def compare(folder: Path, params: Params) -> dict[str, tuple[float, list[float]]]:
    """Train with all labels and with a share of them; return the scores of ours on its own and on all frames."""
    run_stages(folder / "full", params, TRAINING)
    run_stages(folder / "partial", params, TRAINING)
    shutil.copytree(folder / "partial" / "work", folder / "judged" / "work", copy_function=_link)
    run_stages(folder / "judged", params, ("check-data", "sample-pairs", "evaluate"))
    return {"full": score(folder / "full"), "own": score(folder / "partial"), "ours": score(folder / "judged")}


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def measure() -> list[Row]:
    """Compare for each seed."""
    results = []
    for seed in SEEDS:
        params = load_params(ROOT / "params.yaml", [*SETTINGS, f"seed={seed}"])
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), params)
            results.append(compare(Path(folder), params))
        for name, (mean, per_au) in results[-1].items():
            print(f"seed {seed}, {name}: {mean:.3f}, {dict(zip(AUS, np.round(per_au, 3).tolist()))}", flush=True)
    mean = {name: float(np.mean([result[name][0] for result in results])) for name in results[0]}
    ratios = [result["ours"][0] / result["full"][0] for result in results]
    return [
        Row(
            question=f"mean F1 of P2 with {SHARE:.0%} of the labels of {', '.join(AUS)}, validation, all frames",
            ours=_describe(mean["ours"], [result["ours"][0] for result in results]),
            reference=_describe(mean["full"], [result["full"][0] for result in results]),
            ratio=mean["ours"] / mean["full"],
            goal=f"{GOAL} x",
            met=mean["ours"] >= GOAL * mean["full"],
            same=f"movies, faces, seeds, settings; {len(results)} seeds, ratios {', '.join(f'{r:.2f}' for r in ratios)}; "
            f"on its own labelled frames ours has {mean['own']:.3f}",
        )
    ]


def _describe(mean: float, values: Sequence[float]) -> str:
    return f"{mean:.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main(measure)

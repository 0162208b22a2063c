"""How good is a trunk that was trained on one corpus and frozen on another, and what does it save?

    python benchmarks/frozen_trunk.py --trunk TRUNK FLOW ...

TRUNK: the file of an f, such as final.safetensors in the folder of f of a finished demo.
FLOW: folders of finished flows with the demo's settings, such as those that proving_ground.py leaves (CORPUS/seedN). Heads are
trained with the same settings, pairs and seeds on the features of the frozen trunk, without copies, in one thread. Writes
frozen_trunk.json and frozen_trunk.md; rows of other flows that are there stay.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import markdown_table, run_in_child

from aupair import store
from aupair.params import load_params

HERE = Path(__file__).parent
RESULT = HERE / "frozen_trunk.json"
GOAL_ACCURACY, GOAL_TIME = 0.9, 0.1


def train_heads(flow: Path, trunk: Path) -> dict[str, float]:
    """Train heads on the features of a frozen trunk; return pair accuracy on select and seconds of the processor."""
    import torch

    from aupair.data.frames import load_frames
    from aupair.ranking.embed import embed
    from aupair.ranking.pseudo_intensity import train_f
    from aupair.ranking.samples import load_training_set

    torch.set_num_threads(1)
    work, seed = flow / "work", int(flow.name.removeprefix("seed") or 0)
    network = {"frozen": True, "weights": str(trunk)}
    overrides = [f"train_pseudo_intensity.network.{key}={value}" for key, value in network.items()]
    devices = ["train_pseudo_intensity.device=cpu", "embed_faces.device=cpu"]
    params = load_params(HERE.parent / "params.yaml", [f"seed={seed}", *overrides, *devices])
    frames = load_frames(work / "labels.parquet", work / "faces")
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        embed(work / "faces", Path(folder), frames, params)
        embedded = time.process_time()
        data = load_training_set(work / "labels.parquet", work / "faces", work / "pairs", Path(folder))
        result = train_f(data, params, seed)
    return {
        "faces": int(frames.ok.sum()), "accuracy": result.select_pair_accuracy,
        "seconds_of_features": embedded - start, "seconds_of_heads": time.process_time() - embedded,
    }  # fmt: skip


def measure(flow: Path, trunk: Path) -> dict[str, Any]:
    """Return a row: what the flow itself reached and took for f, and what heads reach and take."""
    whole = store.read_json(flow / "work" / "f" / "0" / "about.json")["select_pair_accuracy"]
    seconds = store.read_json(flow / "steps.json")["train-pseudo-intensity"]["cpu_seconds"]
    heads, _ = run_in_child(train_heads, flow, trunk)
    return {"flow": f"{flow.parent.name}/{flow.name}", "whole": whole, "seconds_of_whole": seconds, **heads}


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write frozen_trunk.md."""
    headings = (
        "corpus/training", "faces", "trained as a whole", "frozen", "ratio", "whole, CPU s", "features, CPU s",
        "heads, CPU s", "time, a first trial", "a further trial",
    )  # fmt: skip
    cells = []
    for row in rows:
        heads = row["seconds_of_heads"]
        first, further = (s / row["seconds_of_whole"] for s in (row["seconds_of_features"] + heads, heads))
        seconds = [f"{row[key]:.0f}" for key in ("seconds_of_whole", "seconds_of_features", "seconds_of_heads")]
        accuracies = [f"{row['whole']:.3f}", f"{row['accuracy']:.3f}", f"{100 * row['accuracy'] / row['whole']:.0f} %"]
        times = [f"{100 * first:.0f} %", f"{100 * further:.0f} %"]
        cells.append([row["flow"], f"{row['faces']:,}", *accuracies, *seconds, *times])
    lines = [
        "# A trunk of one corpus, frozen on another", "",
        "Written by `benchmarks/frozen_trunk.py`: f of the demo, frozen, against f trained on each corpus of the proving ground.",
        f"Pair accuracy on `select`; goals: at least {100 * GOAL_ACCURACY:.0f} % of it in {100 * GOAL_TIME:.0f} % of the time.", "",
        *markdown_table(headings, cells),
    ]  # fmt: skip
    store.write_text(HERE / "frozen_trunk.md", "\n".join(lines) + "\n")


def main() -> None:
    """Measure the flows that are named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trunk", type=Path, help="the file of the network that is frozen")
    parser.add_argument("flows", nargs="*", type=Path)
    options = parser.parse_args()
    rows = {row["flow"]: row for row in (store.read_json(RESULT) if RESULT.exists() else [])}
    for flow in options.flows:
        row = measure(flow, options.trunk)
        rows[row["flow"]] = row
        store.write_json(RESULT, [rows[name] for name in sorted(rows)])
    write_page([rows[name] for name in sorted(rows)])
    print((HERE / "frozen_trunk.md").read_text())


if __name__ == "__main__":
    main()

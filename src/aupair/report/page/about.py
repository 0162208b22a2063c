"""What the figures come from: the data, how training went, what the recognizer costs, the settings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aupair import __version__, store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.cost import cost_of_files
from aupair.params import Params
from aupair.report.formatting import percent
from aupair.report.page import markup
from aupair.report.page.charts import Chart, axis
from aupair.report.page.markup import folded, grid, paragraph

COLOURS = ("blue", "orange", "green", "red", "purple", "grey")
QUANTITIES = {
    "train_loss": "loss on fit",
    "loss": "loss on select",
    "select_loss": "loss on select",
    "pair_accuracy": "pair accuracy on select",
    "sigma": "mean sigma on select",
}
SHARE = "The faces on this page are from the data: pass it on only as the data's licence allows."


class Trained(NamedTuple):
    """The folders of the chosen trial: what the training stages wrote."""

    f: Path
    h: Path
    mapping: Path


def data(frames: Frames, note: str, pairs: Sequence[Sequence[str]]) -> str:
    """Say what the data is and how much of it there is."""
    lines = [["", "videos", "people", "frames", "with a face", "annotated"]]
    for split in SPLITS:
        own = frames.of_split(split)
        counts = (
            len(np.unique(frames.video[own])), len(np.unique(frames.subject[own])), own.sum(),
            (own & frames.ok).sum(), (own & (frames.labels[:, 0] >= 0)).sum(),
        )  # fmt: skip
        lines.append([split, *(f"{int(count):,}" for count in counts)])
    positives = [["AU", *SPLITS], *_positives(frames)]
    return (
        paragraph(note or SHARE, "note")
        + markup.table(lines, "Networks are fitted on fit, all is chosen on select, validation judges")
        + folded("Positives of each AU", markup.table(positives, "Share of annotated frames in which the AU is active"))
        + folded("Fixed pairs of each AU", markup.table(pairs, "Pairs drawn, of all there are in a split"))
    )


def training(trained: Trained) -> str:
    """Draw the curves of f, h and the mapping: a chart for each quantity, a line for each network."""
    parts = []
    for name, folder in trained._asdict().items():
        lines = curves(store.read_jsonl(folder / "curves.jsonl"))
        drawn = grid(_curve(quantity, networks) for quantity, networks in lines.items())
        if drawn:
            parts.append(f"<h3>{name}</h3>{drawn}")
    return "".join(parts)


def cost(trained: Trained) -> str:
    """Say what a frame with a face costs."""
    found = cost_of_files(*trained)
    lines = [["", "parameters", "GMAC a frame"]]
    for name, part in (*found["parts"].items(), ("all", found)):
        lines.append([name, f"{part['parameters']:,}", f"{part['gmac_per_frame']:.4f}"])
    words = (
        f"Passes of a face through a trunk: {found['passes']}; then comes the mapping of each AU, with and without "
        "uncertainty. A MAC is a multiplication with an addition. Finding the face comes before this; how long stages "
        "took stands in MLflow."
    )
    return paragraph(words) + markup.table(lines, "Cost of the recognizer", [len(lines) - 2])


def settings(trained: Trained, params: Params, frames: Frames, metrics: Mapping[str, Any]) -> str:
    """Give the settings that matter, as the trained files say them, and what the page was made from."""
    lines = [["setting", "value"]]
    for name, folder in trained._asdict().items():
        lines += _flat(name, {k: v for k, v in store.read_json(folder / "about.json").items() if k not in SKIPPED})
    lines += _flat("evaluate", params.evaluate.model_dump(mode="json"))
    made = [
        ["", ""],
        ["aupair", __version__],
        ["target", params.target],
        ["protocol", metrics["protocol"]],
        ["trials, the chosen one", f"{', '.join(map(str, params.trials))}; {metrics['chosen_trial']}"],
        ["sha256 of splits, faces and labels", frames.fingerprint()[:16]],
    ]
    return markup.table(made, "Made from") + folded("Settings", markup.table(lines, "Settings of the chosen trial"))


SKIPPED = ("aus", "standardisation")
"""not settings"""


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Sort rows of curves: quantity -> network -> steps and values."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        step, network = row.get("step", row.get("epoch", 0)), str(row.get("network", ""))
        for key, value in row.items():
            if key not in ("step", "epoch", "network") and isinstance(value, int | float):
                found.setdefault(key, {}).setdefault(network, []).append((step, value))
    return {
        key: {name: tuple(np.array(points, np.float64).T) for name, points in networks.items()}
        for key, networks in found.items()
    }


def _curve(quantity: str, networks: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """One quantity of all networks."""
    x = axis(np.concatenate([step for step, _ in networks.values()]), at_most=3)
    y = axis(np.concatenate([value for _, value in networks.values()]), at_most=4)
    chart = Chart(x, y, 150)
    for k, (name, (step, value)) in enumerate(networks.items()):
        chart.line(step, value, COLOURS[k % len(COLOURS)], name, dots=len(step) < 30)
    title = QUANTITIES.get(quantity, quantity)
    said = "; ".join(f"{name or 'last'} {value[-1]:.4g}" for name, (_, value) in networks.items())
    return f"<div><h4>{markup.text(title)}</h4>{chart.html(f'{title}, at the end: {said}')}</div>"


def _positives(frames: Frames) -> Iterator[list[str]]:
    annotated = frames.labels[:, 0] >= 0
    for k, au in enumerate(AUS):
        own = [frames.labels[annotated & frames.of_split(split), k] >= 1 for split in SPLITS]
        yield [au, *(percent(float(values.mean()) if len(values) else None) for values in own)]


def _flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[list[str]]:
    """Name the leaves of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield [f"{prefix}.{key}", str(value)]

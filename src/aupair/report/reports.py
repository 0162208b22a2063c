"""The reports of evaluate: the numbers (JSON), table.md, the plots and report.html, each written atomically."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aupair import store
from aupair.aus import label_au
from aupair.data.frames import Frames
from aupair.evaluation.cost import cost_of_files
from aupair.evaluation.evaluate import Evaluation
from aupair.evaluation.selection import uses_uncertainty
from aupair.evaluation.summary import summarise
from aupair.params import Params
from aupair.report import counts, evidence, figures, tables
from aupair.report.document import html_page, markdown
from aupair.report.dvc_plots import write_plot_tables
from aupair.report.faces import Thumbnail, montages, thumbnails
from aupair.report.figures import Drawing
from aupair.report.glossary import glossary
from aupair.report.origin import describe_origin, origin_table, settings_table
from aupair.report.tables import Table
from aupair.report.timelines import (
    draw_timeline,
    label_changes,
    nearest_to_even,
    stretch,
    validation_series,
    videos_to_show,
)

Tree = Mapping[str, Any]

OPEN = 4
"""The number of AUs of a timeline that are visible without unfolding."""


class Places(NamedTuple):
    """The paths of the reports: summary.json, metrics.json, draws.json, table.md, a folder of pictures, report.html."""

    summary: Path
    metrics: Path
    draws: Path
    table: Path
    plots: Path
    report: Path


class Sources(NamedTuple):
    """Files and settings that the page shows beside the figures.

    Attributes:
        faces: the folder of the aligned faces.
        trained: the folders f, h and mapping, in this order, by these names.
        params: the settings of the run.
        note: the first line below the title, such as a note on the data.
        features: the folder of the features; None: the page does not show the parameters of the smoothers.
        info: the data.json of check-data; None: the page does not show the hash of the data.
    """

    faces: Path
    trained: Mapping[str, Path]
    params: Params
    note: str = ""
    features: Path | None = None
    info: Path | None = None


def write_reports(evaluation: Evaluation, frames: Frames, places: Places, pairs: tables.Rows, sources: Sources) -> None:
    """Write the numbers, table.md, a folder of plots, and the page with all results.

    Equal input results in equal files, except that the page shows the commit.

    Args:
        pairs: the counts of pairs as rows of cells, the header first; see `Samples.table`.

    Raises:
        ArtifactError: a file of a source is missing or corrupt.
        AupairError: a folder cannot be written.
    """
    store.write_json(places.metrics, evaluation.metrics)
    store.write_json(places.draws, evaluation.draws)
    store.write_json(places.summary, summarise(evaluation.metrics))
    metrics = store.read_json(places.metrics)  # unknown values are None
    drawings = _drawings(metrics, evaluation.selection)
    curves = {name: store.read_jsonl(folder / "curves.jsonl") for name, folder in sources.trained.items()}
    with store.atomic(places.plots) as temporary:
        temporary.mkdir()
        plots = {"f1": drawings["f1"], "risk_coverage": drawings["risk_coverage"], "reliability": drawings["order"]}
        for name, drawing in {**plots, "timelines": _first_timeline(evaluation, frames)}.items():
            drawing.save_png(temporary / f"{name}.png")
        write_plot_tables(temporary, metrics, curves)
    data = {
        "counts": counts.frame_counts(frames),
        "positives": counts.positives_table(frames),
        "partial": counts.is_partial(frames),
        "pairs": Table("Fixed pairs of each AU: drawn, and available in a split", pairs[0], pairs[1:]),
    }
    thumbnail = thumbnails(sources.faces, frames)
    values = {
        "metrics": metrics, "selection": evaluation.selection, "tables": tables, "evidence": evidence, "ranked_by": figures.BASES,
        "note": sources.note, "glossary": glossary("intensity_rows" in metrics), "data": data, "drawings": drawings, "faces": montages(evaluation, frames, thumbnail),
        "timelines": list(_timelines(evaluation, frames, thumbnail)), **_from_sources(sources, frames, metrics, places.report.parent),
    }  # fmt: skip
    page = html_page("report/report.j2", "aupair: report", "Evaluation of the recognizer", **values)
    store.write_text(places.report, page)
    store.write_text(places.table, markdown("report/report.j2", "Results", **values))


def _drawings(metrics: Tree, selection: Tree) -> dict[str, Any]:
    """Draw the figures of the results, by the names that report.j2 uses."""
    decisions, order = metrics["decisions"], metrics["uncertainty"]["reliability"]
    sigmas = {"sigma of h": order["h"], "best constant sigma": order["constant"]}
    confidence, claimed = {"confidence": decisions["reliability"]}, "claimed P(order) = Phi(|d|/s)"
    intensity = None
    if "intensity_rows" in metrics:
        rows = tables.rows_of(metrics, "validation", "intensity_rows")
        intensity = figures.au_bars(rows, "icc", tables.INTENSITY["icc"])
    return {
        "f1": figures.au_bars(tables.rows_of(metrics, "validation"), "f1", "F1 of the positive class"),
        "intensity": intensity,
        "choice": _choice(selection),
        "order": figures.reliability(sigmas, 0.5, "The order of two frames (validation pairs)", claimed),
        "confidence": figures.reliability(
            confidence, 0.0, "The confidence of a decision (validation)", "claimed confidence"
        ),
        "risk_coverage": figures.risk_coverage(decisions["risk_coverage"], decisions["error"]),
        "risk_coverage_of_aus": [
            figures.risk_coverage(own["risk_coverage"], own["error"], au)
            for au, own in decisions["per_au"].items()
            if own["error"] is not None
        ],
    }


def _choice(selection: Tree) -> Drawing:
    """Draw the difference that uncertainty makes for each AU, with its interval and the chosen mapping."""
    rows, tie = [], float(selection["tie"])
    for au in selection["aus"]:
        entry, name = selection[au], label_au(au)
        colour, legend = (figures.BLUE, "with") if uses_uncertainty(entry) else (figures.ORANGE, "without")
        value, edges = entry["difference"], entry["difference_interval"]
        rows.append(figures.Interval(name, np.nan if value is None else value, edges, colour, f"{legend} uncertainty"))
    title = f"Difference for each AU on {selection['chosen_on']}"
    label = f"{tables.compared_figure(selection)} with uncertainty minus without"
    return figures.intervals(rows, title, label, {f"smallest limit, -{tie:g}": -tie, "no difference": 0.0})


def _first_timeline(evaluation: Evaluation, frames: Frames) -> Drawing:
    """Draw all AUs of the first video that the page shows."""
    video = videos_to_show(frames, 1)[0]
    series = validation_series(evaluation, frames, stretch(frames, frames.slices()[video]))
    return draw_timeline(series, f"Pseudo-intensity in {frames.videos[video]}", columns=2)


def _timelines(
    evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail
) -> Iterator[tuple[Drawing, Drawing | None]]:
    """Draw a part of each video to show: the AUs that change most with faces above them, and the other AUs if there are any."""
    for video in videos_to_show(frames):
        rows, name = stretch(frames, frames.slices()[video]), frames.videos[video]
        order = np.argsort(-label_changes(frames.labels[rows]).sum(0), kind="stable")
        series = validation_series(evaluation, frames, rows)
        faces = [thumbnail(rows.start + k) for k in nearest_to_even(frames.time[rows], frames.ok[rows])]
        first, others = draw_timeline(series, name, sorted(order[:OPEN]), faces=faces), sorted(order[OPEN:])
        yield first, draw_timeline(series, f"{name}: the other AUs", others) if others else None


def _from_sources(sources: Sources, frames: Frames, metrics: Tree, folder: Path) -> dict[str, Any]:
    """Return training curves, cost, origin and settings; `folder` is that of the report."""
    training = {name: _draw_curves(own / "curves.jsonl") for name, own in sources.trained.items()}
    origin = describe_origin(sources, folder)
    return {
        **_uncertainty_sources(sources, metrics),
        "training": training,
        "cost": cost_of_files(*sources.trained.values()),
        "origin": origin,
        "made_from": origin_table(origin, sources.params, frames, metrics),
        "settings": settings_table(sources.trained, sources.params),
    }


def _draw_curves(path: Path) -> Any:
    """Draw the curves of a training."""
    rows = store.read_jsonl(path)
    with store.fitting(path):
        return figures.training_curves(rows)


def _uncertainty_sources(sources: Sources, metrics: Tree) -> dict[str, Table | None]:
    """Return the tables of the smoothers and of the guard of h; None without one."""
    with store.fitting(sources.trained["h"] / "about.json"):
        guard = store.read_json(sources.trained["h"] / "about.json").get("guard_of_aus")
    path = Path("smoother.json") if sources.features is None else sources.features / "smoother.json"
    with store.fitting(path):
        numbers = store.read_json(path)["routes"] if path.exists() else {}
    return {
        "guard": evidence.guard(guard, metrics["aus"]) if isinstance(guard, Mapping) else None,
        "smoothers": evidence.smoothers(metrics, numbers) if metrics["pair_accuracy"]["smoothed"] else None,
    }

"""The files that evaluate writes: metrics.json, table.md, the plots and report.html, each whole or not at all."""

from pathlib import Path
from typing import NamedTuple

from aupair import store
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.report import tables
from aupair.report.document import Section, Text, html_page, markdown
from aupair.report.figures import Drawing, au_bars, risk_coverage
from aupair.report.sections import Sources, data_blocks, order_reliability, report_sections
from aupair.report.timelines import draw_timeline, stretch, validation_series, videos_to_show

NO_SOURCES = Sources()
TABLE = ("Scores", "Choice", "Calibration", "Abstaining", "Evidence", "Data")
"""The sections of the report that table.md holds."""


class Places(NamedTuple):
    """Where the reports go: metrics.json, table.md, a folder of pictures, report.html."""

    metrics: Path
    table: Path
    plots: Path
    report: Path


def write_reports(
    evaluation: Evaluation, frames: Frames, places: Places, pairs: tables.Rows, note: str = "",
    sources: Sources = NO_SOURCES,
) -> None:  # fmt: skip
    """Write metrics.json, table.md, a folder of PNGs, and the page that shows it all.

    Args:
        pairs: the counts of pairs as lines of cells, the first being the head; see `Samples.table`.
        note: the first line under the table's title, such as what the data is.
        sources: the faces, networks and settings that the page shows beside the figures.

    Raises:
        AupairError: a folder cannot be written, or a file of a source cannot be read.
    """
    with store.atomic(places.plots) as temporary:
        temporary.mkdir()
        for name, drawing in _plots(evaluation, frames).items():
            drawing.save_png(temporary / f"{name}.png")
    store.write_json(places.metrics, evaluation.metrics)
    metrics = store.read_json(places.metrics)
    page = report_sections(evaluation, metrics, frames, data_blocks(frames, note, pairs), sources)
    store.write_text(places.report, html_page("aupair: report", "What the recognizer can do", page))
    by_name = {section.name: section for section in page}
    first = Section("", [Text(note)] if note else [])
    store.write_text(places.table, markdown("Results", [first, *(by_name[name] for name in TABLE)]))


def _plots(evaluation: Evaluation, frames: Frames) -> dict[str, Drawing]:
    """Draw the plots by the names of their files."""
    metrics, video = evaluation.metrics, videos_to_show(frames, 1)[0]
    series = validation_series(evaluation, frames, stretch(frames, frames.slices()[video]))
    decisions = metrics["decisions"]
    return {
        "timelines": draw_timeline(series, f"Pseudo-intensity in {frames.videos[video]}", columns=2),
        "f1": au_bars(tables.rows_of(metrics, "validation"), "f1", "F1 of the positive class"),
        "risk_coverage": risk_coverage(decisions["risk_coverage"], decisions["error"]),
        "reliability": order_reliability(metrics),
    }

"""Write what evaluate found: metrics.json, table.md, the plots and report.html, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aupair import store
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.report import plots
from aupair.report.page import NONE, Sources, page
from aupair.report.table import markdown


class Places(NamedTuple):
    """Where the reports go: metrics.json, table.md, a folder of pictures, report.html."""

    metrics: Path
    table: Path
    plots: Path
    report: Path


def write_reports(
    evaluation: Evaluation, frames: Frames, places: Places, pairs: Sequence[Sequence[str]], note: str = "",
    sources: Sources = NONE,
) -> None:  # fmt: skip
    """Write metrics.json, table.md, a folder of PNGs, and the page that shows it all.

    Args:
        pairs: the counts of pairs as lines of cells, the first being the head; see `Samples.table`.
        note: the first line under the table's title, such as what the data is.
        sources: the faces, networks and settings that the page shows beside the figures.

    Raises:
        AupairError: a folder cannot be written, or a file of a source cannot be read.
    """
    figures, selection, trial = evaluation.metrics, evaluation.selection, evaluation.trial
    drawn = {
        "timelines": plots.timelines(frames, trial.y_hat, trial.sigma, evaluation.decisions),
        "f1": plots.f1_per_au(figures, selection),
        "risk_coverage": plots.risk_coverage(figures["decisions"]["risk_coverage"]),
        "reliability": plots.reliability(figures["uncertainty"]["reliability"]),
    }
    with store.atomic(places.plots) as temporary:
        temporary.mkdir()
        for name, figure in drawn.items():
            figure.savefig(temporary / f"{name}.png", metadata={"Software": None})
    store.write_json(places.metrics, figures)
    store.write_text(places.table, markdown(figures, selection, pairs, note))
    as_written = store.read_json(places.metrics)
    store.write_text(places.report, page(evaluation, as_written, frames, pairs, note, sources))

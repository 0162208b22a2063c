"""Write what evaluate found: metrics.json, table.md and the plots, each whole or not at all."""

from pathlib import Path

from aupair import store
from aupair.data.frames import Frames
from aupair.evaluation import plots
from aupair.evaluation.evaluate import Evaluation
from aupair.evaluation.table import markdown


def write_reports(
    evaluation: Evaluation, frames: Frames, metrics: Path, table: Path, pictures: Path, note: str = ""
) -> None:
    """Write metrics.json, table.md and a folder of PNGs.

    Args:
        note: the first line under the table's title, such as what the data is.

    Raises:
        AupairError: a folder cannot be written.
    """
    figures, selection, trial = evaluation.metrics, evaluation.selection, evaluation.trial
    drawn = {
        "timelines": plots.timelines(frames, trial.y_hat, trial.sigma, evaluation.decisions),
        "f1": plots.f1_per_au(figures, selection),
        "risk_coverage": plots.risk_coverage(evaluation.curves["risk_coverage"]),
        "reliability": plots.reliability(evaluation.curves["reliability"]),
    }
    with store.atomic(pictures) as temporary:
        temporary.mkdir()
        for name, figure in drawn.items():
            figure.savefig(temporary / f"{name}.png", metadata={"Software": None})
    store.write_json(metrics, figures)
    store.write_text(table, markdown(figures, selection, note))

"""`reports/report.html`: all that was found on one page that needs nothing else, no script and no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from aupair.params import Params
from aupair.report.page import about, faces, scores, timelines, trust
from aupair.report.page.about import Trained
from aupair.report.page.markup import text

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""what a browser lets the page load: nothing that is not in it"""
TITLE = "aupair: report"


class Sources(NamedTuple):
    """Where the page finds what is no figure; a section without its source is left out.

    Attributes:
        faces: the folder of aligned faces.
        trained: the chosen trial's networks.
        params: those of evaluate.
    """

    faces: Path | None = None
    trained: Trained | None = None
    params: Params | None = None


NONE = Sources()


def page(
    evaluation: Evaluation, metrics: dict[str, Any], frames: Frames, pairs: Sequence[Sequence[str]], note: str,
    sources: Sources,
) -> str:  # fmt: skip
    """Write the page; equal figures, faces and networks give equal bytes.

    Args:
        metrics: the tree of metrics.json as it is read back: what is not known is None.
        pairs: the counts of pairs as lines of cells, the first being the head.
        note: what the data is; without it the page says that its faces are somebody's.

    Raises:
        ArtifactError: a file of a source is missing or corrupt.
    """
    thumbnail = None if sources.faces is None else faces.thumbnails(sources.faces, frames)
    trained, params = sources.trained, sources.params
    sections = {
        "Data": about.data(frames, note, pairs),
        "Headline": scores.headline(metrics),
        "Scores": scores.scores(metrics),
        "Choice": scores.choice(metrics, evaluation.selection),
        "Timelines": timelines.timelines(evaluation, frames, thumbnail),
        "Faces": "" if thumbnail is None else faces.montages(evaluation, frames, thumbnail),
        "Calibration": trust.calibration(metrics),
        "Abstaining": trust.abstaining(metrics),
        "Evidence": trust.evidence(metrics),
        "Training": "" if trained is None else about.training(trained),
        "Cost": "" if trained is None else about.cost(trained),
        "Settings": "" if trained is None or params is None else about.settings(trained, params, frames, metrics),
    }
    return document(TITLE, "What the recognizer can do", {name: body for name, body in sections.items() if body})


def document(title: str, heading: str, sections: dict[str, str]) -> str:
    """Put sections, the HTML of each by its name, under a bar of links to them: a whole page that loads nothing."""
    style = Path(__file__).with_name("style.css").read_text()
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{name}</h2>{inside}</section>\n' for name, inside in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title><link rel="icon" href="data:,">\n<style>\n{style}</style></head>\n'
        f'<body><header><h1>{text(heading)}</h1></header>\n<nav aria-label="sections">{links}</nav>\n'
        f"<main>\n{body}</main></body></html>\n"
    )


def _anchor(name: str) -> str:
    """Give the id of a section."""
    return name.lower().replace(" ", "-")

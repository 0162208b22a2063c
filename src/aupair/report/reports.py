"""The files that evaluate writes: metrics.json, table.md, the plots and report.html, each whole or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aupair import __version__, store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.cost import cost_of_files
from aupair.evaluation.evaluate import Evaluation
from aupair.params import Params
from aupair.report import results, tables
from aupair.report.document import Block, Folded, Grid, Section, Text, html_page, markdown
from aupair.report.faces import Thumbnail, montages, thumbnails
from aupair.report.figures import Drawing, au_bars, risk_coverage, training_curves
from aupair.report.formatting import percent
from aupair.report.tables import Table
from aupair.report.timelines import draw_timeline, nearest_to_even, stretch, validation_series, videos_to_show

Tree = Mapping[str, Any]

TABLE = ("Scores", "Choice", "Calibration", "Abstaining", "Evidence", "Data")
"""The sections of the report that table.md holds."""
SHARE = "The faces on this page are from the data: pass it on only as the data's licence allows."
OPEN = 4
"""AUs of a timeline that are not folded."""
NOT_SETTINGS = ("aus", "standardisation")


class Trained(NamedTuple):
    """The folders of the chosen trial that the training stages wrote."""

    f: Path
    h: Path
    mapping: Path


class Sources(NamedTuple):
    """The aligned faces, networks and settings that the report page shows; None leaves out the sections that need it."""

    faces: Path | None = None
    trained: Trained | None = None
    params: Params | None = None


class Places(NamedTuple):
    """The paths that the reports are written to: metrics.json, table.md, a folder of pictures, report.html."""

    metrics: Path
    table: Path
    plots: Path
    report: Path


NO_SOURCES = Sources()


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
    page = _sections(evaluation, metrics, frames, _data(frames, note, pairs), sources)
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
        "reliability": results.order_reliability(metrics),
    }


def _sections(
    evaluation: Evaluation, metrics: Tree, frames: Frames, data: Sequence[Block], sources: Sources
) -> list[Section]:
    """Return the sections of report.html, of which table.md takes some; equal input gives equal ones.

    Args:
        metrics: the tree of metrics.json as it is read back: what is not known is None.
        data: what is said of the data, see `_data`.

    Raises:
        ArtifactError: a file of a source is missing or corrupt.
    """
    thumbnail = None if sources.faces is None else thumbnails(sources.faces, frames)
    trained, params = sources.trained, sources.params
    return [
        Section("Data", data),
        Section("Headline", [results.headline_cards(metrics)]),
        Section("Scores", results.score_blocks(metrics)),
        Section("Choice", results.choice_blocks(metrics, evaluation.selection)),
        Section("Timelines", _timelines(evaluation, frames, thumbnail)),
        Section("Faces", [] if thumbnail is None else montages(evaluation, frames, thumbnail)),
        Section("Calibration", results.calibration_blocks(metrics)),
        Section("Abstaining", results.abstention_blocks(metrics)),
        Section("Evidence", results.evidence_blocks(metrics)),
        Section("Training", [] if trained is None else _training(trained)),
        Section("Cost", [] if trained is None else _cost(trained)),
        Section("Settings", [] if trained is None or params is None else _settings(trained, params, frames, metrics)),
    ]


def _data(frames: Frames, note: str, pairs: tables.Rows) -> list[Block]:
    """Return the description of the data and its size: videos, people, frames, and pairs of each AU."""
    annotated, lines = frames.labels[:, 0] >= 0, []
    for split in SPLITS:
        own = frames.of_split(split)
        people, videos = (len(np.unique(values[own])) for values in (frames.subject, frames.video))
        counts = (videos, people, own.sum(), (own & frames.ok).sum(), (own & annotated).sum())
        lines.append([split, *(f"{int(count):,}" for count in counts)])
    positives = []
    for k, au in enumerate(AUS):
        active = [frames.labels[annotated & frames.of_split(split), k] >= 1 for split in SPLITS]
        positives.append([au, *(percent(float(values.mean()) if len(values) else None) for values in active)])
    head = ["", "videos", "people", "frames", "with a face", "annotated"]
    caption = "Networks are fitted on fit, all is chosen on select, validation is for the final figures"
    share = Table("Share of annotated frames in which the AU is active", ["AU", *SPLITS], positives)
    return [
        Text(note or SHARE, "note"),
        Table(caption, head, lines),
        Folded("Positives of each AU", [share]),
        Folded("Fixed pairs of each AU", [tables.pair_counts(pairs)]),
    ]


def _timelines(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail | None) -> list[Block]:
    """Return some seconds of the videos of validation in which most can be seen, of different people if there are."""
    words = (
        "The line is y_hat (standardised), the band one sigma each way. Below it the truth, the decision, where the two "
        "differ, and the least confident 20 % of all decisions; grey: no face, or no annotation."
    )
    blocks: list[Block] = [Text(words)]
    for video in videos_to_show(frames):
        rows, name = stretch(frames, frames.slices()[video]), frames.videos[video]
        active = frames.labels[rows] >= 1
        order = np.argsort(-(active[1:] != active[:-1]).sum(0), kind="stable")
        series = validation_series(evaluation, frames, rows)
        even = nearest_to_even(frames.time[rows], frames.ok[rows])
        faces = [] if thumbnail is None else [thumbnail(rows.start + k) for k in even]
        shown = draw_timeline(series, name, sorted(order[:OPEN]), faces=faces)
        others = draw_timeline(series, f"{name}: the other AUs", sorted(order[OPEN:]))
        blocks += [Grid([shown], "wide"), Folded("The other AUs", [Grid([others], "wide")])]
    return blocks


def _training(trained: Trained) -> list[Block]:
    """Return the curves of f, h and the mapping."""
    blocks: list[Block] = []
    for name, folder in trained._asdict().items():
        if drawings := training_curves(store.read_jsonl(folder / "curves.jsonl")):
            blocks += [Text(name, "heading"), Grid(drawings, "small")]
    return blocks


def _cost(trained: Trained) -> list[Block]:
    """Return what a frame with a face costs."""
    total = cost_of_files(*trained)
    lines = [
        [name, f"{part['parameters']:,}", f"{part['gmac_per_frame']:.4f}"]
        for name, part in (*total["parts"].items(), ("all", total))
    ]
    words = (
        f"Passes of a face through a trunk: {total['passes']}; then comes the mapping of each AU, with and without "
        "uncertainty. A MAC is a multiplication with an addition. Finding the face comes before this; how long stages "
        "took stands in MLflow."
    )
    head = ["", "parameters", "GMAC a frame"]
    return [Text(words), Table("Cost of the recognizer", head, lines, [len(lines) - 1])]


def _settings(trained: Trained, params: Params, frames: Frames, metrics: Tree) -> list[Block]:
    """Return versions, hashes and trials behind the report, and the settings that are stored with the trained networks."""
    origin = [
        ["aupair", __version__],
        ["target", params.target],
        ["protocol", str(metrics["protocol"])],
        ["trials, the chosen one", f"{', '.join(map(str, params.trials))}; {metrics['chosen_trial']}"],
        ["sha256 of splits, faces and labels", frames.fingerprint()[:16]],
    ]
    lines: list[list[str]] = []
    for name, folder in trained._asdict().items():
        about = store.read_json(folder / "about.json")
        lines += _leaves(name, {key: value for key, value in about.items() if key not in NOT_SETTINGS})
    lines += _leaves("evaluate", params.evaluate.model_dump(mode="json"))
    chosen = Table("Settings of the chosen trial", ["setting", "value"], lines)
    return [Table("Made from", ["", ""], origin), Folded("Settings", [chosen])]


def _leaves(prefix: str, tree: Tree) -> Iterator[list[str]]:
    """Return the name and the value of each leaf of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{key}", value)
        else:
            yield [f"{prefix}.{key}", str(value)]

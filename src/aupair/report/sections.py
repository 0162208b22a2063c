"""The sections of report.html and table.md: data, scores, choice, timelines, faces, calibration, cost and settings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aupair import __version__, store
from aupair.aus import AUS, SPLITS
from aupair.data.frames import Frames
from aupair.evaluation.cost import cost_of_files
from aupair.evaluation.evaluate import Evaluation
from aupair.evaluation.selection import uses_uncertainty
from aupair.params import Params
from aupair.report import figures, tables
from aupair.report.document import Block, Card, Folded, Grid, Section, Text
from aupair.report.faces import Thumbnail, montages, thumbnails
from aupair.report.formatting import interval, number, percent
from aupair.report.tables import Table
from aupair.report.timelines import draw_timeline, nearest_to_even, stretch, validation_series, videos_to_show

Tree = Mapping[str, Any]

HOW_TO_READ = (
    "In brackets: 95 % intervals, bootstrap over videos. 2021 score = 1/2 mean F1 + 1/2 accuracy over all cells; "
    "a frame without a face has the decision of the nearest frame of its video that has one. "
)
PROTOCOL_OURS = (
    "Thresholds, trial and the mapping of each AU were chosen on `select`: its rows are optimistic; "
    "`validation` was touched once."
)
PROTOCOL_PAPER = (
    "The paper's protocol: thresholds, trial and the mapping of each AU were **chosen on validation**; its "
    "rows are optimistic."
)
LEVELS = (
    "The mapping's output, clamped to 0 to 5, against the level; rounded only where it says so. ICC(3,1) is consistency: "
    "an offset costs nothing, a constant has 0."
)
COMPARED = (
    "Difference of the first row less the second with its 95 % interval, and the share of resamples of the videos in "
    "which the first is better (ties half)."
)
ABSTAINING = (
    "Mean F1 / accuracy of the decisions that are kept, frames with a face alone; what is left out counts nowhere. "
    "Confidence: each AU leaves out the same share of its active and of its inactive decisions, as `predict` does; "
    "ungrouped: of all its decisions, which leaves few active ones. Random: the mean of 20 draws."
)
LIMITS = (
    "The same with the limits that were found on `select`, as `predict --coverage` has them. The errors there are "
    "held out by person; `--risk` goes by their upper bound (95 %)."
)
SHARE = "The faces on this page are from the data: pass it on only as the data's licence allows."
OPEN = 4
"""AUs of a timeline that are not folded."""
COVERAGE = 0.8
"""The coverage that the headline shows."""
NOT_SETTINGS = ("aus", "standardisation")


class Trained(NamedTuple):
    """The folders of the chosen trial that the training stages wrote."""

    f: Path
    h: Path
    mapping: Path


class Sources(NamedTuple):
    """Where the page finds what is no figure of merit; a section without its source is left out.

    Attributes:
        faces: the folder of aligned faces.
        trained: the chosen trial's networks.
        params: those of evaluate.
    """

    faces: Path | None = None
    trained: Trained | None = None
    params: Params | None = None


def report_sections(
    evaluation: Evaluation, metrics: Tree, frames: Frames, data: Sequence[Block], sources: Sources
) -> list[Section]:
    """Return the sections of report.html, of which table.md takes some; equal input gives equal ones.

    Args:
        metrics: the tree of metrics.json as it is read back: what is not known is None.
        data: what is said of the data, see `data_blocks`.

    Raises:
        ArtifactError: a file of a source is missing or corrupt.
    """
    thumbnail = None if sources.faces is None else thumbnails(sources.faces, frames)
    trained, params = sources.trained, sources.params
    return [
        Section("Data", data),
        Section("Headline", [headline(metrics)]),
        Section("Scores", scores(metrics)),
        Section("Choice", choice(metrics, evaluation.selection)),
        Section("Timelines", timelines(evaluation, frames, thumbnail)),
        Section("Faces", [] if thumbnail is None else montages(evaluation, frames, thumbnail)),
        Section("Calibration", calibration(metrics)),
        Section("Abstaining", abstaining(metrics)),
        Section("Evidence", evidence(metrics)),
        Section("Training", [] if trained is None else training(trained)),
        Section("Cost", [] if trained is None else cost(trained)),
        Section("Settings", [] if trained is None or params is None else settings(trained, params, frames, metrics)),
    ]


def data_blocks(frames: Frames, note: str, pairs: tables.Rows) -> list[Block]:
    """Return what the data is and how much of it there is."""
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


def headline(metrics: Tree) -> Grid:
    """Return the figures to remember, those of the row P2 on validation."""
    rows = tables.rows_of(metrics, "validation")
    cards = []
    for key, baseline in (("f1", "all-one"), ("accuracy", "all-zero"), ("score", "best-constant")):
        beside = f"{tables.ROWS[baseline]} {number(rows[baseline][key])}"
        details = (interval(rows["P2"]["intervals"][key]), beside)
        cards.append(Card(tables.COLUMNS[key], number(rows["P2"][key]), details))
    pairs, decisions = metrics["pair_accuracy"], metrics["decisions"]
    clear = () if pairs["clear"] is None else (f"clear faces {percent(pairs['clear'])}",)
    cards.append(Card("two frames in the right order", percent(pairs["mean"]), clear))
    (kept,) = (row for row in decisions["abstention"] if row["asked"] == COVERAGE)
    words = f"{percent(kept['error'])} of the {percent(kept['coverage'])} kept by --coverage {COVERAGE:g}"
    cards.append(Card("wrong decisions, frames with a face", percent(decisions["error"]), (words,)))
    return Grid(cards, "cards")


def scores(metrics: Tree) -> list[Block]:
    """Return the scores of all ways to decide, those of select folded, and the F1 of each AU."""
    how = HOW_TO_READ + (PROTOCOL_PAPER if metrics["protocol"] == "paper" else PROTOCOL_OURS)
    blocks: list[Block] = [Text(how), tables.scores(metrics, "validation")]
    blocks.append(Folded("The same on select", [tables.scores(metrics, "select")]))
    if "intensity_rows" in metrics:
        rows = tables.rows_of(metrics, "validation", "intensity_rows")
        blocks += [
            Text("Intensity, 0 to 5", "heading"),
            Text(LEVELS),
            tables.intensities(metrics, "validation"),
            Folded("The same on select", [tables.intensities(metrics, "select")]),
            figures.au_bars(rows, "icc", tables.INTENSITY["icc"]),
            Folded("The numbers", [tables.intensity_of_aus(metrics)]),
        ]
    return [*blocks, figures.au_bars(tables.rows_of(metrics, "validation"), "f1", "F1 of the positive class")]


def choice(metrics: Tree, selection: Tree) -> list[Block]:
    """Return which AUs use uncertainty, with the difference, its interval and what it rests on."""
    by, tie = _chosen_by(selection), float(selection["tie"])
    words = (
        f"P1 decides every AU with uncertainty. P2 does so where {by} on `{selection['chosen_on']}` is higher with "
        f"uncertainty by more than {number(tie)}, and decides the other AUs without it. The interval is a paired "
        "bootstrap over videos."
    )
    rows = []
    for au in AUS:
        entry, name = selection[au], f"{au} {figures.NAMES[au]}"
        colour, legend = (figures.BLUE, "with") if uses_uncertainty(entry) else (figures.ORANGE, "without")
        value, edges = entry["difference"], entry["difference_interval"]
        rows.append(figures.Interval(name, np.nan if value is None else value, edges, colour, f"{legend} uncertainty"))
    title = f"Difference for each AU on {selection['chosen_on']}"
    marks = {f"above {tie:g}: with": tie, "no difference": 0.0}
    blocks: list[Block] = [
        Text(words),
        figures.intervals(rows, title, f"{by} with uncertainty less without", marks),
        Folded("The numbers", [tables.choice(metrics, selection)]),
        Text("Whole rows against each other", "heading"),
        Text(COMPARED),
        tables.comparisons(metrics),
    ]
    return blocks + ([_trials(metrics)] if len(metrics["trials"]) > 1 else [])


def timelines(evaluation: Evaluation, frames: Frames, thumbnail: Thumbnail | None) -> list[Block]:
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


def calibration(metrics: Tree) -> list[Block]:
    """Return whether P(order) and the confidence of a decision are as often right as they claim."""
    order, decisions = metrics["uncertainty"], metrics["decisions"]
    words = (
        "P(order) = Phi(|d|/s) is the claimed probability that the frame with the higher y_hat shows more of the AU: ECE "
        f"{number(order['ece'])}, with the best constant sigma {number(order['ece_constant'])}. The confidence is the "
        f"claimed probability that a decision is right: ECE {number(decisions['confidence_ece'])}, Brier score "
        f"{number(decisions['confidence_brier'])}."
    )
    return [Text(words), Grid([order_reliability(metrics), confidence_reliability(metrics)], "two")]


def order_reliability(metrics: Tree) -> figures.Drawing:
    """Draw how often the order of a pair is right against P(order), with h's sigma and with the best constant."""
    curves = metrics["uncertainty"]["reliability"]
    named = {"sigma of h": curves["h"], "best constant sigma": curves["constant"]}
    return figures.reliability(
        named, 0.5, "The order of two frames (validation pairs)", "claimed P(order) = Phi(|d|/s)"
    )


def confidence_reliability(metrics: Tree) -> figures.Drawing:
    """Draw how often a decision is right against its confidence."""
    named = {"confidence": metrics["decisions"]["reliability"]}
    return figures.reliability(named, 0.0, "The confidence of a decision (validation)", "claimed confidence")


def abstaining(metrics: Tree) -> list[Block]:
    """Return what leaving out the least confident decisions brings: risk and coverage, and the scores of the rest."""
    decisions = metrics["decisions"]
    areas = (f"{figures.BASES.get(way, (way,))[0]} {number(area)}" for way, area in decisions["aurc"].items())
    words = (
        "Of all decisions the least confident are left out first; the lower the curve, the better confidence tells right "
        f"decisions from wrong ones. Area under the curve: {', '.join(areas)}."
    )
    small = [
        figures.risk_coverage(own["risk_coverage"], own["error"], au)
        for au, own in ((au, decisions["per_au"][au]) for au in AUS)
    ]
    return [
        Text(words),
        figures.risk_coverage(decisions["risk_coverage"], decisions["error"]),
        Text("Scores of the decisions that are kept", "heading"),
        Text(ABSTAINING),
        tables.selective(metrics),
        Text("Limits for `predict`", "heading"),
        Text(LIMITS),
        tables.abstention(metrics),
        Text("Each AU by itself", "heading"),
        Grid(small, "small"),
    ]


def evidence(metrics: Tree) -> list[Block]:
    """Return the figures of pseudo-intensity and uncertainty, those of each AU folded."""
    return [tables.uncertainty(metrics), Folded("For each AU", [tables.uncertainty_of_aus(metrics)])]


def training(trained: Trained) -> list[Block]:
    """Return the curves of f, h and the mapping."""
    blocks: list[Block] = []
    for name, folder in trained._asdict().items():
        if drawings := figures.training_curves(store.read_jsonl(folder / "curves.jsonl")):
            blocks += [Text(name, "heading"), Grid(drawings, "small")]
    return blocks


def cost(trained: Trained) -> list[Block]:
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


def settings(trained: Trained, params: Params, frames: Frames, metrics: Tree) -> list[Block]:
    """Return what the report was made from, and the settings as the trained files have them."""
    made = [
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
    return [Table("Made from", ["", ""], made), Folded("Settings", [chosen])]


def _chosen_by(selection: Tree) -> str:
    """Return the name of the figure by which the two mappings were compared."""
    return tables.INTENSITY["icc"] if selection[AUS[0]]["chosen_by"] == "icc" else "1/2 (F1 + accuracy)"


def _trials(metrics: Tree) -> Table:
    """Return the scores of all trials."""
    keys, rows = ("score", "f1", "accuracy", "exact_match"), metrics["trials"]
    lines = [[str(row["trial"]), *(number(row[key]) for key in keys)] for row in rows]
    strong = [k for k, row in enumerate(rows) if row["trial"] == metrics["chosen_trial"]]
    caption = f"Trials on {metrics['chosen_on']}; the chosen one stands out"
    return Table(caption, ["trial", *(tables.COLUMNS[key] for key in keys)], lines, strong)


def _leaves(prefix: str, tree: Tree) -> Iterator[list[str]]:
    """Return the name and the value of each leaf of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{key}", value)
        else:
            yield [f"{prefix}.{key}", str(value)]

"""The results in report.html and table.md: scores, choice, calibration, abstaining and the evidence for sigma.

The functions take the tree of metrics.json as it is read back: what is not known is None.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aupair.aus import AUS, NAMES
from aupair.evaluation.selection import uses_uncertainty
from aupair.report import figures, tables
from aupair.report.document import Block, Card, Folded, Grid, Text
from aupair.report.formatting import interval, number, percent
from aupair.report.tables import Table

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
COVERAGE = 0.8
"""The coverage that the headline shows."""


def headline_cards(metrics: Tree) -> Grid:
    """Return the most important figures: the scores of P2 on validation, pair accuracy, and wrong decisions."""
    rows = tables.rows_of(metrics, "validation")
    cards = []
    for key, baseline in (("f1", "all-one"), ("accuracy", "all-zero"), ("score", "best-constant")):
        beside = f"{tables.ROWS[baseline]} {number(rows[baseline][key])}"
        details = (interval(rows["P2"]["intervals"][key]), beside)
        cards.append(Card(tables.COLUMNS[key], number(rows["P2"][key]), details))
    pairs, decisions = metrics["pair_accuracy"], metrics["decisions"]
    clear = () if pairs["clear"] is None else (f"clear faces {percent(pairs['clear'])}",)
    cards.append(Card("two frames in the right order", percent(pairs["mean"]), clear))
    (limited,) = (row for row in decisions["abstention"] if row["asked"] == COVERAGE)
    words = f"{percent(limited['error'])} of the {percent(limited['coverage'])} kept by --coverage {COVERAGE:g}"
    cards.append(Card("wrong decisions, frames with a face", percent(decisions["error"]), (words,)))
    return Grid(cards, "cards")


def score_blocks(metrics: Tree) -> list[Block]:
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


def choice_blocks(metrics: Tree, selection: Tree) -> list[Block]:
    """Return which AUs use uncertainty, with the difference in score, its interval, and the data behind it."""
    by, tie = _chosen_by(selection), float(selection["tie"])
    words = (
        f"P1 decides every AU with uncertainty. P2 does so where {by} on `{selection['chosen_on']}` is higher with "
        f"uncertainty by more than {number(tie)}, and decides the other AUs without it. The interval is a paired "
        "bootstrap over videos."
    )
    rows = []
    for au in AUS:
        entry, name = selection[au], f"{au} {NAMES[au]}"
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


def calibration_blocks(metrics: Tree) -> list[Block]:
    """Return whether P(order) and the confidence of a decision are as often right as they claim."""
    order, decisions = metrics["uncertainty"], metrics["decisions"]
    words = (
        "P(order) = Phi(|d|/s) is the claimed probability that the frame with the higher y_hat shows more of the AU: ECE "
        f"{number(order['ece'])}, with the best constant sigma {number(order['ece_constant'])}. The confidence is the "
        f"claimed probability that a decision is right: ECE {number(decisions['confidence_ece'])}, Brier score "
        f"{number(decisions['confidence_brier'])}."
    )
    return [Text(words), Grid([order_reliability(metrics), _confidence_reliability(metrics)], "two")]


def order_reliability(metrics: Tree) -> figures.Drawing:
    """Draw how often the order of a pair is right against P(order), with h's sigma and with the best constant."""
    curves = metrics["uncertainty"]["reliability"]
    named = {"sigma of h": curves["h"], "best constant sigma": curves["constant"]}
    return figures.reliability(
        named, 0.5, "The order of two frames (validation pairs)", "claimed P(order) = Phi(|d|/s)"
    )


def _confidence_reliability(metrics: Tree) -> figures.Drawing:
    """Draw how often a decision is right against its confidence."""
    named = {"confidence": metrics["decisions"]["reliability"]}
    return figures.reliability(named, 0.0, "The confidence of a decision (validation)", "claimed confidence")


def abstention_blocks(metrics: Tree) -> list[Block]:
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


def evidence_blocks(metrics: Tree) -> list[Block]:
    """Return the figures of pseudo-intensity and uncertainty, those of each AU folded."""
    return [tables.uncertainty(metrics), Folded("For each AU", [tables.uncertainty_of_aus(metrics)])]


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

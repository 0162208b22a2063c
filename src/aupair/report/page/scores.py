"""The scores: headline figures, the table, a bar for each AU, and the choice of each AU's mapping with its evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aupair.aus import AUS, NAMES
from aupair.evaluation.selection import uses_uncertainty
from aupair.report import table
from aupair.report.formatting import interval, number, percent
from aupair.report.page import markup
from aupair.report.page.charts import Axis, Chart
from aupair.report.page.markup import folded, paragraph

Tree = Mapping[str, Any]

AU_NAMES = tuple(f"{au} {NAMES[au]}" for au in AUS)


ASKED = 0.8
"""the coverage that the headline shows: what predict keeps when it is asked for"""


def headline(metrics: Tree) -> str:
    """Show the figures to remember, those of the row P2 on validation."""
    row = of_row(metrics, "P2")
    beside = (
        ("f1", "mean F1", f"all one {number(of_row(metrics, 'all-one')['f1'])}"),
        ("accuracy", "accuracy", f"all zero {number(of_row(metrics, 'all-zero')['accuracy'])}"),
        ("score", "2021 score", f"best constant {number(of_row(metrics, 'best-constant')['score'])}"),
    )
    cards = [_card(name, number(row[key]), interval(row["intervals"][key]), more) for key, name, more in beside]
    pairs, found = metrics["pair_accuracy"], metrics["decisions"]
    clear = "" if pairs["clear"] is None else f"clear faces {percent(pairs['clear'])}"
    cards.append(_card("two frames in the right order", percent(pairs["mean"]), more=clear))
    (kept,) = (row for row in found["abstention"] if row["asked"] == ASKED)
    more = f"{percent(kept['error'])} of the {percent(kept['coverage'])} kept by --coverage {ASKED:g}"
    cards.append(_card("wrong decisions, frames with a face", percent(found["error"]), more=more))
    return markup.grid(cards, "cards")


def scores(metrics: Tree) -> str:
    """Give the table of all ways to decide, select's folded, and a bar for each AU."""
    how = table.HOW_TO_READ + (table.PAPER if metrics["protocol"] == "paper" else table.OURS)
    parts = [paragraph(how), _table(metrics, "validation"), folded("The same on select", _table(metrics, "select"))]
    parts += [_intensity(metrics), "<h3>F1 of each AU on validation</h3>"]
    rows = {row["name"]: row for row in metrics["rows"] if row["split"] == "validation"}
    parts.append(_bars(rows, "f1", "F1 of the positive class"))
    return "".join(parts)


def choice(metrics: Tree, selection: Tree) -> str:
    """Say how the mapping of each AU was chosen, with the difference, its interval and what it stands on."""
    tie, where, by = selection["tie"], selection["chosen_on"], _chosen_by(selection)
    words = (
        f"Each AU has a mapping with uncertainty and a simpler one without. The one with uncertainty is chosen where "
        f"its {by} on `{where}` is higher by more than {number(tie)}. The interval is a paired bootstrap over videos."
    )
    lines = list(table.aus(dict(metrics), dict(selection)))
    parts = [
        paragraph(words),
        _differences(selection),
        folded("The numbers", markup.table(lines, "Choice for each AU")),
    ]
    compared = markup.table(table.comparisons(dict(metrics)), "First row less the second")
    parts += ["<h3>Whole rows against each other</h3>", paragraph(table.COMPARED), compared]
    if len(metrics["trials"]) > 1:
        parts += ["<h3>Trials</h3>", _trials(metrics)]
    return "".join(parts)


def of_row(metrics: Tree, name: str, split: str = "validation") -> dict[str, Any]:
    """Find a row of the table."""
    return next(row for row in metrics["rows"] if (row["name"], row["split"]) == (name, split))


def per_au(row: Tree, key: str) -> np.ndarray:
    """Give a figure of each AU: (A,) float64, or (A, 2) for an interval; NaN where it is not known."""
    return np.array([row["per_au"][au].get(key, np.nan) for au in AUS], np.float64)


def rows_chart(x: Axis, height: int = 40) -> Chart:
    """Make a chart with a line for each AU, the first on top, `len(AUS) - 1 - k` being the middle of line k."""
    middle = [float(len(AUS) - 1 - k) for k in range(len(AUS))]
    return Chart(x, Axis(-0.5, len(AUS) - 0.5, middle, AU_NAMES), height * len(AUS))


def _card(name: str, value: str, beside: str = "", more: str = "") -> str:
    return (
        f'<div class="card"><span>{markup.text(name)}</span><b>{markup.text(value)}</b>'
        f"<span>{markup.text(beside)}</span><span>{markup.text(more)}</span></div>"
    )


def _table(metrics: Tree, split: str) -> str:
    lines = list(table.scores(dict(metrics), split))
    ours = [k for k, line in enumerate(lines[1:]) if line[0].startswith(table.MEANING["P2"])]
    return markup.table(lines, f"Scores on {split}", ours)


def _intensity(metrics: Tree) -> str:
    """Show how well levels are met; nothing where the target is occurrence."""
    if "intensity_rows" not in metrics:
        return ""
    tree = dict(metrics)
    rows = {row["name"]: row for row in metrics["intensity_rows"] if row["split"] == "validation"}
    return (
        "<h3>Intensity, 0 to 5</h3>"
        + paragraph(table.LEVELS)
        + markup.table(table.intensities(tree, "validation"), "Intensity on validation")
        + folded("The same on select", markup.table(table.intensities(tree, "select"), "Intensity on select"))
        + "<h3>ICC(3,1) of each AU on validation</h3>"
        + _bars(rows, "icc", table.INTENSITY["icc"])
        + folded("The numbers", markup.table(table.intensity_aus(tree), "Intensity of each AU on validation"))
    )


def _bars(rows: Tree, key: str, label: str) -> str:
    """A bar without uncertainty and one with it for each AU, with intervals, the choice and the constant to beat."""
    values = {name: per_au(rows[name], key) for name in ("no-uncertainty", "P1", "P2")}
    low = min(0.0, float(np.nanmin(np.concatenate(list(values.values())), initial=0.0)))
    chart = rows_chart(Axis(low, 1, (0, 0.2, 0.4, 0.6, 0.8, 1), label=label))
    for k, au in enumerate(AUS):
        y = float(len(AUS) - 1 - k)
        for name, css, up in (("no-uncertainty", "grey", 0.19), ("P1", "blue", -0.19)):
            _bar(chart, rows[name]["per_au"][au], key, (y + up, css, f"{au}: {table.MEANING[name]}"))
        without, with_uncertainty, chosen = (float(values[name][k]) for name in ("no-uncertainty", "P1", "P2"))
        if without != with_uncertainty:
            place = np.array([y + (0.19 if chosen == without else -0.19)])
            chart.dots(np.array([0.02]), place, "ring").dots(np.array([0.02]), place, "mark", "chosen (P2)")
        if "all-one" in rows:
            edge = np.full(2, rows["all-one"]["per_au"][au][key])
            chart.line(edge, np.array([y - 0.42, y + 0.42]), "red thick", table.MEANING["all-one"])
    pairs = zip(AUS, values["no-uncertainty"], values["P1"])
    said = "; ".join(f"{au} without uncertainty {number(a)}, P1 {number(b)}" for au, a, b in pairs)
    return chart.html(f"{label} of each AU on validation: {said}")


def _bar(chart: Chart, figures: Tree, key: str, how: tuple[float, str, str]) -> None:
    """Draw a figure with its interval; how: the middle of the bar, its colour, what it is."""
    y, css, name = how
    value = figures.get(key)
    if value is not None:
        title = f"{name} {number(value)} {interval(figures.get(f'{key}_interval'))}"
        chart.bar((0.0, value), (y - 0.17, y + 0.17), css, name.partition(": ")[2], title)
    _whisker(chart, figures.get(f"{key}_interval"), y)


def _whisker(chart: Chart, edges: Sequence[float | None] | None, y: float) -> None:
    """Draw an interval, if there is one."""
    if edges is not None and None not in edges:
        chart.line(np.array(edges, np.float64), np.full(2, y), "dark")


def _chosen_by(selection: Tree) -> str:
    """Name the figure that the two mappings were compared by."""
    return table.INTENSITY["icc"] if selection[AUS[0]]["chosen_by"] == "icc" else "1/2 (F1 + accuracy)"


def _differences(selection: Tree) -> str:
    """The difference that chose, an AU a line: right of the dashed line uncertainty is used."""
    spans = np.array([selection[au]["difference_interval"] for au in AUS], np.float64)
    values = np.array([selection[au]["difference"] for au in AUS], np.float64)
    reach = max(0.05, float(np.nanmax(np.abs(np.append(spans, values)), initial=0.0)))
    ticks = [round(share * reach, 3) for share in (-1, -0.5, 0, 0.5, 1)]
    label = f"{_chosen_by(selection)} with uncertainty less without"
    chart = rows_chart(Axis(-1.05 * reach, 1.05 * reach, ticks, label=label), 30)
    ends = np.array([-0.5, len(AUS) - 0.5])
    chart.line(np.zeros(2), ends, "grey")
    chart.line(np.full(2, float(selection["tie"])), ends, "dark dashed", "the tie: uncertainty is used above it")
    for k, au in enumerate(AUS):
        y, css = float(len(AUS) - 1 - k), "blue" if uses_uncertainty(selection[au]) else "orange"
        legend = {"blue": "with uncertainty", "orange": "without uncertainty"}[css]
        chart.line(spans[k], np.full(2, y), css).dots(values[k : k + 1], np.array([y]), css, legend)
    said = (
        f"{au} {number(value)}, P(better with) {number(selection[au]['probability_with_better'], 2)}"
        for au, value in zip(AUS, values)
    )
    return chart.html("Difference for each AU: " + "; ".join(said))


def _trials(metrics: Tree) -> str:
    keys = ("score", "f1", "accuracy", "exact_match")
    lines = [["trial", *(table.COLUMNS[key] for key in keys)]]
    lines += [[str(row["trial"]), *(number(row[key]) for key in keys)] for row in metrics["trials"]]
    chosen = [k for k, row in enumerate(metrics["trials"]) if row["trial"] == metrics["chosen_trial"]]
    return markup.table(lines, f"Trials on {metrics['chosen_on']}; the chosen one stands out", chosen)

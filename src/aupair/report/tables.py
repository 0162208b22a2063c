"""The tables of a report, which templates render as HTML and as Markdown, and a short table for a terminal.

Most functions take the tree of metrics.json, and of selection.json where the choice for each AU is shown.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aupair.aus import label_au
from aupair.evaluation.metrics import CHALLENGE_FIGURES
from aupair.evaluation.rows import parts_of_row
from aupair.evaluation.selection import uses_uncertainty
from aupair.report.formatting import EMPTY, UNDEFINED, interval, number, percent

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Tree = Mapping[str, Any]
Rows = Sequence[Sequence[str]]

COLUMNS = {
    "f1": "mean F1",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "score": "2021 score",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
}
COST = ("passes", "GMAC a frame", "million parameters")
"""The cost of a frame with a face: passes through a trunk, 1e9 multiply-accumulate operations, parameters of the networks."""
INTENSITY = {"icc": "ICC(3,1)", "mae": "MAE", "mae_rounded": "MAE, rounded", "pcc": "PCC"}
ROWS = {
    "all-zero": "all zero",
    "all-one": "all one",
    "best-constant": "best constant",
    "fit-median": "median of fit",
    "fit-mean": "mean of fit",
    "no-uncertainty": "ours, no uncertainty",
    "constant-noise": "smoothed, the same noise everywhere (control)",
    "uncertainty-columns": "uncertainty as features, not smoothed (the paper's)",
    "sigma": "smoothed by sigma of h alone",
    "quality": "smoothed by the landmarks' quality alone",
    "both": "smoothed by sigma and the landmarks' quality",
    "P1": "P1: uncertainty for all AUs",
    "P2": "P2: uncertainty except for AUs where it clearly loses",
}
"""The rows of metrics.json by name, and their names in tables."""
OURS = ("no-uncertainty", "P1", "P2")


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        caption: a description of its content.
        head: the names of the columns; the first column names the rows.
        rows: rows with one cell for each column.
        strong: indices of the rows to emphasise.
    """

    caption: str
    head: Sequence[str]
    rows: Rows
    strong: Collection[int] = ()


def headline(metrics: Tree, split: str = "validation") -> "RichTable":
    """Return the most important scores of a split as a table for a terminal."""
    from rich import box
    from rich.table import Table as RichTable

    notes = ["Chosen on validation."] if metrics["chosen_on"] == "validation" else []
    note = " ".join([*notes, complete_frames(metrics)]).strip()
    table = RichTable("", title=f"Scores on {split}", caption=note or None, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (*(COLUMNS[key] for key in CHALLENGE_FIGURES), f"{COLUMNS['f1']}, 95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows_of(metrics, split).items():
        edges = interval(row["intervals"]["f1"]) or UNDEFINED
        cells = (number(row[key]) for key in CHALLENGE_FIGURES)
        table.add_row(ROWS.get(name, name), *cells, edges, style="bold" if name == "P2" else None)
    return table


def complete_frames(metrics: Tree) -> str:
    """Return a note on the number of complete frames; "" if every annotated frame has the labels of all AUs."""
    counts: Tree = metrics.get("frames", {})
    if all(own["complete"] == own["annotated"] for own in counts.values()):
        return ""
    if not any(own["complete"] for own in counts.values()):
        return "No annotated frame has the labels of all AUs: exact match and the 2021 score are undefined."
    parts = [
        f"{own['complete']:,} of the {own['annotated']:,} annotated frames of {name}" for name, own in counts.items()
    ]
    return f"Exact match and the 2021 score use the frames in which all AUs are labelled: {', '.join(reversed(parts))}."


def scores(metrics: Tree, split: str, cost: Tree) -> Table:
    """Return the scores of a split, a row for each way to decide, with its cost from `cost_of_files`."""
    costs = {row["name"]: _cost_of_row(row["name"], metrics["route"], cost) for row in metrics["rows"]}
    return _of_rows(metrics["rows"], split, f"Scores on {split}", COLUMNS, costs)


def intensities(metrics: Tree, split: str, cost: Tree) -> Table:
    """Return the scores of the predicted intensities on a split, a row for each way to predict them, with its cost."""
    costs = {row["name"]: _cost_of_row(row["name"], metrics["route"], cost) for row in metrics["intensity_rows"]}
    return _of_rows(metrics["intensity_rows"], split, f"Intensity on {split}", INTENSITY, costs)


def _cost_of_row(name: str, route: str, cost: Tree) -> list[str]:
    """Return the cells of COST for a row."""
    parts = [cost["parts"][part] for part in parts_of_row(name, route) if part in cost["parts"]]
    keys = ("passes", "gmac_per_frame", "parameters")
    passes, gmac, parameters = (sum(part[key] for part in parts) for key in keys)
    return [str(passes), f"{gmac:.3f}", f"{parameters / 1e6:.2f}"]


def intensity_of_aus(metrics: Tree) -> Table:
    """Return the scores of the predicted intensities of each AU on validation: ICC, PCC and MAE."""
    rows = rows_of(metrics, "validation", "intensity_rows")
    lines = []
    for au in metrics["aus"]:
        row, ours = rows["P2"]["per_au"][au], [rows[name]["per_au"][au]["icc"] for name in OURS]
        icc = [number(ours[0]), number(ours[1]), f"{number(ours[2])} {interval(row['icc_interval'])}".rstrip()]
        errors = (row["pcc"], row["mae"], rows["fit-median"]["per_au"][au]["mae"])
        lines.append([label_au(au), *icc, *map(number, errors)])
    head = ["AU", *(f"ICC(3,1), {name}" for name in OURS), "PCC, P2", "MAE, P2", f"MAE, {ROWS['fit-median']}"]
    return Table("Intensity of each AU on validation", head, lines)


def choice(metrics: Tree, selection: Tree) -> Table:
    """Return the F1 of each AU on validation, and whether its mapping uses uncertainty, with the evidence for that."""
    rows, names = rows_of(metrics, "validation"), ("all-one", *OURS)
    lines = []
    for au in metrics["aus"]:
        entry, row = selection[au], [rows[name]["per_au"][au] for name in names]
        difference = f"{number(entry['difference'])} {interval(entry['difference_interval'])}".rstrip()
        uses = "with" if uses_uncertainty(entry) else "without"
        numbers = [*(number(figures["f1"]) for figures in row), uses, number(entry["threshold"])]
        evidence = [difference, number(entry.get("loss_limit")), number(entry["probability_with_better"])]
        lines.append([label_au(au), percent(row[-1]["positives"]), *numbers, *evidence])
    head = ["AU", "positives", *names, "chosen", "threshold", "difference", "limit of loss", "P(with is better)"]
    return Table("F1 of each AU on validation, and the choice", head, lines)


def comparisons(metrics: Tree) -> Table:
    """Return the difference between each two compared rows, on validation and on select."""
    compared = {(row["name"], row["split"]): row for row in metrics["comparisons"]}
    lines = []
    for name, row in ((name, row) for (name, split), row in compared.items() if split == "validation"):
        sides = (row, compared[name, "select"])
        cells = [cell for side in sides for cell in (with_interval(side), number(side["probability"]))]
        lines.append([f"{row['a']} - {row['b']}: {(COLUMNS | INTENSITY)[row['figure']]}", *cells])
    return Table("First row minus the second", ["", "validation", "P(better)", "select", "P(better)"], lines)


def selective(metrics: Tree) -> Table:
    """Return the scores of the decisions that are not left out, for each ranking and each coverage."""
    block = metrics["decisions"]["selective"]
    cells = {
        (row["way"], row["coverage"]): f"{number(row['f1'])} / {number(row['accuracy'])}" for row in block["table"]
    }
    coverages = sorted({coverage for _, coverage in cells}, reverse=True)
    lines = [[way, *(cells[way, coverage] for coverage in coverages)] for way in dict.fromkeys(way for way, _ in cells)]
    for key, text in (("f1", "mean F1"), ("accuracy", "accuracy")):
        gain = [with_interval(block["gain_at_80"][key]) if coverage == 0.8 else EMPTY for coverage in coverages]
        lines.append([f"confidence minus random, {text}", *gain])
    return Table("Mean F1 / accuracy on validation", ["kept", *(f"{100 * c:.0f} %" for c in coverages)], lines)


def abstention(metrics: Tree) -> Table:
    """Return the effect on validation of the limits that were computed on select, a row for each coverage."""
    lines = []
    for row in metrics["decisions"]["abstention"]:
        shares = (row[key] for key in ("asked", "coverage", "error", "risk_select", "risk_bound"))
        lines.append([*map(percent, shares), number(row["f1"]), number(row["accuracy"])])
    head = ["requested", "kept", "wrong among them", "on select", "upper bound", "mean F1", "accuracy"]
    return Table("Limits computed on select, applied to validation", head, lines)


def cost_of_parts(cost: Tree) -> Table:
    """Return the cost of each part for a frame with a face, from `cost_of_files`."""
    parts = (*cost["parts"].items(), ("all", cost))
    lines = [[name, f"{part['parameters']:,}", f"{part['gmac_per_frame']:.4f}"] for name, part in parts]
    return Table("Cost of the recognizer", ["", "parameters", "GMAC a frame"], lines, [len(lines) - 1])


def compared_figure(selection: Tree) -> str:
    """Return the name of the metric by which the two mappings were compared."""
    return INTENSITY["icc"] if selection[selection["aus"][0]]["chosen_by"] == "icc" else "1/2 (F1 + accuracy)"


def rows_of(metrics: Tree, split: str, key: str = "rows") -> dict[str, Tree]:
    """Return the rows of a split by their names."""
    return {row["name"]: row for row in metrics[key] if row["split"] == split}


def _of_rows(
    rows: Sequence[Tree], split: str, caption: str, columns: Mapping[str, str], costs: Mapping[str, Sequence[str]]
) -> Table:
    """Return columns of the rows of a split, with intervals if there are any, and the cost of each row."""
    lines: list[list[str]] = []
    strong: list[int] = []
    for row in (row for row in rows if row["split"] == split):
        mark = " (chosen on validation)" if row["chosen_on"] == "validation" else ""
        strong += [len(lines)] if row["name"] == "P2" else []
        cells = (f"{number(row[key])} {interval(row['intervals'].get(key))}".rstrip() for key in columns)
        lines.append([ROWS[row["name"]] + mark, *cells, *costs[row["name"]]])
    return Table(caption, ["", *columns.values(), *COST], lines, strong)


def with_interval(row: Tree) -> str:
    """Return a difference and its interval."""
    return f"{number(row['difference'])} {interval(row['interval'])}".rstrip()

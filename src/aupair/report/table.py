"""The results as tables: `reports/table.md`, and the first of them for a terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aupair.aus import AUS, NAMES
from aupair.evaluation.metrics import HEADLINE
from aupair.evaluation.selection import uses_uncertainty
from aupair.report.formatting import UNKNOWN, interval, markdown_table, number, percent

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {
    "f1": "mean F1",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "score": "2021 score",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
}
MEANING = {
    "all-zero": "all zero",
    "all-one": "all one",
    "best-constant": "best constant",
    "no-uncertainty": "ours, no uncertainty",
    "P1": "P1: uncertainty for all AUs",
    "P2": "P2: uncertainty for the AUs where it helps",
}
INTENSITY = {"icc": "ICC(3,1)", "mae": "MAE", "mae_rounded": "MAE, rounded", "pcc": "PCC"}
CONSTANT = {"fit-median": "median of fit", "fit-mean": "mean of fit"}
LEVELS = (
    "The mapping's output, clamped to 0 to 5, against the level; rounded only where it says so. ICC(3,1) is consistency: "
    "an offset costs nothing, a constant has 0."
)
HOW_TO_READ = (
    "In brackets: 95 % intervals, bootstrap over videos. 2021 score = 1/2 mean F1 + 1/2 accuracy over all cells; "
    "a frame without a face has the decision of the nearest frame of its video that has one. "
)
OURS = (
    "Thresholds, trial and the mapping of each AU were chosen on `select`: its rows are optimistic; `validation` was "
    "touched once."
)
PAPER = (
    "The paper's protocol: thresholds, trial and the mapping of each AU were **chosen on validation**; its rows are "
    "optimistic."
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
PROMISED = (
    "The same with the limits that were found on `select`, as `predict --coverage` has them. The errors there are "
    "held out by person; `--risk` goes by their upper bound (95 %)."
)


def markdown(metrics: dict[str, Any], selection: dict[str, Any], pairs: Sequence[Sequence[str]], note: str = "") -> str:
    """Give the text of table.md: the scores, each AU, what sigma is worth, the pairs.

    Args:
        metrics: the tree of metrics.json.
        selection: the tree of selection.json.
        pairs: the counts of pairs as lines of cells, the first being the head.
        note: said first, such as what the data is.
    """
    parts = ["# Results", note, HOW_TO_READ + (PAPER if metrics["protocol"] == "paper" else OURS)]
    for split in ("validation", "select"):
        parts += [f"## Scores on {split}", markdown_table(list(scores(metrics, split)))]
    if "intensity_rows" in metrics:
        for split in ("validation", "select"):
            parts += [f"## Intensity on {split}", markdown_table(list(intensities(metrics, split)))]
        parts += [LEVELS, "## Intensity of each AU on validation", markdown_table(list(intensity_aus(metrics)))]
    parts += ["## F1 of each AU on validation, and the choice", markdown_table(list(aus(metrics, selection)))]
    figure = INTENSITY["icc"] if "intensity_rows" in metrics else "1/2 (F1 + accuracy)"
    parts.append(
        f"Difference: {figure} with uncertainty less without, where the choice was made "
        f"(`{selection['chosen_on']}`); above {number(selection['tie'])} uncertainty is used, else not."
    )
    parts += ["## Which row is better", markdown_table(list(comparisons(metrics))), COMPARED]
    parts += ["## Pseudo-intensity and uncertainty", markdown_table(list(uncertainty(metrics)))]
    parts += ["## Abstaining (P2 on validation)", ABSTAINING, markdown_table(list(selective(metrics)))]
    parts += [PROMISED, markdown_table(list(promised(metrics)))]
    parts += ["## Uncertainty of each AU on validation", markdown_table(list(each_au(metrics)))]
    parts += ["## Fixed pairs of each AU: drawn, of all there are in a split", markdown_table(pairs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def terminal(metrics: dict[str, Any], split: str = "validation") -> "Table":
    """Give the scores of a split as a table of rich."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"Scores on {split}", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(["", *(COLUMNS[key] for key in HEADLINE), "95 % interval"]):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in metrics["rows"]:
        if row["split"] == split:
            low, high = row["intervals"]["score"]
            cells = [MEANING[row["name"]], *(number(row[key]) for key in HEADLINE), f"{number(low)}-{number(high)}"]
            table.add_row(*cells, style="bold" if row["name"] == "P2" else None)
    if metrics["chosen_on"] == "validation":
        table.caption = "chosen on validation"
    return table


def scores(metrics: dict[str, Any], split: str) -> Iterator[list[str]]:
    """The head and a row for each way to decide."""
    yield ["", *COLUMNS.values()]
    for row in metrics["rows"]:
        if row["split"] == split:
            mark = " (chosen on validation)" if row["chosen_on"] == "validation" else ""
            yield [MEANING[row["name"]] + mark, *(_with_interval(row, key) for key in COLUMNS)]


def intensities(metrics: dict[str, Any], split: str) -> Iterator[list[str]]:
    """The head and a row for each way to give a level."""
    yield ["", *INTENSITY.values()]
    for row in metrics["intensity_rows"]:
        if row["split"] == split:
            mark = " (chosen on validation)" if row["chosen_on"] == "validation" else ""
            yield [(MEANING | CONSTANT)[row["name"]] + mark, *(_with_interval(row, key) for key in INTENSITY)]


def intensity_aus(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each AU."""
    rows = {row["name"]: row["per_au"] for row in metrics["intensity_rows"] if row["split"] == "validation"}
    ours = ("no-uncertainty", "P1", "P2")
    yield ["AU", *(f"ICC(3,1), {name}" for name in ours), "PCC, P2", "MAE, P2", f"MAE, {CONSTANT['fit-median']}"]
    for au in AUS:
        yield [
            f"{au} {NAMES[au]}",
            *(number(rows[name][au]["icc"]) for name in ours[:2]),
            f"{number(rows['P2'][au]['icc'])} {interval(rows['P2'][au]['icc_interval'])}",
            *(number(rows["P2"][au][key]) for key in ("pcc", "mae")),
            number(rows["fit-median"][au]["mae"]),
        ]


def aus(metrics: dict[str, Any], selection: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each AU."""
    rows = {row["name"]: row for row in metrics["rows"] if row["split"] == "validation"}
    names = ("all-one", "no-uncertainty", "P1", "P2")
    yield ["AU", "positives", *names, "chosen", "threshold", "difference", "P(with is better)"]
    for au in AUS:
        entry = selection[au]
        yield [
            f"{au} {NAMES[au]}",
            percent(rows["P2"]["per_au"][au]["positives"]),
            *(number(rows[name]["per_au"][au]["f1"]) for name in names),
            "with" if uses_uncertainty(entry) else "without",
            number(entry["threshold"]),
            f"{number(entry['difference'])} {interval(entry['difference_interval'])}",
            number(entry["probability_with_better"]),
        ]


def uncertainty(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each figure, validation beside select."""
    yield ["figure", "validation", "select"]
    lines = (
        ("pair accuracy, nothing over the face and nearly frontal", "pair_accuracy", ("clear",)),
        ("pair accuracy, all frames", "pair_accuracy", ("mean",)),
        ("pair NLL with h (lower is better)", "uncertainty", ("pair_nll", "h")),
        ("pair NLL, best constant sigma of fit", "uncertainty", ("pair_nll", "constant")),
        ("pair NLL, best constant sigma of select", "uncertainty", ("pair_nll", "constant_select")),
        ("AUROC of abs(d) for the order being right", "uncertainty", ("auroc_correct", "margin")),
        ("AUROC of abs(d)/s for the order being right", "uncertainty", ("auroc_correct", "margin_over_sigma")),
        ("gain in pair accuracy, most uncertain 20 % left out", "uncertainty", ("gain_at_80", "sigma")),
        ("the same, random 20 %", "uncertainty", ("gain_at_80", "random")),
        ("the same, most covered 20 %", "uncertainty", ("gain_at_80", "cover")),
        ("Spearman of sigma with the misorder rate", "uncertainty", ("spearman_misorder", "mean")),
        ("AUROC of sigma for the AU's own region hidden", "uncertainty", ("auroc_own_region", "mean")),
        ("the same, against another region hidden", "uncertainty", ("auroc_other_region", "mean")),
        ("AUROC of sigma for a turned face, uncovered", "uncertainty", ("auroc_turned", "mean")),
        ("ECE of P(order) with h", "uncertainty", ("ece",)),
        ("ECE of P(order), best constant sigma of fit", "uncertainty", ("ece_constant",)),
    )
    for text, block, path in lines:
        yield [text, *(number(_at(tree[block], path)) for tree in (metrics, metrics["select"]))]
    found = metrics["decisions"]
    yield ["wrong decisions, all cells", percent(found["error"]), UNKNOWN]
    yield ["wrong decisions, least confident 20 % left out", percent(found["error_at_80"]["confidence"]), UNKNOWN]
    yield ["area under risk-coverage by confidence", number(found["aurc"]["confidence"]), UNKNOWN]
    yield ["the same, by sigma alone", number(found["aurc"]["certainty"]), UNKNOWN]
    yield ["the same, at random", number(found["aurc"]["random"]), UNKNOWN]
    yield ["ECE of the confidence of a decision", number(found["confidence_ece"]), UNKNOWN]
    yield ["Brier score of the confidence", number(found["confidence_brier"]), UNKNOWN]


def comparisons(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each two rows and figure, validation beside select."""
    yield ["", "validation", "P(better)", "select", "P(better)"]
    found = {(row["name"], row["split"]): row for row in metrics["comparisons"]}
    for name, split in found:
        if split == "validation":
            sides = [found[name, one] for one in ("validation", "select")]
            row = sides[0]
            cells = (cell for side in sides for cell in (_difference(side), number(side["probability"])))
            yield [f"{row['a']} - {row['b']}: {(COLUMNS | INTENSITY)[row['figure']]}", *cells]


def selective(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head, a row for each way to abstain, and how far confidence is above random abstention."""
    found = metrics["decisions"]["selective"]
    coverages = sorted({row["coverage"] for row in found["table"]}, reverse=True)
    yield ["kept", *(f"{100 * coverage:.0f} %" for coverage in coverages)]
    for way in dict.fromkeys(row["way"] for row in found["table"]):
        rows = sorted((row for row in found["table"] if row["way"] == way), key=lambda row: -row["coverage"])
        yield [way, *(f"{number(row['f1'])} / {number(row['accuracy'])}" for row in rows)]
    for key, text in (("f1", "mean F1"), ("accuracy", "accuracy")):
        gain = [_difference(found["gain_at_80"][key]) if coverage == 0.8 else UNKNOWN for coverage in coverages]
        yield [f"confidence less random, {text}", *gain]


def promised(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each coverage asked for."""
    yield ["asked", "kept", "wrong among them", "on select", "upper bound", "mean F1", "accuracy"]
    for row in metrics["decisions"]["abstention"]:
        shares = (row[key] for key in ("asked", "coverage", "error", "risk_select", "risk_bound"))
        yield [*map(percent, shares), number(row["f1"]), number(row["accuracy"])]


def each_au(metrics: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each AU: its pairs, what sigma tells apart, its decisions."""
    block, decisions = metrics["uncertainty"], metrics["decisions"]["per_au"]
    told = ("auroc_own_region", "auroc_other_region", "auroc_turned")
    yield [
        *("AU", "pair NLL", "constant", "ECE", "AUROC abs(d)/s", "abs(d)", "own region", "other region", "turned"),
        *("wrong", "AURC", "random", "ECE of confidence"),
    ]
    for au in AUS:
        nll, right, own = block["pair_nll"]["per_au"][au], block["auroc_correct"]["per_au"][au], decisions[au]
        numbers = [nll["h"], nll["constant"], block["ece_per_au"][au]["h"], right["margin_over_sigma"], right["margin"]]
        numbers += [(block[name]["per_au"] or {}).get(au) for name in told]
        area = [own["aurc"]["confidence"], own["aurc"]["random"], own["confidence_ece"]]
        yield [au, *map(number, numbers), percent(own["error"]), *map(number, area)]


def _difference(row: dict[str, Any]) -> str:
    """A difference and its interval."""
    return f"{number(row['difference'])} {interval(row['interval'])}"


def _at(tree: Any, path: Sequence[str]) -> Any:
    """Follow keys into a tree."""
    for key in path:
        tree = tree[key]
    return tree


def _with_interval(row: dict[str, Any], key: str) -> str:
    """A figure, and its interval where it has one."""
    if key not in row["intervals"]:
        return number(row[key])
    return f"{number(row[key])} {interval(row['intervals'][key])}"

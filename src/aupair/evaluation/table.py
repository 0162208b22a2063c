"""The results as tables: `reports/table.md`, and the first of them for a terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aupair.aus import AUS, NAMES
from aupair.evaluation.metrics import HEADLINE

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
    "P2": "P2: chosen for each AU",
}
UNKNOWN = "–"
HOW_TO_READ = (
    "In brackets: 95 % intervals, bootstrap over videos. 2021 score = 1/2 mean F1 + 1/2 accuracy over all cells; "
    "a frame without a face has the decision of the nearest frame of its video that has one. "
)
OURS = (
    "Thresholds, trial and P1 or P2 for each AU were chosen on `select`: its rows are optimistic; `validation` was "
    "touched once."
)
PAPER = (
    "The paper's protocol: thresholds, trial and P1 or P2 for each AU were **chosen on validation**; its rows are "
    "optimistic."
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
        parts += [f"## Scores on {split}", _markdown_table(list(_scores(metrics, split)))]
    parts += ["## F1 of each AU on validation, and the choice", _markdown_table(list(_aus(metrics, selection)))]
    parts.append(
        "Difference: 1/2 (F1 + accuracy) with uncertainty less without, where the choice was made "
        f"(`{selection['chosen_on']}`); above {_number(selection['tie'])} P1 (with) is chosen, else P2 (without)."
    )
    parts += ["## Pseudo-intensity and uncertainty", _markdown_table(list(_uncertainty(metrics)))]
    parts += ["## Fixed pairs of each AU: drawn, of all there are in a split", _markdown_table(pairs)]
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
            cells = [MEANING[row["name"]], *(_number(row[key]) for key in HEADLINE), f"{_number(low)}-{_number(high)}"]
            table.add_row(*cells, style="bold" if row["name"] == "P2" else None)
    if metrics["chosen_on"] == "validation":
        table.caption = "chosen on validation"
    return table


def _scores(metrics: dict[str, Any], split: str) -> Iterator[list[str]]:
    """The head and a row for each way to decide."""
    yield ["", *COLUMNS.values()]
    for row in metrics["rows"]:
        if row["split"] == split:
            mark = " (chosen on validation)" if row["chosen_on"] == "validation" else ""
            yield [MEANING[row["name"]] + mark, *(_with_interval(row, key) for key in COLUMNS)]


def _aus(metrics: dict[str, Any], selection: dict[str, Any]) -> Iterator[list[str]]:
    """The head and a row for each AU."""
    rows = {row["name"]: row for row in metrics["rows"] if row["split"] == "validation"}
    names = ("all-one", "no-uncertainty", "P1", "P2")
    yield ["AU", "positives", *names, "chosen", "threshold", "difference", "P(with is better)"]
    for au in AUS:
        entry = selection[au]
        low, high = entry["difference_interval"]
        yield [
            f"{au} {NAMES[au]}",
            _percent(rows["P2"]["per_au"][au]["positives"]),
            *(_number(rows[name]["per_au"][au]["f1"]) for name in names),
            entry["variant"],
            _number(entry["threshold"]),
            f"{_number(entry['difference'])} [{_number(low)}, {_number(high)}]",
            _number(entry["probability_with_better"]),
        ]


def _uncertainty(metrics: dict[str, Any]) -> Iterator[list[str]]:
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
        ("ECE of P(order) with h", "uncertainty", ("ece",)),
        ("ECE of P(order), best constant sigma of fit", "uncertainty", ("ece_constant",)),
    )
    for text, block, path in lines:
        yield [text, *(_number(_at(tree[block], path)) for tree in (metrics, metrics["select"]))]
    found = metrics["decisions"]
    yield ["wrong decisions, all cells", _percent(found["error"]), UNKNOWN]
    yield ["wrong decisions, least confident 20 % left out", _percent(found["error_at_80"]["confidence"]), UNKNOWN]
    yield ["ECE of the confidence of a decision", _number(found["confidence_ece"]), UNKNOWN]


def _at(tree: Any, path: Sequence[str]) -> Any:
    """Follow keys into a tree."""
    for key in path:
        tree = tree[key]
    return tree


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Lay out lines of cells, the first being the head."""
    head, *rows = lines
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def _with_interval(row: dict[str, Any], key: str) -> str:
    """A figure, and its interval where it has one."""
    if key not in HEADLINE:
        return _number(row[key])
    low, high = row["intervals"][key]
    return f"{_number(row[key])} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    """Three decimals; a dash for what is not known (None or NaN)."""
    return UNKNOWN if value is None or value != value else f"{value:.3f}"


def _percent(value: float | None) -> str:
    """A share as a percentage."""
    return UNKNOWN if value is None or value != value else f"{100 * value:.1f} %"

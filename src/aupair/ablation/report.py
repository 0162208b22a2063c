"""The rows as reports/ablation.{json,md,html}: figures with intervals, each AU, the cost, and what was left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair import store
from aupair.ablation.rows import GROUPS, REFERENCE
from aupair.ablation.scoring import SPLITS, score_figures
from aupair.aus import AUS
from aupair.aus import SPLITS as ALL_SPLITS
from aupair.evaluation.metrics import spearman
from aupair.report.document import Section, Text, html_page, markdown
from aupair.report.formatting import UNKNOWN, interval, number
from aupair.report.tables import Table

if TYPE_CHECKING:
    from aupair.report.figures import Drawing

HEAD = (
    "row", "mean F1", "less P2's", "P(higher)", "2021 score", "F1 on select", "pair accuracy", "pair NLL",
    "constant of fit", "of select", "ECE", "Mparam", "GMAC",
)  # fmt: skip
NLL = ("pair_nll", "pair_nll_constant", "pair_nll_constant_select")
HOW_TO_READ = (
    "Each row is a run of the flow with the settings that it names, scored on `validation`; thresholds, mappings and "
    "percentiles were chosen on `select`. In brackets: 95 % intervals, bootstrap over videos, drawn alike for all rows, "
    "so that the difference to P2 is of the same videos. P(higher): the share of draws in which the row's mean F1 is "
    "above P2's, ties half. Pair NLL: of the orders of fixed pairs with the row's sigma, lower is better, beside that of "
    "the constant sigma that is best on the same run's fit pairs, and on select's; ECE: of P(order). Mparam and "
    "GMAC: millions of parameters, and giga multiply-adds a frame, of the networks that the row needs. The intervals are of videos, not of training: another seed moves a row that is trained "
    "anew, too, and of thirty rows one or two leave P2's value by chance. A row with the decision rule P1 or no-uncertainty is "
    "best read beside that row: part of its distance to P2 is theirs."
)


def make(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], draws: int, seed: int) -> dict[str, Any]:
    """Give the tree of ablation.json: what `Ablation.collect` gave, with figures instead of counts.

    Args:
        about: said first: note, data, budget.
        draws: bootstrap resamples.
    """
    counts = {row["name"]: row["counts"] for row in rows if row["state"] == "scored"}
    reference = counts.get(REFERENCE, {})
    made = []
    for row in rows:
        tree = {key: value for key, value in row.items() if key != "counts"}
        if row["name"] in counts:
            for split in SPLITS:
                tree[split] = score_figures(
                    counts[row["name"]][split], reference.get(split), draws, (seed, ALL_SPLITS.index(split))
                )  # the draws of evaluate
        made.append(tree)
    return {**about, "reference": REFERENCE, "rows": made}


def beside(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare with the rows of another corpus: mean F1 of those that both have, and whether their order is the same.

    Returns:
        f1: (here, there) by row; spearman: of the two orders; swapped: pairs of rows whose order differs although
        their intervals of mean F1 do not meet, here and there.
    """
    there = {row["name"]: row for row in other["rows"] if row["state"] == "scored"}
    here = {row["name"]: row for row in tree["rows"] if row["state"] == "scored" and row["name"] in there}
    f1 = {name: (row["validation"]["f1"], there[name]["validation"]["f1"]) for name, row in here.items()}
    here_f1, there_f1 = (np.array([value[k] for value in f1.values()]) for k in (0, 1))
    order = spearman(here_f1, there_f1)
    return {
        "data": other.get("data"),
        "f1": f1,
        "spearman": None if np.isnan(order) else order,
        "swapped": _swapped(here, there),
    }


def write(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write ablation.json, ablation.md and ablation.html.

    Raises:
        AupairError: the folder cannot be written.
    """
    store.write_json(folder / "ablation.json", dict(tree))
    store.write_text(folder / "ablation.md", markdown("Ablation", sections(tree)))
    page = html_page("aupair: ablation", "Does each part earn its place?", sections(tree))
    store.write_text(folder / "ablation.html", page)


def sections(tree: Mapping[str, Any]) -> list[Section]:
    """Return the sections of ablation.md and ablation.html."""
    note = [Text(str(tree["note"]), "note")] if tree.get("note") else []
    parts = [Section("Rows", [*note, Text(HOW_TO_READ), forest(tree), scores(tree)])]
    parts.append(Section("F1 of each AU", [_of_aus(tree)]))
    if other := tree.get("beside"):
        parts.append(Section("Another corpus", [Text(_of_other(other)), _both(other)]))
    parts.append(Section("What each row changes", [_settings(tree)]))
    failed = [row for row in tree["rows"] if row["state"] != "scored"]
    if failed:
        lines = [[row["name"], row["text"], row["why"]] for row in failed]
        parts.append(Section("Not scored", [Table("Rows without figures", ["row", "what", "why"], lines)]))
    return parts


def scores(tree: Mapping[str, Any]) -> Table:
    """Return the scored rows with all their figures, those of a group below each other."""
    lines: list[list[str]] = []
    for group, text in GROUPS.items():
        scored = [row for row in _scored(tree) if row["group"] == group]
        lines += [[f"**{text}**", *[""] * (len(HEAD) - 1)]] if scored else []
        lines += [_line(row) for row in scored]
    return Table("Validation, if nothing else is said", HEAD, lines)


def brief(tree: Mapping[str, Any]) -> Table:
    """Return the scored rows with the figures that are looked at first, for a terminal."""
    columns = [HEAD.index(name) for name in ("mean F1", "less P2's", "P(higher)", "2021 score", "pair NLL")]
    lines = [[row["name"], *(_line(row)[k] for k in columns)] for row in _scored(tree)]
    return Table("Ablation, validation", ["row", *(HEAD[k] for k in columns)], lines)


def forest(tree: Mapping[str, Any]) -> "Drawing":
    """Draw mean F1 of every scored row with its interval."""
    from aupair.report.figures import BLUE, RED, Interval, intervals

    lines: list[Interval] = []
    marks: dict[str, float] = {}
    for row in _scored(tree):
        found, is_reference = row["validation"], row["name"] == REFERENCE
        marks |= {"P2": found["f1"]} if is_reference else {}
        colour = RED if is_reference else BLUE
        lines.append(Interval(row["text"], found["f1"], found["intervals"]["f1"], colour))
    return intervals(lines, "Mean F1 of every row", "mean F1 on validation, 95 % intervals over videos", marks)


def _scored(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the scored rows by group."""
    return [row for group in GROUPS for row in tree["rows"] if row["group"] == group and row["state"] == "scored"]


def _line(row: Mapping[str, Any]) -> list[str]:
    """A line of the table."""
    found, evidence, cost = row["validation"], row["evidence"]["validation"], row["cost"]
    cells = [row["text"], f"{number(found['f1'])} {interval(found['intervals']['f1'])}"]
    if "less_reference" in found and row["name"] != REFERENCE:
        part = found["less_reference"]["f1"]
        low, high = part["interval"]
        cells += [f"{part['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", number(part["probability"], 2)]
    else:
        cells += [UNKNOWN, UNKNOWN]
    cells += [number(found["score"]), number(row["select"]["f1"])]
    shown = {} if row["group"] == "constant" else evidence
    cells += [number(shown.get("pair_accuracy"))]
    with_sigma = row["rule"] in ("P1", "P2")
    cells += [number(shown.get(key) if with_sigma else None, 4) for key in NLL]
    cells += [number(shown.get("ece_order") if with_sigma else None)]
    return [*cells, f"{cost['parameters'] / 1e6:.2f}", f"{cost['gmac_per_frame']:.3f}"]


def _of_aus(tree: Mapping[str, Any]) -> Table:
    """Return the F1 of each AU for every scored row."""
    lines = [
        [row["name"], *(f"{row['validation']['per_au'][au]['f1']:.2f}" for au in AUS)]
        for row in tree["rows"]
        if row["state"] == "scored"
    ]
    return Table("F1 on validation", ["row", *AUS], lines)


def _settings(tree: Mapping[str, Any]) -> Table:
    """Return what each row changes in the settings."""
    lines = []
    for row in tree["rows"]:
        settings = ", ".join(f"`{key}: {value}`" for key, value in row["settings"].items())
        lines.append([row["name"], row["text"], row["rule"], settings or UNKNOWN])
    return Table("Settings of each row", ["row", "what", "decision rule", "settings"], lines)


def _both(other: Mapping[str, Any]) -> Table:
    """Return mean F1 of the rows that two corpora share."""
    rows = sorted(other["f1"].items(), key=lambda item: -item[1][0])
    lines = [[name, f"{here:.3f}", f"{there:.3f}"] for name, (here, there) in rows]
    return Table("Mean F1 on validation", ["row", "F1 here", "F1 there"], lines)


def _of_other(found: Mapping[str, Any]) -> str:
    """Say how far the orders agree."""
    text = f"Rank correlation of the rows' mean F1: {number(found['spearman'], 2)}. "
    swapped = [f"{a} and {b}" for a, b in found["swapped"]]
    return text + (
        f"In another order there, beyond the intervals of both: {', '.join(swapped)}."
        if swapped
        else "No two rows that are apart by more than their intervals in both corpora stand in another order."
    )


def _swapped(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[list[str]]:
    """Name the pairs of rows whose order differs although their intervals of F1 are apart, here and there."""
    names = list(here)
    return [
        [a, b]
        for k, a in enumerate(names)
        for b in names[k + 1 :]
        if _apart(here[a], here[b]) * _apart(there[a], there[b]) < 0
    ]


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    """1 where a's interval is above b's, -1 where it is below, 0 where they meet."""
    (low_a, high_a), (low_b, high_b) = (row["validation"]["intervals"]["f1"] for row in (a, b))
    return int(low_a > high_b) - int(high_a < low_b)

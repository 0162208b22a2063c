"""The report of `aupair ablate` (reports/ablation.{json,md,html}), and its comparison with that of another corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aupair import store
from aupair.ablation.rows import GROUPS, REFERENCE
from aupair.ablation.scoring import row_figures
from aupair.aus import SPLITS
from aupair.evaluation.metrics import spearman
from aupair.report.document import html_page, markdown
from aupair.report.formatting import EMPTY, interval, number
from aupair.report.tables import Table, complete_frames

if TYPE_CHECKING:
    from aupair.report.figures import Drawing

HEAD = (
    "row", "mean F1", "minus P2", "P(higher)", "2021 score", "F1 on select", "pair accuracy", "pair NLL",
    "constant of fit", "of select", "ECE", "Mparam", "GMAC", "passes",
)  # fmt: skip
BRIEF = ("mean F1", "minus P2", "P(higher)", "2021 score", "pair NLL")
NLL = ("pair_nll", "pair_nll_constant", "pair_nll_constant_select")


def build_report(
    results: Sequence[Mapping[str, Any]], about: Mapping[str, Any], draws: int, seed: int
) -> dict[str, Any]:
    """Return the content of ablation.json: the results of `run_ablation`, with scores computed from their counts.

    Args:
        about: entries to write before the rows: `note`, `data` and `threads`.
        draws: number of bootstrap resamples.
    """
    counts = {row["name"]: row["counts"] for row in results if row["state"] == "scored"}
    reference = counts.get(REFERENCE, {})
    rows = []
    for result in results:
        row = {key: value for key, value in result.items() if key not in ("aus", "counts")}
        for split, part in counts.get(row["name"], {}).items():
            same_draws_as_evaluate = (seed, SPLITS.index(split))
            row[split] = row_figures(part, reference.get(split), result["aus"], draws, same_draws_as_evaluate)
        rows.append(row)
    return {**about, "reference": REFERENCE, "rows": rows}


def compare_corpora(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the rows with those of another corpus.

    Returns:
        data: the hash of the other corpus; f1: for each common row, mean F1 on validation of this corpus and of the
        other; spearman: the rank correlation of the two (None if it is not defined).
    """
    others = {row["name"]: row["validation"]["f1"] for row in _scored(other)}
    f1 = {row["name"]: (row["validation"]["f1"], others[row["name"]]) for row in _scored(tree) if row["name"] in others}
    correlation = spearman(*(np.array([value[k] for value in f1.values()]) for k in (0, 1)))
    return {"data": other.get("data"), "f1": f1, "spearman": None if np.isnan(correlation) else correlation}


def write_report(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write ablation.json, ablation.md and ablation.html.

    Raises:
        AupairError: the folder cannot be written.
    """
    missing = [[row["name"], row["text"], row["why"]] for row in tree["rows"] if row["state"] != "scored"]
    values: dict[str, Any] = {
        "tree": {"note": "", "beside": None, "threads": None, **tree},
        "drawing": _drawing(tree),
        "complete": complete_frames(next(iter(_scored(tree)), {})),
        "scores": _table(tree),
        "f1_of_aus": _f1_of_aus(tree),
        "beside": _other_corpus(tree),
        "settings": _settings(tree),
        "not_scored": Table("Rows without figures", ["row", "what", "why"], missing),
    }
    store.write_json(folder / "ablation.json", dict(tree))
    store.write_text(folder / "ablation.md", markdown("ablation/report.j2", "Ablation", **values))
    page = html_page("ablation/report.j2", "aupair: ablation", "Ablation: what each part of the method adds", **values)
    store.write_text(folder / "ablation.html", page)


def brief_table(tree: Mapping[str, Any]) -> Table:
    """Return a short table of the scored rows with the main figures, for a terminal."""
    lines = [[row["name"], *(_cells(row)[HEAD.index(name)] for name in BRIEF)] for row in _scored(tree)]
    return Table("Ablation, validation", ["row", *BRIEF], lines)


def _other_corpus(tree: Mapping[str, Any]) -> Table:
    """Return a table of the mean F1 of the rows on this and on the other corpus, the best first."""
    pairs = sorted(tree["beside"]["f1"].items(), key=lambda item: -item[1][0]) if tree.get("beside") else []
    lines = [[name, f"{here:.3f}", f"{there:.3f}"] for name, (here, there) in pairs]
    return Table("Mean F1 on validation", ["row", "this corpus", "other corpus"], lines)


def _table(tree: Mapping[str, Any]) -> Table:
    """Return the table of all scored rows with their figures, ordered by group."""
    lines: list[list[str]] = []
    for group, text in GROUPS.items():
        rows = [_cells(row) for row in _scored(tree) if row["group"] == group]
        lines += [[f"**{text}**", *[""] * (len(HEAD) - 1)], *rows] if rows else []
    return Table("On validation unless the column names another split", HEAD, lines)


def _f1_of_aus(tree: Mapping[str, Any]) -> Table:
    """Return a table of the F1 of each AU in all scored rows."""
    rows = {row["name"]: row["validation"]["per_au"] for row in _scored(tree)}
    aus = list(next(iter(rows.values()), ()))
    lines = [[name, *(number(per_au[au]["f1"], 2) for au in aus)] for name, per_au in rows.items()]
    return Table("F1 on validation", ["row", *aus], lines)


def _drawing(tree: Mapping[str, Any]) -> "Drawing":
    """Draw mean F1 of every scored row with its interval."""
    from aupair.report.figures import BLUE, RED, Interval, intervals

    lines: list[Interval] = []
    marks: dict[str, float] = {}
    for row in _scored(tree):
        figures, is_reference = row["validation"], row["name"] == REFERENCE
        marks |= {REFERENCE: figures["f1"]} if is_reference else {}
        lines.append(Interval(row["text"], figures["f1"], figures["intervals"]["f1"], RED if is_reference else BLUE))
    return intervals(lines, "Mean F1 of every row", "mean F1 on validation, 95 % intervals over people", marks)


def _settings(tree: Mapping[str, Any]) -> Table:
    """Return the decision rule and the changed settings of each row."""
    lines = []
    for row in tree["rows"]:
        settings = ", ".join(f"`{key}: {value}`" for key, value in row["settings"].items())
        lines.append([row["name"], row["text"], row["rule"], settings or EMPTY])
    return Table("Settings of each row", ["row", "what", "decision rule", "settings"], lines)


def _scored(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the scored rows by group."""
    return [row for group in GROUPS for row in tree["rows"] if row["group"] == group and row["state"] == "scored"]


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row under HEAD."""
    figures, cost = row["validation"], row["cost"]
    evidence = {} if row["group"] == "constant" else row["evidence"]["validation"]
    sigma_figures = evidence if row["rule"] in ("P1", "P2") else {}
    mark = " (another f)" if row.get("another_f") else ""
    cells = [row["text"] + mark, f"{number(figures['f1'])} {interval(figures['intervals']['f1'])}", EMPTY, EMPTY]
    if "less_reference" in figures and row["name"] != REFERENCE:
        part = figures["less_reference"]["f1"]
        low, high = part["interval"]
        cells[2:] = [f"{part['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", number(part["probability"], 2)]
    cells += [number(figures["score"]), number(row["select"]["f1"]), number(evidence.get("pair_accuracy"))]
    cells += [number(sigma_figures.get(key), 4) for key in NLL]
    cells += [number(sigma_figures.get("ece_order"))]
    return [*cells, f"{cost['parameters'] / 1e6:.2f}", f"{cost['gmac_per_frame']:.3f}", f"{cost['passes']:.0f}"]

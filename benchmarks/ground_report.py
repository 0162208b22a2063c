"""The report of the proving ground: figures of each corpus and of their mean, and the goals that they meet or miss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ground_statistics import Figure, mean_of
from harness import markdown_table

from aupair.synth.corpus import SynthParams

MEAN = "mean"
ROWS = (
    "all-zero", "all-one", "best-constant", "no-uncertainty", "constant-noise", "uncertainty-columns", "sigma", "quality",
    "both", "P1", "P2",
)  # fmt: skip
"""the rows of the score table, in the order of the report; a run has some of them"""
DIFFERENCES = (("P1", "no-uncertainty"), ("P1", "constant-noise"), ("P2", "P1"), ("P2", "no-uncertainty"))
PAYS = DIFFERENCES[:2]
"""differences whose mean over the corpora is to be above 0 with its whole interval"""
NLL_GOAL = 0.98
"""the pair NLL of h over that of the best constant, mean over the corpora"""

INTRODUCTION = """# The proving ground

Written by `benchmarks/proving_ground.py`; [docs/proving_ground.md](../docs/proving_ground.md) describes the corpora and the intervals.
One set of params for all corpora; figures are of {people}, means over {trainings}
trainings ({params}, commit {commit}, {cores} cores: {minutes:.0f} minutes, {cpu_minutes:.0f} CPU minutes). Intervals are 95 %, over people and trainings.
"""
FRESH = "{times} times as many other people of validation, whom no training, choice or report has seen (the table counts no frames of theirs)"


@dataclass(frozen=True)
class CorpusFigures:
    """The figures of a corpus.

    Attributes:
        people: number of people in validation.
        f1: mean F1 of each row.
        gains: differences of uncertainties.
        values: other figures, means over the trainings.
    """

    name: str
    stands_for: str
    synth: SynthParams
    people: int
    f1: dict[str, Figure]
    gains: dict[str, Figure]
    values: dict[str, float]


def as_json(corpora: Sequence[CorpusFigures], tie: float, about: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of proving_ground.json: for each corpus and for the mean each figure, its interval, and the goals.

    Args:
        tie: how much lower P2 may be.
    """
    f1 = {corpus.name: corpus.f1 for corpus in corpora}
    values = {corpus.name: corpus.values for corpus in corpora}
    shared = [key for key in corpora[0].values if all(key in own for own in values.values())]
    values[MEAN] = {key: float(np.mean([own[key] for own in values.values()])) for key in shared}
    differences = {
        corpus.name: {f"{a} - {b}": corpus.f1[a] - corpus.f1[b] for a, b in DIFFERENCES if {a, b} <= corpus.f1.keys()}
        | corpus.gains
        for corpus in corpora
    }
    for table in (f1, differences):
        parts = list(table.values())
        table[MEAN] = {key: mean_of([part[key] for part in parts]) for key in parts[0]}
    tree: dict[str, Any] = {
        "about": about,
        "corpora": {
            corpus.name: {
                "stands_for": corpus.stands_for,
                "synth": corpus.synth.model_dump(mode="json", exclude={"workers"}, exclude_defaults=True),
                "frames": _frames(corpus.synth),
                "people": corpus.synth.subjects,
                "clips": corpus.synth.clips,
                "validation_people": corpus.people,
            }
            for corpus in corpora
        },
        "f1": _plain(f1),
        "differences": _plain(differences),
        "values": values,
    }
    tree["goals"] = _goals(tree["differences"], values, tie)
    return tree


def _frames(synth: SynthParams) -> int:
    return synth.subjects * synth.clips * round(synth.seconds * synth.fps)


def _plain(table: dict[str, dict[str, Figure]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return values and intervals."""
    return {
        name: {key: {"value": figure.value, "interval": figure.interval} for key, figure in own.items()}
        for name, own in table.items()
    }


def _goals(
    differences: dict[str, dict[str, Any]], values: dict[str, dict[str, float]], tie: float
) -> list[dict[str, Any]]:
    """Return each goal, what was seen, and whether it was met."""
    corpora = [name for name in differences if name != MEAN]
    goals = []

    def add(figure: str, goal: str, met: bool, seen: dict[str, str]) -> None:
        text = "; ".join(f"{name} {value}" for name, value in seen.items())
        goals.append({"figure": figure, "goal": goal, "met": met, "seen": text})

    def seen(key: str, names: Sequence[str]) -> dict[str, str]:
        return {name: _cell(differences[name][key]) for name in names}

    for key in (f"{a} - {b}" for a, b in PAYS):
        if key in differences[MEAN]:
            lows = {name: differences[name][key]["interval"] for name in differences}
            add(key, "the mean's interval above 0", lows[MEAN][0] > 0, seen(key, [MEAN]))
            met = all(lows[name][1] >= 0 for name in corpora)
            add(key, "no corpus significantly below 0", met, seen(key, corpora))
    for key in (f"{a} - {b}" for a, b in DIFFERENCES[2:]):
        met = all(differences[name][key]["value"] >= -tie for name in corpora)
        add(key, f"no corpus below by more than {tie:g}", met, seen(key, corpora))
    ratio = {name: own["pair NLL, h"] / own["pair NLL, constant"] for name, own in values.items()}
    texts = {name: _number(value) for name, value in ratio.items()}
    met = all(ratio[name] <= 1 for name in corpora)
    add("pair NLL of h / constant", "at most 1 on every corpus", met, {name: texts[name] for name in corpora})
    add("pair NLL of h / constant", f"at most {NLL_GOAL:g} of the means", ratio[MEAN] <= NLL_GOAL, {MEAN: texts[MEAN]})
    key = "AUROC of abs(d)/s - abs(d)"
    met = all(differences[name][key]["interval"][1] >= 0 for name in corpora)
    add(key, "no corpus significantly below 0", met, seen(key, corpora))
    gap = {name: values[name]["ECE, h"] - values[name]["ECE, constant"] for name in corpora}
    met = all(value <= 0 for value in gap.values())
    add("ECE of h - constant", "at most 0 on every corpus", met, {name: _number(v) for name, v in gap.items()})
    return goals


def format_page(tree: dict[str, Any]) -> str:
    """Return the text of proving_ground.md from the content of proving_ground.json."""
    about, names = tree["about"], [*tree["corpora"], MEAN]
    minutes, cpu = (
        {name: sum(own[key].values()) / 60 for name, own in about["cost"].items()} for key in ("seconds", "cpu_seconds")
    )
    totals = {"minutes": sum(minutes.values()), "cpu_minutes": sum(cpu.values())}
    of = FRESH.format(times=about["fresh"]) if about["fresh"] else "validation"
    lines = [INTRODUCTION.format(**{key: value for key, value in about.items() if key != "cost"}, **totals, people=of)]
    headings = ("corpus", "stands for", "people (validation)", "videos", "frames", "minutes (of CPU)")
    corpora = [
        (
            name, own["stands_for"], f"{own['people']} ({own['validation_people']})",
            f"{own['people'] * own['clips']}", f"{own['frames']:,}", f"{minutes[name]:.0f} ({cpu[name]:.0f})",
        )
        for name, own in tree["corpora"].items()
    ]  # fmt: skip
    lines += [*markdown_table(headings, corpora), "", "## Mean F1", ""]
    rows = [row for row in ROWS if row in tree["f1"][MEAN]]
    lines += _table(tree["f1"], names, rows)
    lines += ["", "## Differences", "", *_table(tree["differences"], names, list(tree["differences"][MEAN]))]
    cells = [(key, *(_number(tree["values"][name][key]) for name in names)) for key in tree["values"][MEAN]]
    lines += ["", "## Orders of pairs", "", *markdown_table(("", *names), cells)]
    goals = [(g["figure"], g["goal"], "met" if g["met"] else "**missed**", g["seen"]) for g in tree["goals"]]
    lines += ["", "## Goals", "", *markdown_table(("figure", "goal", "", "seen"), goals)]
    return "\n".join(lines) + "\n"


def _table(figures: dict[str, dict[str, Any]], names: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Return the lines of a table with a row for each figure and a column for each corpus."""
    cells = [(row, *(_cell(figures[name][row]) for name in names)) for row in rows]
    return markdown_table(("", *names), cells)


def _cell(figure: dict[str, Any]) -> str:
    """Return a figure with its interval."""
    low, high = figure["interval"]
    return f"{_number(figure['value'])} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Return a number with three decimal places and without the zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"

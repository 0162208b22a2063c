"""What the uncertainty is worth: calibration, what leaving decisions out brings, and the evidence in numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aupair.aus import AUS
from aupair.report import table
from aupair.report.formatting import number
from aupair.report.page import markup
from aupair.report.page.charts import Axis, Chart, axis
from aupair.report.page.markup import folded, grid, paragraph

Tree = Mapping[str, Any]

WAYS = {
    "confidence": ("confidence (margin and sigma)", "blue"),
    "margin": ("margin to the threshold alone", "orange"),
    "certainty": ("certainty (sigma) alone", "green"),
    "random": ("at random", "grey"),
}
PERCENT = tuple(range(0, 101, 20))


def calibration(metrics: Tree) -> str:
    """Show whether P(order) and the confidence of a decision are what they claim."""
    order, found = metrics["uncertainty"], metrics["decisions"]
    curves = (("constant", "best constant sigma", "orange"), ("h", "sigma of h", "blue"))
    of_order = _reliability({t: (order["reliability"][name], css) for name, t, css in curves}, 0.5, "claimed P(order)")
    said = (
        "Which of two frames shows more: P(order) = Phi(|d|/s). "
        f"ECE {number(order['ece'])}, constant {number(order['ece_constant'])}."
    )
    own = _reliability({"confidence": (found["reliability"], "blue")}, 0.0, "claimed confidence")
    words = (
        f"A decision is right with its confidence. ECE {number(found['confidence_ece'])}, "
        f"Brier score {number(found['confidence_brier'])}."
    )
    parts = (("P(order)", said, of_order), ("Confidence of a decision", words, own))
    return grid((f"<div><h3>{head}</h3>{paragraph(text)}{drawn}</div>" for head, text, drawn in parts), "two")


def abstaining(metrics: Tree) -> str:
    """Show what is gained where the least trusted decisions are left out: risk-coverage and selective F1."""
    found = metrics["decisions"]
    areas = found["aurc"]
    words = "Of all decisions the least trusted are left out first; the lower the curve, the better is the trust. "
    said = (f"{WAYS.get(way, (way,))[0]} {number(areas[way])}" for way in areas)
    words += f"Area under the curve: {', '.join(said)}."
    parts = [paragraph(words), _risk(found["risk_coverage"], found["error"], 240, legend=True), _selective(metrics)]
    each = ((au, found["per_au"][au]) for au in AUS)
    small = (f"<div><h4>{au}</h4>{_risk(own['risk_coverage'], own['error'], 110)}</div>" for au, own in each)
    return "".join(parts) + f"<h3>Each AU by itself</h3>{grid(small)}"


def evidence(metrics: Tree) -> str:
    """Give the figures of pseudo-intensity and uncertainty, and the calibration of each AU."""
    lines = list(table.uncertainty(dict(metrics)))
    each = markup.table(table.each_au(dict(metrics)), "Uncertainty of each AU on validation")
    return markup.table(lines, "Pseudo-intensity and uncertainty") + folded("For each AU", each)


def _reliability(curves: Mapping[str, tuple[Tree, str]], low: float, label: str) -> str:
    """Observed against claimed with the ideal's diagonal, and below it how many there are."""
    ticks = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0) if low else (0, 0.2, 0.4, 0.6, 0.8, 1.0)
    observed = [np.array(curve["observed"], np.float64) for curve, _ in curves.values()]
    least = min(low, float(np.nanmin(np.concatenate(observed), initial=1.0)))
    y = Axis(np.floor(10 * least) / 10, 1.0, ticks, label="observed share that is right")
    chart = Chart(Axis(low, 1.0, ticks), y)
    chart.line(np.array([low, 1.0]), np.array([low, 1.0]), "grey dashed", "as claimed")
    shares = np.concatenate([np.array(curve["share"], np.float64) for curve, _ in curves.values()])
    most = float(np.nanmax(shares, initial=0.01))
    below = Chart(Axis(low, 1.0, ticks, label=label), Axis(0, most, (0, most), ("0", f"{100 * most:.0f} %")), 48)
    edges = np.linspace(low, 1.0, len(shares) // len(curves) + 1)
    for name, (curve, css) in curves.items():
        claimed = np.array(curve["claimed"], np.float64)
        chart.line(claimed, np.array(curve["observed"], np.float64), css, name, dots=True)
        share = np.array(curve["share"], np.float64)
        below.line(np.repeat(edges, 2)[1:-1], np.repeat(share, 2), css)
    return chart.html(f"Reliability: observed against {label}") + below.html(f"How often: {label}")


def _risk(curves: Mapping[str, Tree], error: float | None, height: int, legend: bool = False) -> str:
    """Risk against coverage for each way to trust, and at random."""
    risks = [100 * np.array(curve["risk"], np.float64) for curve in curves.values()]
    label = ("decisions kept (%)", "wrong among them (%)") if legend else ("", "")
    at_random = np.full(2, np.nan if error is None else 100 * error)
    y = axis(np.concatenate([[0.0], at_random, *risks]), label[1], at_most=4)
    x = Axis(0, 100, PERCENT if legend else (0, 50, 100), label=label[0])
    chart = Chart(x, Axis(0.0, y.high, y.ticks, label=y.label), height)
    chart.line(np.array([0.0, 100.0]), at_random, "grey dashed", WAYS["random"][0] if legend else "")
    for (way, curve), risk in zip(curves.items(), risks):
        name, css = WAYS.get(way, (way, "dark"))
        chart.line(100 * np.array(curve["coverage"], np.float64), risk, css, name if legend else "")
    at_80 = {
        way: np.interp(80, 100 * np.array(curve["coverage"], float), r)
        for (way, curve), r in zip(curves.items(), risks)
    }
    said = ", ".join(f"{way} {value:.1f} %" for way, value in at_80.items())
    return chart.html(f"Wrong decisions against coverage; at 80 % kept: {said}")


def _selective(metrics: Tree) -> str:
    """Show what the kept decisions are worth, and what `predict` does with the limits found on select."""
    kept = markup.table(table.selective(dict(metrics)), "Mean F1 / accuracy on validation")
    promised = markup.table(table.promised(dict(metrics)), "Limits of select, on validation")
    return (
        f"<h3>What is kept</h3>{paragraph(table.ABSTAINING)}{kept}"
        f"<h3>What was promised</h3>{paragraph(table.PROMISED)}{promised}"
    )

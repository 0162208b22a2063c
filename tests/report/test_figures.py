"""The figures show the numbers that they are given, as SVG that asks for nothing and as PNG."""

import re
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from aupair.aus import AFFWILD2
from aupair.report.figures import (
    BLUE,
    Drawing,
    Interval,
    au_bars,
    intervals,
    reliability,
    risk_coverage,
    training_curves,
)

CURVE = {"coverage": [0.5, 1.0], "risk": [0.05, 0.2]}
BINS = {"claimed": [0.6, None, 0.9], "observed": [0.65, None, 0.8], "share": [0.5, 0.0, 0.5]}


def rows(interval: list[float] | None = None) -> dict[str, dict]:
    """Return rows of metrics.json in which P1 is better for AU1 alone, and that is chosen."""
    figures = {"f1": 0.5, "f1_interval": interval}
    plain = {"per_au": dict.fromkeys(AFFWILD2, figures)}
    better = {"per_au": plain["per_au"] | {"AU1": figures | {"f1": 0.75}}}
    return {"no-uncertainty": plain, "P1": better, "P2": better, "all-one": plain}


DRAWINGS = {
    "bars": lambda: au_bars(rows([0.4, 0.6]), "f1", "F1"),
    "risk": lambda: risk_coverage({"confidence": CURVE, "margin": CURVE}, 0.2),
    "risk of an AU": lambda: risk_coverage({"confidence": CURVE}, None, "AU4"),
    "reliability": lambda: reliability({"sigma of h": BINS, "constant": BINS}, 0.5, "t < u & v", "claimed"),
    "intervals": lambda: intervals(
        [Interval("a", 1.0, (0.5, 1.5)), Interval("b", np.nan, None)], "t", "x", {"tie": 0.1}
    ),
    "no intervals": lambda: intervals([], "t", "x", {}),
    "curves": lambda: training_curves([{"network": "f", "step": k, "loss": k / 2} for k in (1, 2)])[0],
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_an_svg_is_well_formed_described_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    drawing: Drawing = DRAWINGS[name]()
    svg = drawing.svg()
    element = xml.fromstring(svg.replace("xlink:href", "href"))
    assert element.attrib["role"] == "img"
    assert element.attrib["aria-label"] == f"{drawing.title}. {drawing.description}"
    assert not re.search(r"https?:|@import|url\((?!#)", svg)
    assert "<text" in svg, "words stay words"
    assert DRAWINGS[name]().svg() == svg
    drawing.save_png(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert all(axis.get_xlabel() or axis.get_ylabel() for axis in drawing.figure.axes)


def test_bars_are_as_long_as_the_figures_and_the_chosen_one_is_marked() -> None:
    axis = au_bars(rows(), "f1", "F1").figure.axes[0]
    without, with_uncertainty = ([bar.get_width() for bar in bars] for bars in axis.containers)
    assert without == [0.5] * 12
    assert with_uncertainty == [0.75, *[0.5] * 11]
    chosen = axis.collections[-1].get_offsets()
    assert chosen.tolist() == [[0.75, 0.2], *([0.5, k] for k in range(1, 12))], (
        "P2 is P1 for AU1; elsewhere both are equal"
    )
    all_one = axis.collections[0].get_segments()
    assert [segment[0][0] for segment in all_one] == [0.5] * 12
    assert len(au_bars(rows([0.4, 0.6]), "f1", "F1").figure.axes[0].lines) == len(axis.lines) + 24, "intervals"


@pytest.mark.parametrize("aus", [1, 3, 20])
def test_a_figure_has_a_line_for_each_au_and_says_what_is_undefined(aus: int) -> None:
    names = [f"AU{k}" for k in range(1, aus)] + ["a-behaviour-with-a-name-of-forty-letters"]
    figures = {name: {"f1": 0.5, "f1_interval": [0.4, 0.6]} for name in names}
    figures[names[-1]] = {"f1": None, "f1_interval": [None, None]}
    tree = {key: {"per_au": figures} for key in ("no-uncertainty", "P1", "P2", "all-one")}
    values = [Interval(name, own["f1"] or np.nan, own["f1_interval"]) for name, own in figures.items()]
    for drawing in (au_bars(tree, "f1", "F1"), intervals(values, "t", "x", {"tie": 0.1})):
        axis = drawing.figure.axes[0]
        lines = [text.get_text().replace("\n", "") for text in axis.get_yticklabels()]
        assert [line.split()[0] for line in lines] == names
        assert [(text.get_text(), text.get_position()[1]) for text in axis.texts] == [("undefined", aus - 1)]
        drawing.figure.draw_without_rendering()
        box = axis.get_window_extent()
        assert box.height > 10 * aus, "no line lies on another"
        for text in axis.get_yticklabels():
            assert text.get_window_extent().x0 >= 0


def test_curves_and_lines_are_where_the_numbers_say() -> None:
    axis = risk_coverage({"confidence": CURVE}, 0.2).figure.axes[0]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[50, 5], [100, 20]])
    assert axis.lines[1].get_ydata() == [20, 20], "at random"
    top, below = reliability({"h": BINS}, 0.5, "t", "x").figure.axes
    np.testing.assert_allclose(top.lines[1].get_xydata(), [[0.6, 0.65], [np.nan, np.nan], [0.9, 0.8]])
    assert below.patches[0].get_data().values.tolist() == [50, 0, 50]
    axis = intervals([Interval("a", 1.0, (0.5, 1.5), BLUE)], "t", "x", {"tie": 0.1}).figure.axes[0]
    assert [list(line.get_xdata()) for line in axis.lines] == [[0.5, 1.5], [1.0], [0.1, 0.1]]


def test_training_curves_are_sorted_by_quantity_and_network() -> None:
    rows = [{"network": name, "step": step, "loss": step / 2} for name in ("f", "g") for step in (1, 2)]
    (drawing,) = training_curves(rows)
    assert [line.get_xydata().tolist() for line in drawing.figure.axes[0].lines] == [[[1, 0.5], [2, 1]]] * 2
    assert drawing.title == "loss on select"
    assert drawing.figure.axes[0].get_xlabel() == "training step"
    (drawing,) = training_curves([{"network": "h", "step": k, "prior": 0.1 * k, "loss": 0.5} for k in (1, 2)])
    assert drawing.figure.axes[0].lines[0].get_xydata().tolist() == [[0.1, 0.5], [0.2, 0.5]]
    assert (drawing.title, drawing.figure.axes[0].get_xlabel()) == (
        "pair NLL on fit, out of fold", "strength of the prior of h",
    )  # fmt: skip
    (drawing,) = training_curves([{"epoch": 3, "select_loss": 0.5}])
    assert drawing.figure.axes[0].get_xlabel() == "epoch"
    assert training_curves([]) == []

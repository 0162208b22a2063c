"""The plots of dvc.yaml: the tables behind them, and DVC's own page with them in a browser without the net."""

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from aupair.report.dvc_plots import write_plot_script, write_plot_tables
from conftest import REPOSITORY
from services.chromium import chromium

DRAWN = """new Promise(done => {
    const end = Date.now() + 40000
    const timer = setInterval(() => {
        if (document.querySelectorAll('canvas, svg.marks').length < %d && Date.now() < end) return
        clearInterval(timer)
        done()
    }, 100)
})"""
"""Wait until the page has so many drawings."""
BARS = (
    "[...document.querySelectorAll('svg.marks text')].map(own => own.textContent).filter(text => text.startsWith('AU'))"
)
"""The labels of the bars from top to bottom, where Vega draws SVG."""
LINE = {"coverage": [0.5, 1.0], "risk": [0.1, 0.2]}
BINS = {"claimed": [None, 0.6, 0.9], "observed": [None, 0.5, 1.0], "share": [0, 0.5, 0.5]}
PER_AU = {"AU2": {"f1": 0.5}, "AU12": {"f1": 0.7}, "AU43": {"f1": None}}
METRICS: dict[str, Any] = {
    "rows": [{"name": "P2", "split": "validation", "per_au": PER_AU}],
    "decisions": {"risk_coverage": {"confidence": LINE}, "reliability": BINS},
    "uncertainty": {"reliability": {"h": BINS}},
    "route": "both",
}
STEP = {"train_loss": 0.4, "loss": 0.5, "pair_accuracy": 0.7}
CURVES: dict[str, list[dict[str, Any]]] = {
    "f": [{"network": "f.final", "step": step, **STEP} for step in (10, 20)]
    + [{"network": "f.fold0", "step": 5, **STEP}],
    "h": [{"network": "h", "step": 1, "prior": 0.1, "loss": 0.3}],
    "mapping": [{"epoch": 1, "raw.select_loss": 0.3, "both.select_loss": 0.2, "both.train_loss": 0.1}],
}


def plots() -> list[Any]:
    """Return the entries below `plots:` of dvc.yaml."""
    return list(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"])


def columns_of(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return next(csv.reader(file))


def test_every_column_that_a_plot_names_is_written(tmp_path: Path) -> None:
    write_plot_tables(tmp_path, METRICS, CURVES)
    named = set()
    for plot in plots():
        for definition in plot.values() if isinstance(plot, dict) else ():
            for path, columns in definition["y"].items():
                x = definition["x"] if isinstance(definition["x"], str) else definition["x"][path]
                columns = columns if isinstance(columns, list) else [columns]
                assert {x, *columns} <= set(columns_of(tmp_path / Path(path).name))
                named.add(Path(path).name)
    assert named == {path.name for path in tmp_path.glob("*.csv")}


def test_an_undefined_figure_has_no_row_and_a_fold_no_curve(tmp_path: Path) -> None:
    write_plot_tables(tmp_path, METRICS, CURVES)
    assert (tmp_path / "f1.csv").read_text() == "au,f1\nAU2,0.5\nAU12,0.7\n"
    assert (tmp_path / "confidence.csv").read_text().splitlines()[1:] == ["0.6,0.5,0.6", "0.9,1.0,0.9"]
    assert (tmp_path / "curves_f.csv").read_text().splitlines()[1:] == ["10,0.4,0.5,0.7", "20,0.4,0.5,0.7"]
    assert (tmp_path / "curves_h.csv").read_text() == "step,held_out\n1,0.3\n"


@pytest.mark.parametrize("name", ["h", "mapping"])
def test_a_part_without_curves_has_an_empty_table(name: str, tmp_path: Path) -> None:
    write_plot_tables(tmp_path, METRICS, CURVES | {name: []})
    assert (tmp_path / f"curves_{name}.csv").read_text().count("\n") == 1


@pytest.mark.slow
def test_dvcs_page_compares_two_revisions_without_the_net(tmp_path: Path, environment: dict[str, str]) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    folder = tmp_path / "reports" / "plots"
    folder.mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/plots.html"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(REPOSITORY / ".dvc" / "plots", tmp_path / ".dvc" / "plots")
    drawn = [plot for plot in plots() if isinstance(plot, dict)]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"plots": drawn}))
    write_plot_tables(folder, METRICS, CURVES)
    run("git", "init", "-q")
    run("git", "add", "reports", "dvc.yaml", ".dvc/config")
    run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "--no-verify", "-m", "before")
    write_plot_tables(folder, METRICS, CURVES | {"h": []})
    write_plot_script(tmp_path)
    run("dvc", "plots", "diff", "HEAD")
    page = tmp_path / "dvc_plots" / "index.html"
    page.write_text(page.read_text().replace("', spec);", "', spec, {renderer: 'svg'});"))  # text can be read in it
    with chromium() as tab:
        tab.open(page)
        tab.evaluate(DRAWN % len(drawn))
        assert {address.partition(":")[0] for address in tab.requests} <= {"file", "data"}
        assert [text for text in tab.complaints if "Uncaught" in text or "rror" in text] == []
        assert tab.evaluate("document.querySelectorAll('canvas, svg.marks').length") == len(drawn)
        assert tab.evaluate("document.body.innerText.includes('could not be loaded')") is False
        assert tab.evaluate(BARS) == ["AU2", "AU12"], "spelled as everywhere, in the order of the table"
        (tmp_path / ".dvc" / "tmp" / "vega.js").write_text("")
        tab.open(page)
        assert tab.evaluate("document.body.innerText.includes('Run aupair report in the project')")

"""The plots of DVC: the tables that dvc.yaml lists below `plots:`, and the script with which they are drawn offline.

`dvc plots show` renders .dvc/plots.html, which needs Vega. The page loads it from .dvc/tmp if `aupair report` has written it
there, else from the internet.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from aupair import store

Tree = Mapping[str, Any]

VEGA = Path(".dvc") / "tmp" / "vega.js"
"""The script that the page loads; DVC keeps `.dvc/tmp` out of git."""
_SCHEMA = "5."
"""The major version of Vega-Lite for which DVC's templates are written."""


def write_plot_tables(folder: Path, metrics: Tree, curves: Mapping[str, Sequence[Tree]]) -> None:
    """Write a CSV for each plot of dvc.yaml.

    Args:
        metrics: the tree of metrics.json.
        curves: the rows of curves.jsonl of f, h and mapping.
    """
    for name, table in _plot_tables(metrics, curves).items():
        table.to_csv(folder / f"{name}.csv", index=False)


def _plot_tables(metrics: Tree, curves: Mapping[str, Sequence[Tree]]) -> dict[str, pd.DataFrame]:
    """Return the tables by name; a figure that is undefined has no row."""
    decisions, order = metrics["decisions"], metrics["uncertainty"]["reliability"]["h"]
    (p2,) = (row for row in metrics["rows"] if (row["name"], row["split"]) == ("P2", "validation"))
    curve = decisions["risk_coverage"]["confidence"]
    tables = {
        "f1": pd.DataFrame([(au, figures["f1"]) for au, figures in p2["per_au"].items()], columns=["au", "f1"]),
        "risk_coverage": pd.DataFrame({"coverage": curve["coverage"], "wrong": curve["risk"]}),
        "confidence": _reliability(decisions["reliability"]),
        "order": _reliability(order),
        "curves_f": _network_curves(curves["f"]),
        "curves_h": _network_curves(curves["h"]),
        "curves_mapping": _mapping_curves(curves["mapping"], metrics["route"]),
    }
    return {name: table.astype(object).dropna() for name, table in tables.items()}


def _reliability(bins: Tree) -> pd.DataFrame:
    """Return the observed share for each claimed probability, beside that of perfect calibration."""
    return pd.DataFrame({"claimed": bins["claimed"], "observed": bins["observed"], "perfect": bins["claimed"]})


def _network_curves(rows: Sequence[Tree]) -> pd.DataFrame:
    """Return the mean curves of the networks that are trained on all people of fit; report.html has those of the folds."""
    final = [row for row in rows if ".fold" not in row["network"]]
    names = {"train_loss": "training", "loss": "held_out", "pair_accuracy": "pair_accuracy"}
    table = pd.DataFrame(final, columns=["step", *(key for key in names if any(key in row for row in final))])
    return table.rename(columns=names).groupby("step", as_index=False).mean()


def _mapping_curves(rows: Sequence[Tree], route: str) -> pd.DataFrame:
    """Return the loss on select of the mappings without and with uncertainty."""
    names = {"epoch": "epoch", "raw.select_loss": "without_uncertainty", f"{route}.select_loss": "with_uncertainty"}
    return pd.DataFrame(rows, columns=list(names)).rename(columns=names)


def write_plot_script(root: Path) -> None:
    """Write the script that draws DVC's plots offline, unless it exists or the project has no DVC repository.

    Nothing is written if the package that contains Vega is not installed; the page then loads Vega from the internet.
    """
    path = root / VEGA
    if path.exists() or not (root / ".dvc").is_dir() or find_spec("vl_convert") is None:
        return
    import vl_convert

    version = [own for own in vl_convert.get_vegalite_versions() if own.startswith(_SCHEMA)][-1]
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", version)
    store.write_text(path, f"(() => {{{script}}})();\n")  # in a function, to avoid clashes with names of the page

"""Parts of a bundle: small stand-ins, and those of a flow that has run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aupair import stages, store
from aupair.aus import AFFWILD2
from aupair.evaluation.confidence import TERMS
from aupair.evaluation.selection import MAPPINGS
from aupair.inference.bundle import Parts
from aupair.params import Params

AU_SETS: dict[str, tuple[str, ...]] = {
    "one": ("AU43",),
    "three": ("AU12L", "AU12R", "smile-with-closed-mouth-and-raised-cheek"),
    "twelve": AFFWILD2,
    "twenty": tuple(f"AU{k}" for k in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 24, 25, 26, 28, 43)),
}
"""AUs of annotations: few and many, with sides, and a behaviour with the longest name."""


def write_parts(
    work: Path, score: float | None = 0.6, f1: float = 0.5, data: str = "a.dir", aus: Sequence[str] = AFFWILD2
) -> Parts:
    """Write parts with networks that nobody can load; the first three AUs are decided with uncertainty.

    Args:
        score: None: no frame has all labels.
        f1: the F1 of each AU; where the score is None, that of the last AU is undefined, too.
    """
    for folder, name in (("f", "final"), ("h", "final"), ("mapping", "mapping")):
        (work / folder).mkdir(parents=True, exist_ok=True)
        store.write_json(work / folder / "about.json", {"aus": aus})
        (work / folder / f"{name}.safetensors").write_bytes(b"weights")
    (work / "statistics.safetensors").write_bytes(b"s")
    entry = {"threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.0)}
    choices = {au: {"mapping": MAPPINGS[k < 3], **entry} for k, au in enumerate(aus)}
    tree = {**choices, "aus": aus, "trial": 0, "confidence_quantiles": np.linspace(0, 1, 101).tolist()}
    per_au = {au: {"f1": None if score is None and au == aus[-1] else f1} for au in aus}
    figures = {"f1": f1, "accuracy": 0.8, "score": score, "per_au": per_au}
    rows = [{"name": n, "split": s, **figures} for n in ("P1", "P2") for s in ("select", "validation")]
    for name, content in (("selection", tree), ("data", {"md5": data}), ("metrics", {"rows": rows})):
        store.write_json(work / f"{name}.json", content)
    return Parts(
        work / "f", work / "h", work / "mapping", work / "statistics.safetensors",
        work / "selection.json", work / "data.json", work / "metrics.json",
    )  # fmt: skip


def parts_of_trial(root: Path, params: Params, trial: int) -> Parts:
    """Return the parts of a trial of a flow that has run."""
    paths = stages.get_stage("register-model").paths(root, params.trials)
    f, h, mapping, features = (paths[name][params.trials.index(trial)] for name in ("f", "h", "mapping", "features"))
    statistics = features / "statistics.safetensors"
    return Parts(f, h, mapping, statistics, paths["selection"], paths["info"], paths["metrics"])

"""What a row will cost: measured seconds of each stage where they are known, else scaled from the reference's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aupair import stages, store
from aupair.ablation.rows import Row
from aupair.evaluation.cost import cost_of
from aupair.params import Params

STAGES = tuple(stage.name for stage in stages.FLOW[:-1])
SCORED = 5000
"""frames scored by each network, about; it only matters beside few steps"""


@dataclass(frozen=True)
class Times:
    """How long stages took.

    Attributes:
        measured: seconds by (stage, lineage), the last run of each; of several trials the mean.
    """

    measured: dict[tuple[str, str], float]

    @classmethod
    def read(cls, roots: Iterable[Path], data: str) -> "Times":
        """Read what `aupair run` noted below these folders, of data of this hash."""
        last: dict[tuple[str, str], dict[object, float]] = {}
        for root in roots:
            if (root / stages.TIMES).exists():
                for row in (row for row in store.read_jsonl(root / stages.TIMES) if row["data"] == data):
                    last.setdefault((row["stage"], row["lineage"]), {})[row["trial"]] = float(row["seconds"])
        return cls({key: sum(trials.values()) / len(trials) for key, trials in last.items()})

    def seconds(self, stage: str, params: Params, base: Params) -> float | None:
        """Give a stage's seconds with these params: measured, or scaled from the base's; None where neither is known."""
        runs = len(params.trials) if stages.find(stage).per_trial else 1
        known = self.measured.get((stage, stages.lineage(stage, params)))
        if known is not None:
            return known * runs
        of_base = self.measured.get((stage, stages.lineage(stage, base)))
        return None if of_base is None else of_base * runs * work(stage, params) / max(work(stage, base), 1e-9)


def work(stage: str, params: Params) -> float:
    """The multiplications of a training stage, in some unit: what its seconds grow with; 1 for other stages."""
    if stage not in ("train-pseudo-intensity", "train-uncertainty"):
        return 1.0
    section = getattr(params, stage.replace("-", "_"))
    folds, optimiser = params.sample_pairs.folds, section.optimiser
    gmac = forward_gmac(stage, params)
    steps = optimiser.steps + (folds * optimiser.fold_steps if folds > 1 else 0)
    images = optimiser.batch
    if stage == "train-uncertainty" and params.train_uncertainty.kind != "network":
        images = 0  # faces are forwarded once, before
    networks = 1 + (folds if folds > 1 else 0)
    return gmac * (3 * steps * images + SCORED * networks)


def forward_gmac(stage: str, params: Params) -> float:
    """Giga multiply-adds of one frame in the network that a stage trains."""
    parts = _parts(params)
    part = "f" if stage == "train-pseudo-intensity" else "h"
    return float(parts[part]["gmac_per_frame"]) if part in parts else 0.0


@dataclass(frozen=True)
class Planned:
    """A run that rows share.

    Attributes:
        params: its params.
        rows: what is judged of it.
        seconds: what is left to do of it, in seconds; None where nothing of the kind was measured yet.
        fits: it is within the budget.
    """

    params: Params
    rows: tuple[Row, ...]
    seconds: float | None
    fits: bool = True


def plan(
    rows: Sequence[Row], base: Params, times: Times, budget: float | None, done: Iterable[str] = ()
) -> list[Planned]:
    """Group rows by their runs, and say which fit the budget: those that come first.

    Args:
        budget: seconds; None for no limit.
        done: rows that are judged already: their runs cost nothing.
    """
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(stages.lineage("evaluate", row.params(base)), []).append(row)
    finished, made, spent, planned = set(done), set(times.measured), 0.0, []
    for mine in runs.values():
        params = mine[0].params(base)
        left: float | None = 0.0
        if not all(row.name in finished for row in mine):
            lacking = [s for s in STAGES if (s, stages.lineage(s, params)) not in made]
            parts = [times.seconds(stage, params, base) for stage in lacking]
            left = None if None in parts else sum(part or 0.0 for part in parts)
        fits = budget is None or spent + (left or 0.0) <= budget
        if fits:
            spent += left or 0.0
            made |= {(s, stages.lineage(s, params)) for s in STAGES}
        planned.append(Planned(params, tuple(mine), left, fits))
    return planned


def whole_seconds(judged: str, params: Params, base: Params, times: Times) -> float | None:
    """Seconds of all that one way to decide needs of a run, as if nothing were shared; None where not measured."""
    needed = {"value": STAGES[:4], "constant": STAGES[:1]}.get(kind(judged), STAGES)
    if judged == "no-uncertainty":
        needed = tuple(stage for stage in STAGES if stage != "train-uncertainty")
    parts = [times.seconds(stage, params, base) for stage in needed]
    return None if None in parts else sum(part or 0.0 for part in parts)


def cost(judged: str, params: Params) -> dict[str, float]:
    """Give parameters and giga multiply-adds a frame of what one way to decide needs."""
    parts = _parts(params)
    used = {"constant": (), "value": ("f",)}.get(kind(judged), ("f", "mapping", "h"))
    used = tuple(name for name in used if name in parts and not (name == "h" and judged == "no-uncertainty"))
    return {key: float(sum(parts[name][key] for name in used)) for key in ("parameters", "gmac_per_frame")}


@cache
def _parts(params: Params) -> dict[str, dict[str, float]]:
    """Count each part once: a plan is made before each run, and asks for the same params again and again."""
    parts: dict[str, dict[str, float]] = cost_of(params)["parts"]
    return parts


def kind(judged: str) -> str:
    """Say what a way to decide needs: `constant`, `value` (f alone), or `mapping`."""
    if judged.startswith("value"):
        return "value"
    return "constant" if judged in ("all-zero", "all-one", "best-constant") else "mapping"

"""The description of a stage of the flow, and the paths of the artifacts below a working folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Needs:
    """GPUs, and memory in GiB, that a stage needs."""

    gpus: int = 0
    memory: int = 4

    def __str__(self) -> str:
        return f"{self.memory} GiB" + (f", {self.gpus} GPU" if self.gpus else "")


@dataclass(frozen=True)
class Stage:
    """A stage of the flow: its function, inputs, outputs and settings.

    Attributes:
        name: its name for `aupair run`, DVC and MLflow; with underscores, that of its function and params section.
        reads, writes: names of artifacts (the edges); the function takes them as keyword arguments.
        sections: sections of params.yaml that change its outputs.
        per_trial: runs once for each trial; a stage that runs once gets lists of the artifacts of all trials.
        resumable: a training stage, which takes a folder of checkpoints and continues from them, and may run in several
            processes (torchrun).
        needs: what it needs.
        needs_if_frozen: what it needs if the trunk is frozen, if that differs (`stages.needs_with`).
    """

    name: str
    run: Callable[..., None]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    sections: tuple[str, ...]
    needs: Needs = Needs()
    needs_if_frozen: Needs | None = None
    per_trial: bool = False
    resumable: bool = False

    @property
    def section(self) -> str:
        """Return the name of the stage's own section of params.yaml."""
        return self.name.replace("-", "_")

    def paths(self, root: Path, trials: Sequence[int], trial: int | None = None) -> dict[str, Any]:
        """Return the path of each artifact of the stage under a root.

        For a stage that runs once, an artifact that every trial has is a list with one path per trial.
        """
        paths: dict[str, Any] = {}
        for name in self.reads + self.writes:
            place = ARTIFACTS[name]
            if "{trial}" not in place:
                paths[name] = root / place
            elif self.per_trial:
                paths[name] = root / place.format(trial=trial)
            else:
                paths[name] = [root / place.format(trial=number) for number in trials]
        return paths


ARTIFACTS: dict[str, str] = {
    "data": "data",
    "labels": "work/labels.parquet",
    "info": "work/data.json",
    "data_docs": "reports/data_docs",
    "faces": "work/faces",
    "pairs": "work/pairs",
    "embeddings": "work/embeddings",
    "f": "work/f/{trial}",
    "h": "work/h",
    "features": "work/features",
    "mapping": "work/mapping",
    "selection": "work/selection.json",
    "summary": "reports/summary.json",
    "metrics": "reports/metrics.json",
    "draws": "reports/draws.json",
    "table": "reports/table.md",
    "plots": "reports/plots",
    "report": "reports/report.html",
    "bundle": "work/bundle",
    "registered": "work/registered.json",
}
"""The path of each artifact below the working folder; `{trial}` stands for the number of the trial."""

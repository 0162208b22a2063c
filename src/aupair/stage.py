"""What a stage is: its line in the table of contents, and where the artifacts lie on a laptop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Needs:
    """What a stage asks of the machine: GPUs, memory in GiB."""

    gpus: int = 0
    memory: int = 4


@dataclass(frozen=True)
class Stage:
    """A line of the flow.

    Attributes:
        name: the command, the DVC stage and the MLflow run; with underscores the function and the params section.
        reads, writes: names of artifacts (the edges); the function takes them as keyword arguments.
        sections: sections of params.yaml that change its outputs.
        per_trial: runs once a trial; a stage that does not and reads what one writes gets a list, one a trial.
        resumable: takes a folder of checkpoints and goes on from them; torchrun may give it several processes.
    """

    name: str
    run: Callable[..., None]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    sections: tuple[str, ...]
    needs: Needs = Needs()
    per_trial: bool = False
    resumable: bool = False

    @property
    def section(self) -> str:
        """Its own section of params.yaml."""
        return self.name.replace("-", "_")

    def paths(self, root: Path, trials: Sequence[int], trial: int | None = None) -> dict[str, Any]:
        """Give its artifacts as paths under a root, lists where it gathers all trials."""
        found: dict[str, Any] = {}
        for name in self.reads + self.writes:
            place = ARTIFACTS[name]
            if "{trial}" not in place:
                found[name] = root / place
            elif self.per_trial:
                found[name] = root / place.format(trial=trial)
            else:
                found[name] = [root / place.format(trial=number) for number in trials]
        return found


ARTIFACTS: dict[str, str] = {
    "data": "data",
    "labels": "work/labels.parquet",
    "info": "work/data.json",
    "data_docs": "reports/data_docs",
    "faces": "work/faces",
    "pairs": "work/pairs",
    "f": "work/trials/{trial}/f",
    "h": "work/trials/{trial}/h",
    "features": "work/trials/{trial}/features",
    "mapping": "work/trials/{trial}/mapping",
    "selection": "work/selection.json",
    "metrics": "reports/metrics.json",
    "table": "reports/table.md",
    "plots": "reports/plots",
    "report": "reports/report.html",
    "registered": "work/registered.json",
}
"""Where each artifact lies on a laptop; `{trial}` is the number of the trial."""

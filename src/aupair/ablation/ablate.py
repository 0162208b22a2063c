"""Run the rows that fit a budget, judge each, and write reports/ablation.{json,md,html}.

aupair ablate --budget 60

A row that is judged is kept in work/ablation/rows: stopped and started again, it goes on with the next one.
"""

import fcntl
import functools
import hashlib
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aupair import stages, store
from aupair.ablation.judge import Run, as_tree, counted
from aupair.ablation.plan import Planned, Times, cost, plan, whole_seconds
from aupair.ablation.rows import ROWS, Row, pick
from aupair.ablation.workspace import Workspace
from aupair.errors import ArtifactError, ParamsError, RunFailedError
from aupair.log import SILENT, Log
from aupair.params import Params

PLACE = Path("work/ablation")


@dataclass(frozen=True)
class Ablation:
    """An ablation of a checkout.

    Attributes:
        home: the checkout: data.dvc, dvc.yaml.
        base: the params that rows change.
        rows: those that are asked for.
        data: the md5 in data.dvc.
        unfit: rows that are asked for and make no sense with these params, and why.
    """

    home: Path
    base: Params
    rows: Sequence[Row]
    data: str
    unfit: tuple[tuple[Row, str], ...] = ()

    @classmethod
    def of(cls, home: Path, base: Params, names: Sequence[str]) -> "Ablation":
        """Make it for rows and groups by name.

        Raises:
            AupairError: no such row, no data.dvc, or the paper's protocol, which chooses on validation.
        """
        if base.evaluate.protocol == "paper":
            raise ParamsError("ablate", got="evaluate.protocol: paper", expected="ours: rows are chosen on select")
        rows, unfit = [], []
        for row in pick(names):
            why = row.unfit(base)
            if why:
                unfit.append((row, why))
            else:
                rows.append(row)
        return cls(home, base, rows, data_md5(home / "data.dvc"), tuple(unfit))

    @property
    def workspace(self) -> Workspace:
        """Where rows are run."""
        return Workspace(self.home, self.home / PLACE / "checkout")

    def times(self) -> Times:
        """What stages took, here and in the user's own runs."""
        return Times.read([self.home, self.workspace.root], self.data)

    def identity(self, row: Row) -> str:
        """Say in a text what a judged row depends on: the code, the data and all settings of its run."""
        return f"{code()} {self.data} {stages.lineage('evaluate', row.params(self.base))} {row.judged}"

    def judged(self, row: Row) -> dict[str, Any] | None:
        """Give what is known of a row, None where it was not judged, or of other data or settings."""
        path = self._place(row)
        known = store.read_json(path) if path.exists() else {}
        return known if known.get("identity") == self.identity(row) else None

    def plan(self, budget: float | None) -> list[Planned]:
        """Plan the runs; `budget` in seconds, None for no limit."""
        done = [row.name for row in self.rows if self.judged(row)]
        return plan(self.rows, self.base, self.times(), budget, done)

    def run(self, budget: float | None, log: Log = SILENT) -> list[dict[str, Any]]:
        """Run what fits, and give every row: judged, or why not.

        What a run will take is known better with each that was made, so that the plan is made anew before each.
        """
        with _locked(self.home / PLACE / "lock"):
            return self.collect(self._run_all(budget, log))

    def _run_all(self, budget: float | None, log: Log) -> dict[str, str]:
        """Run what fits; give the rows that failed, each with what its run said."""
        begun = time.monotonic()
        failed: dict[str, str] = {}
        runs = len(self.plan(None))
        prepared = False
        for k in range(runs):
            spent = time.monotonic() - begun
            planned = self.plan(None)[k]
            lacking = [row for row in planned.rows if self.judged(row) is None]
            if not lacking or (budget is not None and spent + (planned.seconds or 0.0) > budget):
                continue
            if not prepared:
                self.workspace.prepare(self.base)
                prepared = True
            about = "" if planned.seconds is None else f", about {duration(planned.seconds)}"
            log.line(
                f"[{k + 1} of {runs}] {', '.join(row.name for row in planned.rows)}{about}; {duration(spent)} so far"
            )
            try:
                self._run(planned, lacking, log)
            except RunFailedError as error:
                log.line(f"  failed: {error}")
                failed |= {row.name: str(error) for row in lacking}
        return failed

    def _run(self, planned: Planned, rows: Sequence[Row], log: Log) -> None:
        """Run the flow for some rows, and judge them."""
        self.workspace.run(planned.params, log, self.home / PLACE / "logs" / f"{planned.rows[0].name}.txt")
        run = Run.read(self.workspace.root, planned.params)
        for row in rows:
            counts, chosen = counted(run, row.judged)
            tree = {
                "identity": self.identity(row),
                "counts": as_tree(counts),
                "chosen": chosen,
                "evidence": {split: run.evidence(split) for split in counts},
            }
            store.write_json(self._place(row), tree)

    def collect(self, failed: dict[str, str]) -> list[dict[str, Any]]:
        """Give every row that is asked for or judged already, and its state.

        `judged`, with all that is known, `failed`, or `left` out.
        """
        times, found = self.times(), []
        planned = {row.name: one for one in self.plan(None) for row in one.rows}
        others = [row for row in ROWS if row not in self.rows and not row.unfit(self.base) and self.judged(row)]
        for row in sorted([*self.rows, *others], key=ROWS.index):
            params = row.params(self.base)
            about: dict[str, Any] = {"name": row.name, "group": row.group, "text": row.text, "judged": row.judged}
            about["settings"] = changed(self.base, params)
            known = self.judged(row)
            if known is not None:
                seconds = whole_seconds(row.judged, params, self.base, times)
                found.append(
                    {**about, "state": "judged", **known, "cost": {**cost(row.judged, params), "seconds": seconds}}
                )
            elif row.name in failed:
                found.append({**about, "state": "failed", "why": failed[row.name]})
            else:
                left = planned[row.name].seconds
                why = "not measured yet" if left is None else f"about {duration(left)}, more than is left of the budget"
                found.append({**about, "state": "left", "why": why})
        for row, why in self.unfit:
            about = {"name": row.name, "group": row.group, "text": row.text, "judged": row.judged, "settings": {}}
            found.append({**about, "state": "left", "why": why})
        return found

    def _place(self, row: Row) -> Path:
        return self.home / PLACE / "rows" / f"{row.name}.json"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock: two ablations in one folder would change each other's params. SIGTERM ends it as Ctrl-C does.

    Raises:
        ArtifactError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError(
                "an ablation is running here already", where=path, todo="wait for it, or stop it"
            ) from error
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@functools.cache
def code() -> str:
    """Give a hash of this package: a row that other code judged is judged again.

    DVC knows nothing of it: the outputs of stages of equal inputs and settings still come from its cache.
    """
    top, total = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        total.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def data_md5(path: Path) -> str:
    """Read the hash in data.dvc.

    Raises:
        AupairError: there is none.
    """
    import yaml

    try:
        return str(yaml.safe_load(path.read_text())["outs"][0]["md5"])
    except (OSError, KeyError, IndexError, TypeError, yaml.YAMLError) as error:
        raise ArtifactError(
            "no data tracked by DVC", where=path, got=type(error).__name__, todo="dvc add data"
        ) from error


def changed(base: Params, params: Params) -> dict[str, Any]:
    """Give the keys whose values differ from the base's, as `section.key: value`."""

    def walk(a: Any, b: Any, prefix: str) -> dict[str, Any]:
        if isinstance(a, dict) and isinstance(b, dict):
            found: dict[str, Any] = {}
            for key in b:
                found |= walk(a.get(key), b[key], f"{prefix}.{key}" if prefix else key)
            return found
        return {} if a == b else {prefix: b}

    return walk(base.model_dump(mode="json"), params.model_dump(mode="json"), "")


def duration(seconds: float) -> str:
    """Say a duration for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

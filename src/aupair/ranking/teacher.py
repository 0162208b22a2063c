"""The teacher of a student: f and h of a finished run, network by network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.errors import ArtifactError
from aupair.ranking.scores import JointScorer, load_f, load_h


class Teacher(nn.Module):
    """A network of f and one of h that compute the targets of a student, in the unit of y_hat.

    Args:
        scorer: f and h.
        center, scale: (A,) float32 each: y_hat = (output - center) / scale.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, scorer: JointScorer, center: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.scorer = scorer
        self.register_buffer("center", torch.from_numpy(center))
        self.register_buffer("scale", torch.from_numpy(scale))

    def forward(self, images: Tensor) -> Tensor:
        """Compute y_hat, then log sigma, (B, 2A) float32, from RGB (B, 3, S, S) in 0..255."""
        values, sigma = self.scorer(images).float().chunk(2, dim=1)
        return torch.cat([(values - self.center) / self.scale, torch.log(sigma)], dim=1)


def teacher_folders(work: Path) -> dict[str, Path]:
    """Return the folders below a run's working folder that a teacher is loaded from."""
    return {"teacher.f": Path(work) / "f", "teacher.h": Path(work) / "h"}


def load_teacher(work: Path, size: int, name: str) -> Teacher:
    """Load one network of f and one of h, `final` or a fold's, from the working folder of a finished run.

    Args:
        size: side of the faces that it will get, pixels.
        name: name of the network.

    Raises:
        ArtifactError: there is no such network, or it takes faces of another size.
    """
    trials, h = teacher_folders(work).values()
    f = sorted(trials.iterdir())[0]
    trained_on = store.read_json(f / "about.json")["size"]
    if trained_on != size:
        raise ArtifactError("the teacher was trained on faces of another size", where=f, got=trained_on, expected=size)
    model, center, scale = load_f(f, name)
    return Teacher(JointScorer(model, load_h(h, name)), center, scale)

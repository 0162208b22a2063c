"""Distillation: a small f with a second head learns to reproduce the outputs of a finished trial's f and h.

Ours: function matching (Beyer et al. 2021, arXiv 2106.05237). Teacher and student see the same augmented image. The batches
are those for training on pairs, in which rare AUs are frequent, but no label is used.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aupair.ranking.networks import AUNetwork, second_head_sigma

Teachers = Callable[[str], nn.Module]
"""name of a network -> its teacher: images (B, 3, S, S) -> y_hat, then log sigma, (B, 2A)"""


class StudentWithTeacher(nn.Module):
    """A student and its teacher as one module for the training loop: each batch goes through both.

    Args:
        student: f, sharing `integrated`; the only part whose parameters are trained, moved and saved.
        teacher: frozen and in eval mode.
    """

    def __init__(self, student: AUNetwork, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._teacher = (
            teacher.eval().requires_grad_(False),
        )  # in a tuple, since nn.Module would otherwise register it

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255: the student's outputs, (B, 2A), and in training the teacher's too, (B, 4A)."""
        outputs: Tensor = self.student(images)
        if not self.training:
            return outputs
        with torch.no_grad():
            targets = self._teacher[0](images)
        return torch.cat([outputs.float(), targets], dim=1)


OFFSET = 0.25
"""weight of the error that all frames of a video share; it is small, since the mapping compares frames of one video"""


def distillation_loss(outputs: Tensor, video: Tensor, weight: float) -> Tensor:
    """Return the mean squared error of y_hat within videos, plus OFFSET x that of their means, plus weight x that of
    log sigma.

    Args:
        outputs: of student and teacher, (B, 4A).
        video: (B,) integers, the video of each frame.
    """
    student, teacher = outputs.float().chunk(2, dim=1)
    (values, _), (y_hat, log_sigma) = student.chunk(2, dim=1), teacher.chunk(2, dim=1)
    error = values - y_hat
    _, index, count = torch.unique(video.to(error.device), return_inverse=True, return_counts=True)
    shared = (error.new_zeros(len(count), error.shape[1]).index_add(0, index, error) / count[:, None])[index]
    of_values = (error - shared).square().mean() + OFFSET * shared.square().mean()
    return of_values + weight * nn.functional.mse_loss(torch.log(second_head_sigma(student)), log_sigma)

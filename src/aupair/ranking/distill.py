"""Distillation: a small f with a second head learns to reproduce the outputs of f and h of a finished run.

Ours: function matching (Beyer et al. 2021, arXiv 2106.05237). Teacher and student get the same augmented image. The batches
are those for training on pairs, in which rare AUs are frequent, but labels are not used.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aupair.ranking.networks import AUNetwork, second_head_sigma

Teachers = Callable[[str], nn.Module]
"""name of a network -> its teacher, a module that maps images (B, 3, S, S) to y_hat, then log sigma, (B, 2A)"""


class StudentWithTeacher(nn.Module):
    """A student and its teacher as one module, so that the training loop forwards each batch through both.

    Args:
        student: f, sharing `integrated`; the only part whose parameters are trained, moved and saved.
        teacher: frozen and in eval mode.
    """

    def __init__(self, student: AUNetwork, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        # The tuple hides the teacher from nn.Module, which would register it as a part of this module.
        self._teacher = (teacher.eval().requires_grad_(False),)

    def forward(self, images: Tensor) -> Tensor:
        """Forward RGB (B, 3, S, S) in 0..255: outputs of the student, (B, 2A), in training with the teacher's, (B, 4A)."""
        outputs: Tensor = self.student(images)
        if not self.training:
            return outputs
        with torch.no_grad():
            targets = self._teacher[0](images)
        return torch.cat([outputs.float(), targets], dim=1)


OFFSET = 0.25
"""weight of the mean error of a video; it is small, since the mapping compares frames within a video"""


def distillation_loss(outputs: Tensor, video: Tensor, weight: float) -> Tensor:
    """Return MSE(y_hat within videos) + OFFSET x MSE(means of y_hat of videos) + weight x MSE(log sigma).

    Args:
        outputs: (B, 4A), outputs of the student, then of the teacher.
        video: (B,) int, the video of each frame.
    """
    student, teacher = outputs.float().chunk(2, dim=1)
    (values, _), (y_hat, log_sigma) = student.chunk(2, dim=1), teacher.chunk(2, dim=1)
    error = values - y_hat
    _, index, count = torch.unique(video.to(error.device), return_inverse=True, return_counts=True)
    shared = (error.new_zeros(len(count), error.shape[1]).index_add(0, index, error) / count[:, None])[index]
    of_values = (error - shared).square().mean() + OFFSET * shared.square().mean()
    return of_values + weight * nn.functional.mse_loss(torch.log(second_head_sigma(student)), log_sigma)

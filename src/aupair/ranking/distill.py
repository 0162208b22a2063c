"""Distillation: a small f with a second head learns to say what a finished trial's f and h say of the same image.

# ours: function matching (Beyer et al. 2021, arXiv 2106.05237). Teacher and student see one and the same augmented
image; the batches are those of the pairs, rare AUs first, but no label is looked at.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aupair.ranking.networks import AUNetwork, second_head_sigma

Teachers = Callable[[str], nn.Module]
"""the teacher of a network by its name: images (B, 3, S, S) -> y_hat, then log sigma, (B, 2A)"""


class StudentWithTeacher(nn.Module):
    """A student with its teacher beside it, as the training loop takes it: one batch goes through both.

    Args:
        student: f, sharing `integrated`; the only part with parameters to fit, to move and to save.
        teacher: stays as it is, in eval mode.
    """

    def __init__(self, student: AUNetwork, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple, or it would be a part of this module

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), RGB in 0..255 -> the student's (B, 2A); while training the teacher's beside it, (B, 4A)."""
        outputs: Tensor = self.student(images)
        if not self.training:
            return outputs
        with torch.no_grad():
            said = self._teacher[0](images)
        return torch.cat([outputs.float(), said], dim=1)


OFFSET = 0.25
"""weight of the error that all frames of a video share: what follows compares a frame with others of its video"""


def distillation_loss(outputs: Tensor, video: Tensor, weight: float) -> Tensor:
    """Mean squared error of y_hat within a video, OFFSET x that of its mean, and weight x that of log sigma.

    Args:
        outputs: student and teacher, (B, 4A).
        video: (B,) integers, the video of each frame.
    """
    student, teacher = outputs.float().chunk(2, dim=1)
    (values, _), (y_hat, log_sigma) = student.chunk(2, dim=1), teacher.chunk(2, dim=1)
    error = values - y_hat
    _, which, count = torch.unique(video.to(error.device), return_inverse=True, return_counts=True)
    shared = (error.new_zeros(len(count), error.shape[1]).index_add(0, which, error) / count[:, None])[which]
    of_values = (error - shared).square().mean() + OFFSET * shared.square().mean()
    return of_values + weight * nn.functional.mse_loss(torch.log(second_head_sigma(student)), log_sigma)

"""Augmentation of a batch of images: a small random similarity transform, mirroring, colour changes and noise."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION = math.radians(8)
SCALE = 0.08
SHIFT = 0.06  # of half the side
BRIGHTNESS = 0.25
CONTRAST = 0.25
CHANNEL = 0.06
NOISE = 6.0  # of 255


def draw_mirrors(video: np.ndarray | None, batch: int, generator: torch.Generator) -> Tensor:
    """Draw the images of a batch to mirror: each video with probability 1/2, with all its images alike.

    If only one face of a pair were mirrored, asymmetries of the face or of the light would change between the two
    frames as much as the expression does.

    Args:
        video: (batch,) int, the video of each image; None: mirror no image, for AUs of one side of the face.

    Returns:
        (batch,) bool.
    """
    draws = torch.rand(batch, generator=generator)  # drawn in any case, so that later random numbers are the same
    if video is None:
        return torch.zeros(batch, dtype=torch.bool)
    _, first, index = np.unique(video, return_index=True, return_inverse=True)
    return draws[torch.from_numpy(first[index])] < 0.5


def augment(
    images: Tensor, strength: float, generator: torch.Generator, mirrored: Tensor, part: slice = slice(None)
) -> Tensor:
    """Augment (b, 3, S, S) float32 RGB in 0..255.

    Args:
        strength: 0..1, factor of the module's constants.
        mirrored: (B,) bool, for each image of the whole batch.
        part: the position of these images in the whole batch. The random numbers of an image do not depend on how a
            batch is divided into parts.
    """
    b, device = len(mirrored), images.device

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(b, *shape, generator=generator)[part] * 2 - 1).to(device, non_blocking=True)

    angle, zoom = uniform() * strength * ROTATION, 1 + uniform() * strength * SCALE
    side = torch.where(mirrored[part], -1.0, 1.0).to(device, non_blocking=True)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = uniform(2) * strength * SHIFT
    theta = torch.stack(
        [torch.stack([cos * side, -sin, shift[:, 0]], 1), torch.stack([sin * side, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * (1 + strength * CONTRAST * uniform(1, 1, 1)) + mean * (
        1 + strength * BRIGHTNESS * uniform(1, 1, 1)
    )
    x = x * (1 + strength * CHANNEL * uniform(3, 1, 1))
    amount = (uniform(1, 1, 1) * strength * NOISE).abs()
    if device.type == "cuda":  # drawing these numbers on a CPU would take longer than the whole step on a GPU
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn(b, *x.shape[1:], generator=generator, device=generator.device)[part]
    return (x + amount * noise.to(device)).clamp(0, 255)

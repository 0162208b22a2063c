"""The augmentation of all images of a batch at once: a slight random similarity with mirroring, then colour and noise."""

import math

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


def augment(
    images: Tensor,
    strength: float,
    generator: torch.Generator,
    batch: int | None = None,
    part: slice = slice(None),
    mirror: bool = True,
) -> Tensor:
    """Augment (B, 3, S, S) float32 RGB in 0..255.

    Args:
        strength: 0..1, share of the amounts above.
        mirror: whether half of the images are mirrored, which keeps the labels of AUs that are labelled for both sides.
        batch, part: the size of the batch, and the part of it that these images are. The random numbers of an image do not
            depend on how a batch is divided into parts.
    """
    b, device = batch or len(images), images.device

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(b, *shape, generator=generator)[part] * 2 - 1).to(device, non_blocking=True)

    angle, zoom = uniform() * strength * ROTATION, 1 + uniform() * strength * SCALE
    draws = uniform()
    side = torch.where(draws > 0, 1.0, -1.0) if mirror else torch.ones_like(draws)
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

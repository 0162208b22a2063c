"""Augmentation: in range, seeded, light, and it mirrors."""

import numpy as np
import pytest
import torch

from aupair.ranking.augment import augment, draw_mirrors


def faces(count: int, size: int = 32) -> torch.Tensor:
    """Grey faces with a bright spot left of the middle."""
    x = torch.full((count, 3, size, size), 90.0)
    x[:, :, 14:18, 6:10] = 220.0
    return x


def plain(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.bool)


def varied(seed: int, count: int = 64) -> torch.Tensor:
    return augment(faces(count), 1.0, torch.Generator().manual_seed(seed), plain(count))


def test_shape_and_range() -> None:
    out = varied(0)
    assert out.shape == (64, 3, 32, 32)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 255


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(1)
    one = varied(3)
    torch.manual_seed(2)
    assert torch.equal(one, varied(3))
    assert not torch.equal(one, varied(4))
    assert not torch.equal(one[0], one[1])  # each image by itself


@pytest.mark.parametrize("is_mirrored", [True, False])
def test_the_spot_changes_its_side_in_a_mirror_and_moves_little(is_mirrored: bool) -> None:
    mirrored = torch.full((400,), is_mirrored)
    bright = augment(faces(400), 1.0, torch.Generator().manual_seed(0), mirrored).mean(1).flatten(1).argmax(1)
    row, column = bright // 32, bright % 32
    assert ((column < 16) != is_mirrored).all()
    assert ((row - 16).abs() <= 5).all()
    assert ((torch.where(column < 16, column, 31 - column) - 8).abs() <= 5).all()


def test_the_faces_of_a_video_are_mirrored_together() -> None:
    video = np.repeat(np.arange(400)[::-1], 3)[np.random.default_rng(0).permutation(1200)]
    mirrored = draw_mirrors(video, 1200, torch.Generator().manual_seed(0)).numpy()
    shares = np.array([mirrored[video == v].mean() for v in range(400)])
    assert set(shares) == {0.0, 1.0}
    assert 0.4 < shares.mean() < 0.6


def test_without_videos_no_face_is_mirrored_and_as_many_numbers_are_drawn() -> None:
    generator, other = (torch.Generator().manual_seed(0) for _ in range(2))
    assert not draw_mirrors(None, 40, generator).any()
    draw_mirrors(np.arange(40), 40, other)
    assert torch.equal(generator.get_state(), other.get_state())


def test_the_input_is_left_alone() -> None:
    x = faces(4)
    augment(x, 1.0, torch.Generator().manual_seed(0), plain(4))
    assert torch.equal(x, faces(4))


def test_a_part_of_a_batch_varies_as_it_does_in_the_whole() -> None:
    part = slice(2, 5)
    generator, whole = torch.Generator().manual_seed(0), varied(0, 7)
    assert torch.equal(augment(faces(7)[part], 1.0, generator, plain(7), part), whole[part])
    again = torch.Generator().manual_seed(0)
    augment(faces(7), 1.0, again, plain(7))
    assert torch.equal(generator.get_state(), again.get_state())  # all draw alike, and stay together

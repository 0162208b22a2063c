"""Augmentation: in range, seeded, light, and it mirrors."""

import torch

from aupair.ranking.augment import augment


def faces(count: int, size: int = 32) -> torch.Tensor:
    """Grey faces with a bright spot left of the middle."""
    x = torch.full((count, 3, size, size), 90.0)
    x[:, :, 14:18, 6:10] = 220.0
    return x


def varied(seed: int, count: int = 64) -> torch.Tensor:
    return augment(faces(count), 1.0, torch.Generator().manual_seed(seed))


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


def test_half_are_mirrored_and_none_moves_far() -> None:
    bright = varied(0, 400).mean(1).flatten(1).argmax(1)
    row, column = bright // 32, bright % 32
    left = column < 16
    assert 140 < int(left.sum()) < 260
    assert ((row - 16).abs() <= 5).all()
    assert ((torch.where(left, column, 31 - column) - 8).abs() <= 5).all()


def test_without_mirroring_no_face_changes_its_side() -> None:
    generator = torch.Generator().manual_seed(0)
    bright = augment(faces(400), 1.0, generator, mirror=False).mean(1).flatten(1).argmax(1)
    assert (bright % 32 < 16).all()
    assert torch.equal(generator.get_state(), _state_after(400)), "the same number of random numbers is drawn"


def _state_after(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    augment(faces(count), 1.0, generator)
    return generator.get_state()


def test_the_input_is_left_alone() -> None:
    x = faces(4)
    augment(x, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(x, faces(4))


def test_a_part_of_a_batch_varies_as_it_does_in_the_whole() -> None:
    part = slice(2, 5)
    generator, whole = torch.Generator().manual_seed(0), varied(0, 7)
    assert torch.equal(augment(faces(7)[part], 1.0, generator, 7, part), whole[part])
    again = torch.Generator().manual_seed(0)
    augment(faces(7), 1.0, again)
    assert torch.equal(generator.get_state(), again.get_state())  # all draw alike, and stay together

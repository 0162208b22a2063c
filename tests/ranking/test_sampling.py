"""Samplers: the same batch for the same step, groups of different videos, pairs that point into the rows."""

import numpy as np
import pytest

from aupair.ranking.pairs import Pairs, all_pairs, cell_weights, draw_groups, draw_pairs
from aupair.ranking.sampling import GroupSampler, ListSampler, Sampler, _epoch_order
from frame_sets import make_frames

VIDEOS, LENGTH = 5, 20


LABELS = (np.random.default_rng(0).random((VIDEOS * LENGTH, 12)) < 0.4).astype(np.int8)
FRAMES = make_frames((0,) * VIDEOS, LABELS)
GROUPS = draw_groups(FRAMES, 6, 3, (0,))
LIST = draw_pairs(FRAMES, "fit", 7, (0,))
SAMPLERS = {"groups": GroupSampler(FRAMES, GROUPS, 2, (1, 2)), "list": ListSampler(LIST, 10, (1, 2))}


@pytest.mark.parametrize("name", SAMPLERS)
def test_pairs_point_into_the_rows_of_the_batch(name: str) -> None:
    sampler: Sampler = SAMPLERS[name]
    for step in range(12):
        rows, pairs, weight = sampler(step)
        high, low = FRAMES.labels[rows[pairs.i], pairs.au], FRAMES.labels[rows[pairs.j], pairs.au]
        assert (np.sign(high - low) == pairs.r).all()
        assert (pairs.r != 0).all()
        assert (FRAMES.video[rows[pairs.i]] == FRAMES.video[rows[pairs.j]]).all()
        assert weight.sum() == pytest.approx(1.0, abs=1e-5)
        again = sampler(step)
        assert (again[0] == rows).all()
        assert (again[1].i == pairs.i).all()
        assert (again[2] == weight).all()


def test_an_epoch_of_groups_shows_each_video_at_most_once() -> None:
    sampler = SAMPLERS["groups"]
    for epoch in range(4):
        videos = [FRAMES.video[sampler(2 * epoch + batch)[0]].reshape(2, 6) for batch in range(2)]
        shown = np.concatenate(videos)
        assert (shown == shown[:, :1]).all()  # a group is of one video
        assert len(set(shown[:, 0].tolist())) == 4
    everything = {tuple(g) for step in range(60) for g in sampler(step)[0].reshape(2, 6).tolist()}
    assert everything == {tuple(g) for g in GROUPS.tolist()}


def test_a_batch_of_groups_has_every_pair_weighed_by_cells() -> None:
    rows, pairs, weight = SAMPLERS["groups"](3)
    expected = all_pairs(FRAMES.labels[rows], FRAMES.video[rows])
    assert (pairs.i == expected.i).all()
    assert (pairs.au == expected.au).all()
    assert (weight == cell_weights(expected, FRAMES.video[rows])).all()


def test_more_videos_asked_for_than_there_are() -> None:
    rows, _, _ = GroupSampler(FRAMES, GROUPS, 50, (0,))(7)
    assert len(rows) == VIDEOS * 6


def as_rows(rows: np.ndarray, pairs: Pairs) -> list[tuple[int, int, int, int]]:
    return list(zip(rows[pairs.i].tolist(), rows[pairs.j].tolist(), pairs.au.tolist(), pairs.r.tolist()))


def test_an_epoch_of_the_list_gives_each_pair_once() -> None:
    pairs = LIST[:30]
    sampler = ListSampler(pairs, 10, (0,))
    expected = sorted(as_rows(np.arange(len(FRAMES)), pairs))
    epochs = [[pair for batch in range(3) for pair in as_rows(*sampler(3 * epoch + batch)[:2])] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_the_order_of_an_epoch_is_kept_as_it_was_drawn() -> None:
    order = _epoch_order((0, 3), 2, 30)
    assert (order == np.random.default_rng([0, 3, 2]).permutation(30)).all()
    assert _epoch_order((0, 3), 2, 30) is order
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 1


def test_a_list_shorter_than_a_batch() -> None:
    rows, pairs, weight = ListSampler(LIST[:3], 10, (0,))(5)
    assert len(pairs) == 3
    assert weight.tolist() == pytest.approx([1 / 3] * 3)
    assert len(set(rows.tolist())) == len(rows)

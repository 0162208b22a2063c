"""Pairs against naive double loops; what no draw may ever do, for any table of frames."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aupair.aus import SPLITS
from aupair.data.frames import Frames
from aupair.ranking.pairs import (
    Pairs,
    all_pairs,
    cell_weights,
    count_pairs,
    draw_folds,
    draw_groups,
    draw_pairs,
)
from frame_sets import make_frames

quick = settings(deadline=None, max_examples=30)


@st.composite
def any_frames(draw: st.DrawFn) -> Frames:
    """Up to four videos of up to nine frames, three AUs of up to three levels, some labels missing, some faces."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    n = sum(lengths)
    labels = draw(hnp.arrays(np.int8, (n, 3), elements=st.integers(0, 2)))
    labels[draw(hnp.arrays(bool, n))] = -1
    labels[draw(hnp.arrays(bool, (n, 3)))] = -1
    split = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    return make_frames(split, labels, ok=draw(hnp.arrays(bool, n)), lengths=lengths)


def as_set(pairs: Pairs) -> set[tuple[int, int, int, int]]:
    return set(zip(pairs.i.tolist(), pairs.j.tolist(), pairs.au.tolist(), pairs.r.tolist()))


def check_pairs(pairs: Pairs, frames: Frames) -> None:
    """Check what holds for every pair, however it was drawn."""
    for i, j, au, r in zip(pairs.i, pairs.j, pairs.au, pairs.r):
        high, low = int(frames.labels[i, au]), int(frames.labels[j, au])
        assert frames.video[i] == frames.video[j]
        assert high != low
        assert high >= 0
        assert low >= 0
        assert r == (1 if high > low else -1)


@quick
@given(hnp.arrays(np.int8, st.tuples(st.integers(0, 8), st.just(3)), elements=st.integers(-1, 3)), st.data())
def test_all_pairs_equals_a_double_loop(labels: np.ndarray, data: st.DataObject) -> None:
    video = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(labels), max_size=len(labels))), np.int32)
    expected = set()
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            for au in range(3):
                a, b = int(labels[i, au]), int(labels[j, au])
                if video[i] == video[j] and a >= 0 and b >= 0 and a != b:
                    expected.add((i, j, au, 1 if a > b else -1))
    got = all_pairs(labels, video)
    assert as_set(got) == expected
    assert len(got) == len(expected)  # each unordered pair once


def test_all_pairs_of_many_levels_do_not_overflow() -> None:
    labels = np.array([[127], [0], [-1], [127]], np.int8)
    assert as_set(all_pairs(labels, np.zeros(4))) == {(0, 1, 0, 1), (1, 3, 0, -1)}


@quick
@given(any_frames())
def test_cell_weights_are_a_mean_of_means(frames: Frames) -> None:
    pairs = all_pairs(frames.labels, frames.video)
    terms = np.random.default_rng(0).random(len(pairs))
    cells: dict[tuple[int, int], list[float]] = {}
    for i, au, term in zip(pairs.i, pairs.au, terms):
        cells.setdefault((int(frames.video[i]), int(au)), []).append(float(term))
    expected = float(np.mean([np.mean(values) for values in cells.values()])) if cells else 0.0
    weights = cell_weights(pairs, frames.video)
    assert weights.dtype == np.float32
    assert float((weights * terms).sum()) == pytest.approx(expected, abs=1e-6)
    assert float(weights.sum()) == pytest.approx(1.0 if cells else 0.0, abs=1e-6)


@quick
@given(any_frames(), st.integers(2, 6), st.integers(1, 3))
def test_groups_hold_usable_fit_frames_of_one_video(frames: Frames, size: int, count: int) -> None:
    groups = draw_groups(frames, size, count, (0, 1))
    assert groups.shape[1:] == (size,)
    assert (np.diff(frames.video[groups[:, 0]]) >= 0).all()
    expected = []
    for v, rows in enumerate(frames.slices()):
        levels = frames.labels[rows][(frames.usable & frames.of_split("fit"))[rows]]
        if len(levels) > 1 and any(len({*column} - {-1}) > 1 for column in levels.T.tolist()):
            expected += [v] * count
    assert frames.video[groups[:, 0]].tolist() == expected
    for group in groups:
        assert len(set(frames.video[group].tolist())) == 1
        assert frames.usable[group].all()
        assert (frames.split[group] == SPLITS.index("fit")).all()
    assert (draw_groups(frames, size, count, (0, 1)) == groups).all()


def sparse_video(rates: list[float], frames: int = 900, seed: int = 0) -> Frames:
    labels = (np.random.default_rng(seed).random((frames, len(rates))) < np.array(rates)).astype(np.int8)
    return make_frames((0,), labels)


def test_a_rare_au_is_in_every_group() -> None:
    frames = sparse_video([0.03, 0.03, 0.03] + [0.3] * 9)
    groups = draw_groups(frames, 12, 40, (0, 1))
    present = (frames.labels[groups] > 0).any(axis=1)
    assert present[:, :3].all()
    assert present.mean() > 0.95
    by_chance = np.stack([np.random.default_rng(k).choice(900, 12, replace=False) for k in range(40)])
    assert (frames.labels[by_chance] > 0).any(axis=1)[:, :3].mean() < 0.6  # what the stratification is for


def test_a_rare_burst_beside_another_is_still_found() -> None:
    labels = np.zeros((1000, 2), np.int8)
    labels[500:502, 0] = 1  # closer to each other than a hundredth of the video
    labels[503:506, 1] = 1
    groups = draw_groups(make_frames((0,), labels), 8, 20, (3,))
    assert (labels[groups] > 0).any(axis=1).all()


def test_groups_are_far_apart_and_differ() -> None:
    frames = sparse_video([0.2, 0.3], frames=1000)
    groups = draw_groups(frames, 12, 10, (0,))
    for group in groups:
        gaps = np.diff(np.sort(frames.time[group]))
        assert gaps.min() > (frames.time[-1] - frames.time[0]) / 100
    assert len({tuple(group) for group in groups.tolist()}) == 10
    assert not (draw_groups(frames, 12, 10, (1,)) == groups).all()


def test_a_short_video_repeats_frames() -> None:
    frames = make_frames((0,), np.array([[0], [1], [0]]))
    groups = draw_groups(frames, 8, 2, (0,))
    assert groups.shape == (2, 8)
    assert set(groups.ravel().tolist()) == {0, 1, 2}


@quick
@given(any_frames(), st.sampled_from(SPLITS), st.integers(1, 12))
def test_drawn_pairs_are_allowed_balanced_and_the_same_again(frames: Frames, split: str, count: int) -> None:
    pairs = draw_pairs(frames, split, count, (5, 2))
    check_pairs(pairs, frames)
    both = np.concatenate([pairs.i, pairs.j])
    assert frames.usable[both].all()
    assert frames.of_split(split)[both].all()
    for au in range(3):
        cells = _cells(frames, split, au)
        of_au = pairs[pairs.au == au]
        assert len(of_au) == (count if cells else 0)
        drawn = Counter(
            (*sorted((int(frames.labels[i, au]), int(frames.labels[j, au]))), int(frames.video[i]))
            for i, j in zip(of_au.i, of_au.j)
        )
        for key in {cell[:2] for cell in cells}:
            of_key = [drawn[cell] for cell in cells if cell[:2] == key]
            assert max(of_key) - min(of_key) <= 1  # over videos
        by_levels = Counter({cell[:2]: 0 for cell in cells})
        for cell, n in drawn.items():
            assert cell in cells
            by_levels[cell[:2]] += n
        if by_levels:
            assert max(by_levels.values()) - min(by_levels.values()) <= 1
    assert as_set(draw_pairs(frames, split, count, (5, 2))) == as_set(pairs)


def _cells(frames: Frames, split: str, au: int) -> set[tuple[int, int, int]]:
    """(low, high, video) that have a pair, by a loop."""
    rows = np.flatnonzero(frames.usable & frames.of_split(split))
    cells = set()
    for i, j in combinations(rows.tolist(), 2):
        a, b = sorted((int(frames.labels[i, au]), int(frames.labels[j, au])))
        if frames.video[i] == frames.video[j] and -1 < a < b:
            cells.add((a, b, int(frames.video[i])))
    return cells


def test_drawn_pairs_are_different_while_there_are_enough_and_repeat_after() -> None:
    frames = make_frames((0,), np.array([[0]] * 4 + [[1]] * 3))
    assert len(as_set(draw_pairs(frames, "fit", 12, (0,)))) == 12  # each of 4 x 3, either side first
    assert len({frozenset((i, j)) for i, j, _, _ in as_set(draw_pairs(frames, "fit", 12, (0,)))}) == 12
    assert len(draw_pairs(frames, "fit", 30, (0,))) == 30
    long = make_frames((0,), np.arange(4000)[:, None] % 2)
    assert len(as_set(draw_pairs(long, "fit", 3000, (0,)))) == 3000


def test_with_few_pairs_each_au_gets_other_videos() -> None:
    frames = make_frames((0,) * 8, np.tile([[0] * 12, [1] * 12], (8, 1)))
    pairs = draw_pairs(frames, "fit", 2, (0,))
    chosen = {tuple(sorted(frames.video[pairs.i[pairs.au == au]].tolist())) for au in range(12)}
    assert len(chosen) > 3
    assert {video for videos in chosen for video in videos} == set(range(8))


def test_a_coin_says_which_frame_stands_first() -> None:
    frames = sparse_video([0.4])
    r = draw_pairs(frames, "fit", 400, (0,)).r
    assert 150 < (r > 0).sum() < 250


@quick
@given(any_frames(), st.integers(2, 4))
def test_folds_are_by_subject_and_balanced(frames: Frames, folds: int) -> None:
    fold = draw_folds(frames, folds, (0, 3))
    usable = frames.usable & frames.of_split("fit")
    load, largest = np.zeros(folds), 0
    for subject in range(len(frames.subjects)):
        in_fit = bool((frames.of_split("fit") & (frames.subject == subject)).any())
        assert (fold[subject] >= 0) == in_fit  # also one without a usable frame: its faces are scored too
        if in_fit:
            frames_of_subject = int((usable & (frames.subject == subject)).sum())
            load[fold[subject]] += frames_of_subject
            largest = max(largest, frames_of_subject)
    assert load.max() - load.min() <= largest
    assert (draw_folds(frames, 1, (0, 3)) == -1).all()


def test_folds_weigh_people_by_their_frames() -> None:
    lengths = [9, 3, 3, 3]
    frames = make_frames((0,) * 4, np.zeros((18, 1)), lengths=lengths)
    for seed in range(5):
        fold = draw_folds(frames, 2, (seed,))
        assert np.bincount(fold, weights=lengths).tolist() == [9, 9]


def test_a_person_of_many_videos_is_in_one_fold() -> None:
    frames = make_frames((0,) * 12, np.tile([[0], [1]], (12, 1)), [0, 1, 2] * 4)
    fold = draw_folds(frames, 3, (0,))
    assert sorted(fold.tolist()) == [0, 1, 2]
    assert fold[frames.subject].reshape(12, 2).tolist() == [[fold[s]] * 2 for s in [0, 1, 2] * 4]


@quick
@given(any_frames())
def test_count_pairs_equals_all_pairs(frames: Frames) -> None:
    counts = count_pairs(frames)
    for split in SPLITS:
        rows = np.flatnonzero(frames.usable & frames.of_split(split))
        pairs = all_pairs(frames.labels[rows], frames.video[rows])
        assert counts[split].tolist() == np.bincount(pairs.au, minlength=3).tolist()


def test_concatenate_and_index() -> None:
    empty = Pairs.concatenate([])
    assert len(empty) == 0
    one = all_pairs(np.array([[0], [1], [0]], np.int8), np.zeros(3))
    both = Pairs.concatenate([one, empty, one])
    assert as_set(both[: len(one)]) == as_set(both[np.arange(len(one), len(both))]) == as_set(one)


def test_a_group_has_pairs_of_aus_that_are_labelled_in_different_frames() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < 0.3).astype(np.int8)
    for au, start in enumerate((0, 130, 260)):  # each AU is labelled in a third of the video
        labels[:start, au] = labels[start + 130 :, au] = -1
    frames = make_frames([0], labels)
    with_pairs = np.zeros(3)
    for rows in draw_groups(frames, 12, 20, (0,)):
        pairs = all_pairs(frames.labels[rows], frames.video[rows])
        with_pairs[np.unique(pairs.au)] += 1
        assert (frames.labels[rows] >= 0).sum(axis=0).min() >= 3
    assert with_pairs.min() >= 16, "an AU has no pair only where all its frames happen to be active"

"""Pairs of frames of one video whose levels of one AU differ (paper: section 3.1, equation 1).

A level is 0 or 1, or 0 to 5 for intensities. The networks are trained and evaluated either on groups of frames
(`draw_groups`), of which every training step uses all pairs (`all_pairs`), or on an explicit list of pairs (`draw_pairs`);
sample-pairs draws both. The comments `# paper`, `# authors` and `# ours` mark code that follows the printed paper, the
authors' published code, or neither; docs/method.md explains each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupair.aus import NOT_ANNOTATED
from aupair.data.frames import Frames


@dataclass(frozen=True)
class Pairs:
    """M pairs of frames of one video, each ordered by one AU.

    Attributes:
        i, j: (M,) int64, rows of two frames of one video.
        au: (M,) int64, index of the AU.
        r: (M,) int8, +1 if level_i > level_j, -1 if level_i < level_j (equation 1).
    """

    i: np.ndarray
    j: np.ndarray
    au: np.ndarray
    r: np.ndarray

    def __len__(self) -> int:
        return len(self.i)

    def __getitem__(self, index: np.ndarray | slice) -> "Pairs":
        return Pairs(self.i[index], self.j[index], self.au[index], self.r[index])

    @staticmethod
    def concatenate(parts: Sequence["Pairs"]) -> "Pairs":
        """Concatenate several sets of pairs."""
        if not parts:
            return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int8))
        return Pairs(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("i", "j", "au", "r")))


def all_pairs(labels: np.ndarray, video: np.ndarray) -> Pairs:
    """Return every unordered pair i < j of one video with different levels, for all AUs.

    Each pair occurs once, since the losses are symmetric: the pair (j, i) with -r has the same loss.

    Args:
        labels: (n, A) int8, levels, -1 if not annotated.
        video: (n,) int, the video of each row.
    """
    blocks = [np.flatnonzero(video == v) for v in np.unique(video)]
    corners = [np.triu_indices(len(rows), k=1) for rows in blocks]
    i = np.concatenate([rows[a] for rows, (a, _) in zip(blocks, corners)] or [np.zeros(0, np.int64)])
    j = np.concatenate([rows[b] for rows, (_, b) in zip(blocks, corners)] or [np.zeros(0, np.int64)])
    annotated = (labels[i] != NOT_ANNOTATED) & (labels[j] != NOT_ANNOTATED)
    r = np.sign(labels[i].astype(np.int8) - labels[j].astype(np.int8)) * annotated
    m, au = np.nonzero(r)
    return Pairs(i[m], j[m], au, r[m, au])


def cell_weights(pairs: Pairs, video: np.ndarray) -> np.ndarray:
    """Return weights that make a weighted sum over pairs the mean over (video, AU) cells of the mean inside each cell.

    They are the `PairBatch.weight` of batches of groups. Ours: with these weights, frequent AUs and long videos do not
    dominate the loss; the authors average over pairs.

    Args:
        video: the video of each row to which `pairs` refers.

    Returns:
        (M,) float32, summing to 1 (empty for no pairs).
    """
    cell = video[pairs.i].astype(np.int64) * (int(pairs.au.max(initial=0)) + 1) + pairs.au
    _, inverse, counts = np.unique(cell, return_inverse=True, return_counts=True)
    return (1.0 / counts[inverse] / max(len(counts), 1)).astype(np.float32)


def draw_groups(frames: Frames, size: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """Draw `count` groups of `size` usable frames (with a face and a label) for each fit video.

    The frames of the first half of a group are drawn one after another, each from the frames with one active AU: the
    rarest AU of the video that is not active in the group yet. Thus an AU that is active in 3 % of the frames is in every
    group of the video. When the group contains all AUs of the video, the AUs alternate, in an order that changes from
    group to group. The second half is drawn at random from the whole video; if AUs are labelled in different frames, each
    draw is from the frames with a label of one AU, and the AUs alternate. Frames closer to a chosen frame than 1 % of the
    video's duration are avoided as long as there are others.

    Returns:
        (groups, size) int64, rows of `frames`, sorted by video. A video has no groups if it has fewer than two usable
        frames, or if no AU has two different levels in it.
    """
    groups: list[np.ndarray] = []
    usable = frames.usable & frames.of_split("fit")
    for index, rows in enumerate(frames.slices()):
        candidates = np.flatnonzero(usable[rows]) + rows.start
        levels = frames.labels[candidates]
        lowest = np.where(levels == NOT_ANNOTATED, 127, levels).min(axis=0, initial=127)
        contrasts = np.flatnonzero(levels.max(axis=0, initial=0) > lowest)
        if len(candidates) < 2 or len(contrasts) == 0:
            continue
        rng = np.random.default_rng([*seed, index])
        for _ in range(count):
            groups.append(candidates[_group(levels, frames.time[candidates], contrasts, size, rng)])
    return np.stack(groups) if groups else np.zeros((0, size), np.int64)


def _group(levels: np.ndarray, time: np.ndarray, aus: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one group of a video, as described in `draw_groups`.

    Args:
        levels: (n, A), levels of the video's usable frames.
        time: (n,) seconds.
        aus: the AUs with at least two levels in the video.

    Returns:
        (size,) int, indices into the n frames.
    """
    gap = (time[-1] - time[0]) / 100
    free = np.ones(len(time), bool)
    chosen: list[int] = []
    order = rng.permutation(aus)
    active, labelled = levels > 0, levels != NOT_ANNOTATED
    rarest = order[np.argsort(active[:, order].sum(axis=0), kind="stable")]
    for k in range(size):
        in_turn = order[k % len(order)]
        pool = free & labelled[:, in_turn] if (free & labelled[:, in_turn]).any() else free
        if k < size // 2:
            missing = rarest[~active[chosen][:, rarest].any(axis=0)]
            positive = active[:, missing[0] if len(missing) else in_turn]
            pool = free & positive if (free & positive).any() else positive if len(missing) else free
        options = np.flatnonzero(pool)
        if len(options) == 0:  # a short video: frames may be drawn again
            options = np.arange(len(time))
        pick = int(rng.choice(options))
        chosen.append(pick)
        free &= np.abs(time - time[pick]) > gap
    return np.array(chosen)


def draw_pairs(frames: Frames, split: str, count: int, seed: Sequence[int]) -> Pairs:
    """Draw a fixed list of pairs for each AU, balanced over pairs of levels, then over videos (# authors).

    Every pair of levels (high, low) gets about the same number of pairs, in about equal numbers from the videos with both
    levels. The order of the two frames is random. Pairs are repeated only if more are drawn from a video than it has.

    Args:
        count: number of pairs for each AU; an AU that has two levels in no video gets none.
    """
    usable = frames.usable & frames.of_split(split)
    parts = []
    for au in range(frames.labels.shape[1]):
        rng = np.random.default_rng([*seed, au])
        cells: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
        for rows in frames.slices():
            candidates = np.flatnonzero(usable[rows]) + rows.start
            levels = frames.labels[candidates, au]
            candidates, levels = candidates[levels != NOT_ANNOTATED], levels[levels != NOT_ANNOTATED]
            by_level = {int(v): candidates[levels == v] for v in np.unique(levels)}
            for high in by_level:
                for low in by_level:
                    if high > low:
                        cells.setdefault((high, low), []).append((by_level[high], by_level[low]))
        for share, key in zip(_shares(count, len(cells)), sorted(cells)):
            videos = [cells[key][k] for k in rng.permutation(len(cells[key]))]
            for n, (high_rows, low_rows) in zip(_shares(share, len(videos)), videos):
                parts.append(_draw(high_rows, low_rows, n, au, rng))
    return Pairs.concatenate(parts)


def _shares(total: int, parts: int) -> list[int]:
    """Split a total into nearly equal integers, the larger ones first; return an empty list for no parts."""
    return [total // parts + (k < total % parts) for k in range(parts)] if parts else []


def _draw(high: np.ndarray, low: np.ndarray, n: int, au: int, rng: np.random.Generator) -> Pairs:
    """Draw n pairs of one video and two levels, without repetition if there are enough."""
    possible = len(high) * len(low)
    code = rng.choice(possible, n, replace=n > possible)
    a, b = high[code // len(low)], low[code % len(low)]
    r = np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8)
    return Pairs(np.where(r > 0, a, b), np.where(r > 0, b, a), np.full(n, au, np.int64), r)


def draw_folds(frames: Frames, folds: int, seed: Sequence[int]) -> np.ndarray:
    """Assign each fit subject to a fold for cross-fitting, with about the same number of usable frames in each.

    A subject without a usable frame gets a fold as well, since its faces are scored like all others.

    Returns:
        (subjects,) int8, the fold of each subject; -1 for subjects outside fit, and for all if `folds` is 1.
    """
    fold = np.full(len(frames.subjects), -1, np.int8)
    if folds < 2:
        return fold
    counts = np.bincount(frames.subject[frames.usable & frames.of_split("fit")], minlength=len(fold))
    rng = np.random.default_rng([*seed])
    order = rng.permutation(np.unique(frames.subject[frames.of_split("fit")]))
    load = np.zeros(folds)
    for subject in order[np.argsort(-counts[order], kind="stable")]:
        fold[subject] = np.argmin(load)
        load[fold[subject]] += counts[subject]
    return fold


def count_pairs(frames: Frames) -> dict[str, np.ndarray]:
    """Return the number of possible pairs of each AU, (A,) int64, by split."""
    counts = {}
    for split in ("fit", "select", "validation"):
        usable = frames.usable & frames.of_split(split)
        total = np.zeros(frames.labels.shape[1], np.int64)
        for rows in frames.slices():
            levels = frames.labels[rows][usable[rows]]
            known = np.unique(levels[levels != NOT_ANNOTATED])
            counts_of_levels = np.stack([np.zeros_like(total), *((levels == v).sum(axis=0) for v in known)])
            total += (counts_of_levels.sum(axis=0) ** 2 - (counts_of_levels**2).sum(axis=0)) // 2
        counts[split] = total
    return counts

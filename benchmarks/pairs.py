"""How many pair terms does each forwarded image give? Ours against the authors' list of pairs for each AU.

A term is a pair of frames and an AU. Ours: every pair inside groups of frames of one video, for all AUs, from one pass.
The authors': a network for each AU and a list of pairs for it, in which two images are forwarded for one term. Both are
counted in the batches of training, on labels of Aff-Wild2's size and rates.
"""

from collections.abc import Iterator

import numpy as np
from affwild2_size import FIT_SHARE, draw_labels, draw_lengths, load_affwild2_params
from harness import Row, main, make_frames

from aupair.aus import AFFWILD2, NOT_ANNOTATED
from aupair.data.frames import Frames
from aupair.params import ListedPairs, Params
from aupair.ranking.pairs import Pairs, draw_groups, draw_pairs
from aupair.ranking.sampling import GroupSampler, ListSampler

GOAL = 40.0
EPOCHS = 10
GROUPS_OF_16 = ("sample_pairs.mode=groups", "sample_pairs.frames=16", "train_pseudo_intensity.optimiser.batch=48")
GROUPS_OF_12 = (*GROUPS_OF_16, "sample_pairs.frames=12")
"""each image is paired with all others of its group: longer groups give more terms, but fewer videos fit in a step"""


def measure() -> list[Row]:
    """Count the terms for two sizes of a group."""
    frames = make_affwild2_frames()
    return [
        compare(frames, load_affwild2_params(GROUPS_OF_16), "at Aff-Wild2's size and rates"),
        compare(frames, load_affwild2_params(GROUPS_OF_12), "the same, as many images a step"),
    ]


def compare(frames: Frames, params: Params, where: str) -> Row:
    """Count the terms and images of both in some epochs."""
    size = params.sample_pairs.frames
    listed = draw_pairs(frames, "fit", ListedPairs().train_pairs, (0, 2, 0))
    terms, images = count_terms(group_batches(frames, params), frames)
    listed_terms, listed_images = count_terms(list_batches(listed), frames)
    ours, reference = terms / images, listed_terms / listed_images
    return Row(
        question=f"pair terms for each image forwarded, {len(AFFWILD2)} AUs, {where}, groups of {size}",
        ours=f"{ours:.1f} ({terms:,} of {images:,} images)",
        reference=f"a list for each AU: {reference:.2f} ({listed_terms:,} of {listed_images:,})",
        ratio=ours / reference, goal=f"{GOAL:g} x", met=ours / reference >= GOAL,
        same="each term is one that the authors' rule allows: two frames of one video with faces, both annotated, of "
        "different levels, the right sign; none twice in a batch",
    )  # fmt: skip


def group_batches(frames: Frames, params: Params) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Yield rows and pairs of the batches of some epochs of groups; an epoch has each video once."""
    groups = draw_groups(frames, params.sample_pairs.frames, params.sample_pairs.groups, (0, 1))
    videos = len(np.unique(frames.video[groups[:, 0]]))
    per_batch = params.train_pseudo_intensity.optimiser.batch // groups.shape[1]
    sampler = GroupSampler(frames, groups, per_batch, (0, 0))
    for step in range(EPOCHS * (videos // min(videos, per_batch))):
        yield sampler(step)[:2]


def list_batches(pairs: Pairs) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Yield rows and pairs of an epoch of each AU's list; a frame that is twice in a batch is forwarded once."""
    for au in range(len(AFFWILD2)):
        own = pairs[pairs.au == au]
        sampler = ListSampler(own, 32, (0, au))
        for step in range(len(own) // 32):
            yield sampler(step)[:2]


def count_terms(batches: Iterator[tuple[np.ndarray, Pairs]], frames: Frames) -> tuple[int, int]:
    """Count the terms and the images of batches, and check each term by the authors' rule."""
    terms, images = 0, 0
    for rows, pairs in batches:
        check_terms(frames, rows[pairs.i], rows[pairs.j], pairs)
        terms, images = terms + len(pairs), images + len(rows)
    return terms, images


def check_terms(frames: Frames, i: np.ndarray, j: np.ndarray, pairs: Pairs) -> None:
    """Raise an AssertionError if a term of a batch, of rows i and j, is not allowed or occurs twice."""
    one, two = frames.labels[i, pairs.au].astype(int), frames.labels[j, pairs.au].astype(int)
    assert (frames.video[i] == frames.video[j]).all()
    assert (frames.ok[i] & frames.ok[j]).all()
    assert ((one != NOT_ANNOTATED) & (two != NOT_ANNOTATED) & (one != two)).all()
    assert (np.sign(one - two) == pairs.r).all()
    terms = np.stack([np.minimum(i, j), np.maximum(i, j), pairs.au])
    assert np.unique(terms, axis=1).shape[1] == len(pairs)


def make_affwild2_frames() -> Frames:
    """Return frames with labels as in affwild2_size.py: 540 videos, 2.6 million frames."""
    rng = np.random.default_rng(0)
    labels = [draw_labels(int(count), rng) for count in draw_lengths(540, 2_600_000, rng)]
    return make_frames(labels, (rng.random(len(labels)) >= FIT_SHARE).astype(np.int8), rng=rng)


if __name__ == "__main__":
    main(measure)

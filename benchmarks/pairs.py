"""How many pair terms does an image give that is forwarded? Ours against the authors' list of pairs for each AU.

A term is a pair of frames and an AU. Ours: every pair inside groups of frames of one video, for all AUs, from one pass.
The authors': a network for each AU and a list of pairs for it, of which each forwards two images for its one term. Both
are counted in the batches that training takes, on labels of Aff-Wild2's size and rates, and on the demo's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affwild2_size import TRAIN, labels_of, lengths_of
from harness import Row, main

from aupair.aus import AUS, NOT_ANNOTATED, SPLITS
from aupair.data.frames import Frames
from aupair.params import ListedPairs, Params, load_params
from aupair.ranking.pairs import Pairs, draw_groups, draw_pairs
from aupair.ranking.sampling import GroupSampler, ListSampler, Sampler
from aupair.synth import corpus, script, subject

ROOT = Path(__file__).parents[1]
GOAL = 40.0
EPOCHS = 10
GROUPS = ("sample_pairs.mode=groups", "sample_pairs.frames=16", "train_pseudo_intensity.optimiser.batch=48")
SHORTER = (*GROUPS, "sample_pairs.frames=12")
"""An image meets all others of its group: the longer, the more terms it gives, and the fewer videos fit a step."""

Count = tuple[int, int]
"""terms, images forwarded"""


def measure() -> list[Row]:
    """Count on both."""
    demo, paper, large = ROOT / "params.yaml", ROOT / "params" / "affwild2.yaml", affwild2()
    return [
        row(large, load_params(paper, GROUPS), "at Aff-Wild2's size and rates"),
        row(large, load_params(paper, SHORTER), "the same, as many images a step"),
        row(demo_frames(), load_params(demo, ()), "on the demo's labels"),
    ]


def row(frames: Frames, params: Params, where: str) -> Row:
    """Count the terms of both in some epochs."""
    sections = params.sample_pairs
    ours = count(ours_of(frames, params), frames)
    theirs = count(theirs_of(draw_pairs(frames, "fit", ListedPairs().train_pairs, (0, 2, 0))), frames)
    mine, reference = (terms / images for terms, images in (ours, theirs))
    return Row(
        question=f"pair terms for each image forwarded, {len(AUS)} AUs, {where}, groups of {sections.frames}",
        ours=f"{mine:.1f} ({ours[0]:,} of {ours[1]:,} images)",
        reference=f"a list for each AU: {reference:.2f} ({theirs[0]:,} of {theirs[1]:,})",
        ratio=mine / reference, goal=f"{GOAL:g} x", met=mine / reference >= GOAL,
        same="each term is one that the authors' rule allows: two frames of one video with faces, both annotated, of "
        "different levels, the right sign; none twice in a batch",
    )  # fmt: skip


def ours_of(frames: Frames, params: Params) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Give the batches of some epochs of groups: in each, every video once."""
    sections, optimiser = params.sample_pairs, params.train_pseudo_intensity.optimiser
    groups = draw_groups(frames, sections.frames, sections.groups, (0, 1))
    videos = len(np.unique(frames.video[groups[:, 0]]))
    each = optimiser.batch // groups.shape[1]
    sampler = GroupSampler(frames, groups, each, (0, 0))
    return steps(sampler, EPOCHS * (videos // min(videos, each)))


def theirs_of(pairs: Pairs) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Give the batches of an epoch of each AU's own list; a frame that a batch has twice is forwarded once."""
    for au in range(len(AUS)):
        own = pairs[pairs.au == au]
        yield from steps(ListSampler(own, 32, (0, au)), len(own) // 32)


def steps(sampler: Sampler, number: int) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Give rows, and pairs that point into them, of the first steps."""
    for step in range(number):
        rows, pairs, _ = sampler(step)
        yield rows, pairs


def count(batches: Iterator[tuple[np.ndarray, Pairs]], frames: Frames) -> Count:
    """Count terms and images, and hold each term against the authors' rule."""
    terms, images = 0, 0
    for rows, pairs in batches:
        check(frames, rows[pairs.i], rows[pairs.j], pairs)
        terms, images = terms + len(pairs), images + len(rows)
    return terms, images


def check(frames: Frames, i: np.ndarray, j: np.ndarray, pairs: Pairs) -> None:
    """Hold the terms of a batch against the authors' rule, pair by pair (rows i, j) and AU.

    Raises:
        AssertionError: one is not allowed, or stands twice.
    """
    one, two = frames.labels[i, pairs.au].astype(int), frames.labels[j, pairs.au].astype(int)
    assert (frames.video[i] == frames.video[j]).all()
    assert (frames.ok[i] & frames.ok[j]).all()
    assert ((one != NOT_ANNOTATED) & (two != NOT_ANNOTATED) & (one != two)).all()
    assert (np.sign(one - two) == pairs.r).all()
    terms = np.stack([np.minimum(i, j), np.maximum(i, j), pairs.au])
    assert np.unique(terms, axis=1).shape[1] == len(pairs)


def affwild2() -> Frames:
    """Make labels as affwild2_size.py does: 540 videos, 2.6 million frames, of whose people 72 % are in fit."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(540, 2_600_000, rng)
    labels = [labels_of(int(count), rng) for count in lengths]
    return framed(labels, (rng.random(len(labels)) >= TRAIN).astype(np.int8), 30.0, rng)


def demo_frames() -> Frames:
    """Make the labels of the demo corpus, frame by frame as `aupair synth` writes them."""
    settings, labels = corpus.SynthParams(), []
    for number in range(settings.subjects):
        person = subject.make_subject(np.random.default_rng([settings.seed, number]))
        deck = script.Deck(np.random.default_rng([settings.seed, number, 1]))
        for clip in range(settings.clips):
            rng = np.random.default_rng([settings.seed, number, 2, clip])
            plan = corpus.plan_clip(rng, settings, person, deck, corpus.split_of(number))
            labels.append((np.floor(plan.intensity + 1e-9) >= 1).astype(np.int8))
    split = np.array([SPLITS.index(corpus.split_of(k)) for k in range(settings.subjects)], np.int8)
    return framed(labels, np.repeat(split, settings.clips), settings.fps, np.random.default_rng(0))


def framed(labels: list[np.ndarray], split: np.ndarray, fps: float, rng: np.random.Generator) -> Frames:
    """Put videos together; 4 % of the frames have no face."""
    video = np.repeat(np.arange(len(labels), dtype=np.int32), [len(part) for part in labels])
    frame = np.concatenate([np.arange(len(part), dtype=np.int32) for part in labels])
    names = tuple(f"{k:03d}" for k in range(len(labels)))
    ok = rng.random(len(video)) > 0.04
    return Frames(names, names, video, video, split[video], frame, frame / fps, ok, np.concatenate(labels))


if __name__ == "__main__":
    main(measure)

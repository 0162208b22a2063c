"""How often is f forwarded for a frame? When h is trained, and when predict scores, at the demo's size on one thread.

References: forwarding f for each pair again, as the authors' training of h does; and forwarding the trunk that f and h
share once for each of them.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, in_turn, main
from pairs import demo_frames
from torch import Tensor, nn

from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.params import ListedPairs, Params, load_params
from aupair.ranking.fit import forward_in_chunks, to_network_input
from aupair.ranking.networks import AUNetwork, Vgg, build_factors, build_network
from aupair.ranking.pairs import Pairs, assign_folds, draw_groups, draw_pairs
from aupair.ranking.pseudo_intensity import PseudoIntensity
from aupair.ranking.samples import TrainingSet
from aupair.ranking.scores import Scorer, load_f, load_h, save_f, save_h
from aupair.ranking.uncertainty import Sigma, Uncertainty, train_h

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SAMPLE = 64
"""pairs that are really forwarded"""
SHORT = ("train_uncertainty.optimiser.steps=20", "train_uncertainty.optimiser.fold_steps=20",
         "train_pseudo_intensity.network.width=0.05", "train_uncertainty.device=cpu")  # fmt: skip
"""how often f is forwarded does not depend on the number of steps or the network's width"""


class Noise:
    """A face for each frame that counts how often it is asked for."""

    def __init__(self, count: int, size: int) -> None:
        self.size, self.asked = size, Counter[int]()
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Give faces (B, S, S, 3) uint8."""
        self.asked.update(rows.tolist())
        return self.pixels[rows]


def measure() -> list[Row]:
    """Count in training; time in scoring."""
    torch.set_num_threads(1)
    frames, params = demo_frames(), load_params(ROOT / "params.yaml", ())
    return [training(frames, load_params(ROOT / "params.yaml", SHORT)), *scoring(frames, params)]


def training(frames: Frames, params: Params) -> Row:
    """Train h on the demo's labels and count how often each face is forwarded by each network of f."""
    seed, faces = (0, 0), Noise(len(frames), 32)
    pairs = {split: draw_pairs(frames, split, 60, seed) for split in ("fit", "select", "validation")}
    groups = draw_groups(frames, params.sample_pairs.frames, 4, seed)
    data = TrainingSet(frames, faces, groups, pairs, assign_folds(frames, params.sample_pairs.folds, seed))  # type: ignore[arg-type]
    y_hat = np.random.default_rng(0).normal(frames.labels, 1).astype(np.float32)
    done = Counter[str]()

    def f(name: str) -> tuple[AUNetwork, np.ndarray, np.ndarray]:
        model = build_network(params.train_pseudo_intensity.network, faces.size, 0)
        vgg = model.networks[0]
        assert isinstance(vgg, Vgg)
        vgg.features[0].register_forward_hook(
            lambda layer, given, out: done.update({name: len(given[0])})
        )  # copied too
        return model, np.zeros(len(AUS)), np.ones(len(AUS))

    train_h(data, y_hat, f, params, 0)
    there = int(frames.ok.sum())
    often = {count / len(done) for count in faces.asked.values()}
    assert len(faces.asked) == there
    assert all(count <= there + 32 for count in done.values()), "the last chunk is filled up"
    drawn = 2 * len(AUS) * ListedPairs().train_pairs
    return Row(
        question="forwards of a network of f for a frame while h is trained",
        ours=f"{max(often):g}", reference=f"each pair of the authors' list forwards its two: {drawn / there:.0f} an epoch",
        ratio=drawn / there / max(often), goal="1", met=often == {1.0},
        same=f"{there:,} frames, {len(done)} networks, faces counted where they are fetched and in the first layer",
    )  # fmt: skip


def scoring(frames: Frames, params: Params) -> list[Row]:
    """Score the first video by one pass, by two, and by each pair again."""
    video = frames.slices()[0]
    count, size = video.stop - video.start, params.preprocess_faces.size
    images = Noise(count, size).pixels
    with tempfile.TemporaryDirectory() as folder:
        f_at, h_at = save(Path(folder), params, size, images)
        scorer, (f, center, scale), h = Scorer(f_at, h_at, "cpu"), load_f(f_at), load_h(h_at)
    f, h, x = f.eval(), h.eval(), to_network_input(images, CPU)

    @torch.no_grad()
    def two_passes() -> tuple[np.ndarray, np.ndarray]:
        return (forward_in_chunks(f, x) - center) / scale, forward_in_chunks(h, x)

    listed = draw_pairs(frames, "fit", ListedPairs().train_pairs, (0, 2, 0))
    mine = listed[frames.video[listed.i] == frames.video[video.start]]
    some = mine[np.random.default_rng(0).permutation(len(mine))[:SAMPLE]]

    @torch.no_grad()
    def each_pair() -> np.ndarray:
        both = np.stack([some.i, some.j], axis=1).ravel() - video.start
        said = ((forward_in_chunks(f, x[both]) - center) / scale).reshape(len(some), 2, len(AUS))
        return said[:, 0] - said[:, 1]

    layers, convolutions = forwards(scorer, images), 13 * -(-count // 32)
    ours, theirs = scorer(images), two_passes()
    assert all(np.array_equal(*both) for both in zip(ours, theirs))
    assert np.array_equal(each_pair(), difference(ours[0], some, video.start))
    one, again = in_turn(lambda: scorer(images), each_pair)
    scorer_time, two = in_turn(lambda: scorer(images), two_passes)
    again *= len(mine) / len(some)
    return [
        Row(
            question="predict: seconds to score a frame by f and h", ours=f"{one / count:.4f}",
            reference=f"f for the {len(mine):,} pairs of its video again: {again / count:.2f}, scaled from {len(some)}",
            ratio=again / one, goal="one pass a frame", met=layers == convolutions,
            same=f"differences of all pairs equal to the bit; {layers} convolutions for {count} frames: 13 a chunk of 32",
        ),
        Row(
            question="the same", ours=f"{scorer_time / count:.4f}", reference=f"a pass for f, another for h: {two / count:.4f}",
            ratio=two / scorer_time, goal="one pass a frame", met=layers == convolutions,
            same="y_hat and sigma equal to the bit",
        ),
    ]  # fmt: skip


def save(folder: Path, params: Params, size: int, images: np.ndarray) -> tuple[Path, Path]:
    """Write an f with batch norms that have seen faces, and an h that reads its trunk."""
    f = build_network(params.train_pseudo_intensity.network, size, 0)
    f.train()(to_network_input(images, CPU))
    section = params.train_uncertainty
    h = Sigma(build_factors(f, section.block, section.factors, 0), np.ones(len(AUS)), section.floor)
    nothing: Any = np.zeros((0, len(AUS)), np.float32)
    standard = {"final": np.linspace(0.5, 1.5, len(AUS)).astype(np.float32)}
    save_f(folder / "f", PseudoIntensity({"final": f}, standard, standard, nothing, []), params, size)
    save_h(folder / "h", Uncertainty({"final": h}, nothing, []), params, size)
    return folder / "f", folder / "h"


def forwards(scorer: Scorer, images: np.ndarray) -> int:
    """Count the convolutions that a call does."""
    done: list[Tensor] = []
    layers = [layer for layer in scorer._networks.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, given, out: done.append(out)) for layer in layers]
    scorer(images)
    for hook in hooks:
        hook.remove()
    return len(done)


def difference(y_hat: np.ndarray, pairs: Pairs, start: int) -> np.ndarray:
    """Give y_i - y_j of each pair and all AUs, (M, A)."""
    return y_hat[pairs.i - start] - y_hat[pairs.j - start]


if __name__ == "__main__":
    main(measure)

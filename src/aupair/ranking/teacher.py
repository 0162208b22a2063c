"""The teacher of a student: f and h of a finished run, network by network."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aupair import store
from aupair.errors import ArtifactError
from aupair.ranking.about import FINAL, AboutF, Member
from aupair.ranking.embeddings import TRUNK
from aupair.ranking.scores import FOLDS, load_f, read_network
from aupair.ranking.sigma import (
    MemberScorer,
    SecondHeadReader,
    SigmaModel,
    load_reader,
    load_sigma_model,
    load_sigma_network,
    read_about,
)
from aupair.ranking.trunks import load_trunk


class Teacher(nn.Module):
    """Networks of f and h that compute the targets of a student, in the unit of y_hat; quality signals are unknown.

    Args:
        f: networks of f with their readers of h, each with center and scale, (A,): y_hat = (output - center) / scale.
        others: further networks, of which only the log sigma of their readers is used.
        h: guard and floor, and the separate network of h if there is one.
        new: whether sigma is computed as for new frames, which all networks of f score.
        trunk: the frozen trunk that computes the input of the networks, or None.
    """

    def __init__(
        self, f: Sequence[tuple[MemberScorer, np.ndarray, np.ndarray]], others: Sequence[MemberScorer], h: SigmaModel,
        new: bool, trunk: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk = trunk
        self.scorers = nn.ModuleList(scorer for scorer, _, _ in f)
        self.others = nn.ModuleList(others)
        self.network, self.floor = h.network, h.floor
        for k, (_, center, scale) in enumerate(f):
            self.register_buffer(f"center{k}", torch.from_numpy(center))
            self.register_buffer(f"scale{k}", torch.from_numpy(scale))
        offset, slope = h.affine(new, len(f[0][1]))
        self.register_buffer("offset", torch.from_numpy(offset).float())
        self.register_buffer("slope", torch.from_numpy(slope).float())

    def forward(self, images: Tensor) -> Tensor:
        """Compute y_hat, then log sigma, (B, 2A) float32, from RGB (B, 3, S, S) in 0..255."""
        buffers = dict(self.named_buffers(recurse=False))
        features = images if self.trunk is None else self.trunk(images)
        y_hat, terms = [], []
        for k, scorer in enumerate(self.scorers):
            values, *term = scorer(features).float().split(len(buffers["offset"]), dim=1)
            y_hat.append((values - buffers[f"center{k}"]) / buffers[f"scale{k}"])
            terms += term
        terms += [other(features)[:, len(buffers["offset"]) :].float() for other in self.others]
        if self.network is not None:
            terms.append(torch.log(self.network(features if self.network.reads_features else images)))
        log_sigma = buffers["offset"] + buffers["slope"] * torch.stack(terms).mean(dim=0)
        if self.floor:
            log_sigma = log_sigma.clamp(min=math.log(self.floor))
        return torch.cat([torch.stack(y_hat).mean(dim=0), log_sigma], dim=1)


def teacher_folders(work: Path) -> dict[str, Path]:
    """Return the folders from which a teacher is loaded; the last does not exist without a frozen trunk."""
    return {"teacher.f": Path(work) / "f", "teacher.h": Path(work) / "h", "trunk": Path(work) / "embeddings" / TRUNK}


def load_teacher(work: Path, size: int, name: str) -> Teacher:
    """Load the teacher of a network, `final` or a fold's, from the working folder of a finished run.

    The student `final` learns from all networks of f and h. The student of a fold provides y_hat and sigma of the fold's
    people. Its y_hat therefore comes from the fold's networks, which were not trained on these people, and its sigma from
    the readers that were not, which read the networks of the other folds. Those networks were trained on these people,
    so that their labels have a small influence on the student's sigma, but none on its y_hat.

    Args:
        size: side of the student's faces, pixels.
        name: name of the network.

    Raises:
        ArtifactError: there is no such network, or its faces have another size.
    """
    trials, folder, trunk_folder = teacher_folders(work).values()
    folders = sorted(trials.iterdir(), key=lambda path: int(path.name))
    trained_on = store.read_record(folders[0] / "about.json", AboutF).size
    if trained_on != size:
        where = folders[0]
        raise ArtifactError(
            "the teacher was trained on faces of another size", where=where, got=trained_on, expected=size
        )
    h = load_sigma_model(folder)
    about = read_about(folder)
    members = list(about.ensemble)
    others: list[Member] = []
    if name != FINAL:
        members = [Member(trial, name) for trial in dict.fromkeys(trial for trial, _ in members)]
        own = folder / FOLDS / f"{name}.safetensors"
        if about.kind == "network":
            h = replace(h, network=load_sigma_network(own, about))
        elif own.exists():
            h = replace(h, readers={members[0]: load_reader(own, about)})
        elif about.kind == "factors":
            others = [member for member in h.readers if member.name != name]
            h = replace(h, readers={member: h.readers[member] for member in others})

    def load_scorer(member: Member) -> tuple[MemberScorer, np.ndarray, np.ndarray]:
        network, center, scale = load_f(folders[member.trial], member.name)
        second_head = SecondHeadReader(scale) if about.kind == "integrated" else None
        return MemberScorer(network, second_head or h.readers.get(member)), center, scale

    trunk = load_trunk(trunk_folder) if read_network(folders[0]).frozen else None
    own_scorers = [load_scorer(member) for member in members]
    return Teacher(own_scorers, [load_scorer(member)[0] for member in others], h, name == FINAL, trunk)

"""The student: a small network that learns what a finished trial's f and h say, then goes through the rest of the flow.

It works in a folder of its own that looks like the user's: what both share is linked, so that every command that takes
`--root` works there. The user's params, trials and reports are left alone.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aupair import stages, store
from aupair.errors import ArtifactError, ParamsError
from aupair.log import SILENT, Log
from aupair.params import Params, parse_params
from aupair.record import apply_overrides, apply_settings
from aupair.stage import ARTIFACTS

FOLDER = Path("work") / "student"
DONE = Path("work") / "done.json"
SHARED = ("data", "labels", "info", "faces", "pairs")
STAGES = ("train-pseudo-intensity", "train-uncertainty", "extract-features", "train-mapping", "evaluate")
LONGER = 3
"""times its teacher's steps: with as many it underfits (docs/log.md)"""
SIDE = 96
"""pixels: a face is shrunk to the smallest side that is at least this"""


def settings(teacher: Params) -> dict[str, Any]:
    """Return the settings in which a student differs from its teacher, by key: small and fast."""
    f = teacher.train_pseudo_intensity
    network = {
        "width": min(0.125, f.network.width / 2), "batch_norm": True, "weights": "none", "frozen_convolutions": 0,
        "sharing": "integrated", "dropout": 0.0, "shrink": max(1, teacher.preprocess_faces.size // SIDE),
    }  # fmt: skip
    optimiser = {
        "name": "adamw", "learning_rate": 0.003, "schedule": "one_cycle", "weight_decay": 0.05, "keep": "last",
        "steps": LONGER * f.optimiser.steps, "fold_steps": LONGER * f.optimiser.fold_steps,
    }  # fmt: skip
    section = "train_pseudo_intensity"
    return {
        f"{section}.objective": "distill", f"{section}.augment": 0.25,
        **{f"{section}.network.{key}": value for key, value in network.items()},
        **{f"{section}.optimiser.{key}": value for key, value in optimiser.items()},
        "train_uncertainty.kind": "integrated",
        "train_mapping.width": min(teacher.train_mapping.width, 256),
    }  # fmt: skip


def student_of(teacher: Params, trial: int, overrides: Sequence[str] = ()) -> Params:
    """Give the params of a trial's student.

    Raises:
        ParamsError: an override is unknown or wrong.
    """
    where = "the student's params"
    tree = apply_settings(Params, teacher.model_dump(mode="json"), settings(teacher) | {"trials": [trial]}, where)
    return parse_params(apply_overrides(Params, tree, overrides), where)


@dataclass(frozen=True)
class Distillation:
    """A teacher and its student.

    Attributes:
        home: the folder in which the teacher was trained.
        trial: the teacher's number; the student's is the same.
        params: the student's.
    """

    home: Path
    trial: int
    params: Params

    @classmethod
    def of(cls, home: Path, params: Params, trial: int | None = None, overrides: Sequence[str] = ()) -> "Distillation":
        """Take the trial that evaluate chose, or a named one.

        Raises:
            ArtifactError: there is none.
            ParamsError: an override is unknown or wrong.
        """
        if trial is None:
            chosen = home / ARTIFACTS["selection"]
            if not chosen.exists():
                raise ArtifactError(
                    "no teacher", where=chosen, got="nothing", todo="run the flow first, or name a --trial"
                )
            trial = int(store.read_json(chosen)["trial"])
        found = cls(home, trial, student_of(params, trial, overrides))
        for needed in (*(found.teacher / name for name in "fh"), *(home / ARTIFACTS[name] for name in SHARED)):
            if not needed.exists():
                raise ArtifactError("no teacher", where=needed, got="nothing", todo="run the flow first")
        return found

    @property
    def root(self) -> Path:
        """The student's folder."""
        return self.home / FOLDER

    @property
    def teacher(self) -> Path:
        """The folder of the teacher's trial."""
        return (self.home / ARTIFACTS["f"].format(trial=self.trial)).parent

    def run(self, log: Log = SILENT) -> None:
        """Bring the student's flow up to evaluate; what is there already, of the same teacher and params, is kept."""
        if stages.several():
            raise ParamsError("distill is a flow of one process", got="several", todo="run it without torchrun")
        self._prepare()
        source, place = self.digest(), self.root / DONE
        done: dict[str, str] = store.read_json(place) if place.exists() else {}
        for name in STAGES:
            stage = stages.find(name)
            key = f"{stages.lineage(name, self.params)}-{source}"
            number = self.trial if stage.per_trial else None
            places = stage.paths(self.root, self.params.trials, number)
            if done.get(name) == key and all(places[artifact].exists() for artifact in stage.writes):
                log.line(f"{name}: done before")
                continue
            log.line(f"{name}:")
            more: dict[str, Any] = {"teacher": self.teacher} if name == STAGES[0] else {}
            stages.run(name, self.params, root=self.root, log=log, **more)
            done[name] = key
            store.write_json(place, done)

    def digest(self) -> str:
        """Give a hash of the teacher's files and of what it was taught with."""
        from aupair.ranking.checkpoint import digest
        from aupair.ranking.teacher import teacher_folders

        return digest(
            teacher_folders(self.teacher) | {name: self.home / ARTIFACTS[name] for name in ("labels", "pairs")}, {}
        )[:16]

    def _prepare(self) -> None:
        """Make the folder: links to what both share, and the student's params.yaml."""
        for name in SHARED:
            target, link = self.home / ARTIFACTS[name], self.root / ARTIFACTS[name]
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.unlink(missing_ok=True)  # a link to what has gone
                link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
        text = yaml.safe_dump(self.params.model_dump(mode="json"), sort_keys=False)
        store.write_text(self.root / "params.yaml", text)

    def register(self, log: Log = SILENT) -> int:
        """Register the student as a version of the model, with tags that name its teacher; give the version's number."""
        from aupair.registry import mlflow_store

        stages.run("register-model", self.params, root=self.root, log=log)
        number = int(store.read_json(self.root / ARTIFACTS["registered"])["version"])
        tags = {"student.of.trial": str(self.trial), "student.of.files": self.digest()}
        theirs = self.home / ARTIFACTS["registered"]
        if theirs.exists() and self._chosen():
            tags["student.of.version"] = str(store.read_json(theirs)["version"])
        client, name = mlflow_store.open_mlflow(), self.params.register_model.name
        with mlflow_store.mlflow_errors(f"model {name}"):
            for key, value in tags.items():
                client.set_model_version_tag(name, str(number), key, value)
        return number

    def compare(self) -> dict[str, dict[str, Any]]:
        """Set teacher and student side by side, and keep that in the student's reports.

        Returns:
            for each parameters, gmac_per_frame, f1 of P2 on select and validation (None: evaluate chose another trial),
            and frames_per_second of f and h together.
        """
        found = {
            "teacher": self._figures(self.home, self._chosen()),
            "student": self._figures(self.root, judged=True),
        }
        store.write_json(self.root / "reports" / "student.json", {"trial": self.trial, **found})
        return found

    def _chosen(self) -> bool:
        """Whether the teacher is the trial that the user's reports are of."""
        metrics = self.home / ARTIFACTS["metrics"]
        return metrics.exists() and store.read_json(metrics)["chosen_trial"] == self.trial

    def _figures(self, root: Path, judged: bool) -> dict[str, Any]:
        from aupair.evaluation.cost import cost_of_files

        f, h, mapping = (root / ARTIFACTS[name].format(trial=self.trial) for name in ("f", "h", "mapping"))
        cost = cost_of_files(f, h, mapping)
        rows = store.read_json(root / ARTIFACTS["metrics"])["rows"] if judged else []
        f1 = {row["split"]: row["f1"] for row in rows if row["name"] == "P2"}
        device = self.params.train_pseudo_intensity.device
        return {
            "parameters": cost["parameters"],
            "gmac_per_frame": cost["gmac_per_frame"],
            "f1_select": f1.get("select"),
            "f1_validation": f1.get("validation"),
            "frames_per_second": scoring_speed(f, h, self.params.preprocess_faces.size, device),
        }


def scoring_speed(f: Path, h: Path, size: int, device: str) -> float:
    """Measure the frames a second that f and h score together, faces found: the best of three times a chunk."""
    import numpy as np

    from aupair.ranking.fit import CHUNK
    from aupair.ranking.scores import Scorer

    scorer = Scorer(f, h, device)
    images = np.random.default_rng(0).integers(0, 256, (CHUNK, size, size, 3)).astype(np.uint8)
    seconds = []
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        scorer(images)
        seconds.append(time.perf_counter() - start)
    return CHUNK / min(seconds[1:])

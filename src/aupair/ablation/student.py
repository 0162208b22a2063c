"""The student of `aupair distill`: a small network that learns the outputs of a finished run's f and h."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aupair import stages, store
from aupair.ablation.workspace import Workspace
from aupair.documents import read_yaml
from aupair.errors import ArtifactError, ParamsError
from aupair.log import SILENT, Log
from aupair.params import Params, parse_params
from aupair.ranking.embeddings import TRUNK
from aupair.record import apply_overrides, apply_settings
from aupair.stage import ARTIFACTS
from aupair.training_params import VggNetwork

REPORTS = Path("reports") / "student"
TEACHER = Path("work") / "teacher"
"""the folder in the workspace with a copy of the teacher's f and h"""
LONGER = 3
"""the student's steps as a multiple of its teacher's; with the same number it underfits (docs/log)"""
SIDE = 96
"""faces are reduced by the largest whole factor that leaves at least this side, in pixels"""
_TIMED_FACES = 64


def _student_settings(teacher: Params) -> dict[str, Any]:
    """Return the settings that make a student smaller and faster than its teacher, by key."""
    f = teacher.train_pseudo_intensity
    width = f.network.width if isinstance(f.network, VggNetwork) else 1.0
    network = {
        "kind": "vgg16", "width": min(0.125, width / 2), "batch_norm": True, "weights": "none", "frozen_convolutions": 0, "frozen": False,
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
        "embed_faces.copies": 0,
        "train_uncertainty.kind": "integrated",
        "train_mapping.width": min(teacher.train_mapping.width, 256),
    }  # fmt: skip


def _student_params(teacher: Params, overrides: Sequence[str] = ()) -> Params:
    """Return the params of the student: one trial of one network.

    Raises:
        ParamsError: an override is unknown or wrong.
    """
    where = "the student's params"
    tree = apply_settings(
        Params,
        teacher.model_dump(mode="json"),
        _student_settings(teacher) | {"trials": [0], "ensemble": "final"},
        where,
    )
    return parse_params(apply_overrides(Params, tree, overrides), where)


@dataclass(frozen=True)
class Distillation:
    """A teacher and its student.

    Attributes:
        home: the project in which the teacher was trained.
        teacher, params: the params of teacher and student.
    """

    home: Path
    teacher: Params
    params: Params

    @classmethod
    def from_project(cls, home: Path, params: Params, overrides: Sequence[str] = ()) -> "Distillation":
        """Return the distillation of the networks of a project's last run.

        Args:
            params: the params of the teacher.
            overrides: changes to the student's params.

        Raises:
            ArtifactError: there are no networks.
            ParamsError: an override is unknown or wrong.
        """
        distillation = cls(home, params, _student_params(params, overrides))
        for network in distillation._teacher().values():
            if not network.exists():
                raise ArtifactError("no teacher", where=network, got="nothing", todo="run the flow first")
        return distillation

    def run(self, register: bool = False, log: Log = SILENT) -> dict[str, dict[str, Any]]:
        """Train and evaluate the student in the workspace; copy its reports and the comparison to REPORTS.

        Args:
            register: register the student as a version of the model, too, with tags that name its teacher.

        Returns:
            `teacher` and `student`, each with parameters, gmac_per_frame, f1_select and f1_validation of P2 (None if
            there are no reports) and frames_per_second of f and h together.
        """
        if stages.is_multiprocess():
            raise ParamsError("distill runs in one process", got="several", todo="run it without torchrun")
        workspace = Workspace(self.home)
        with workspace.locked():
            workspace.prepare(self.params)
            self._add_teacher(workspace.root)
            workspace.run(self.params, "student", log)
            figures = {
                "teacher": self._figures(self.home, self.teacher),
                "student": self._figures(workspace.root, self.params),
            }
            with store.atomic(self.home / REPORTS) as folder:
                shutil.copytree(workspace.root / "reports", folder, ignore=shutil.ignore_patterns("data_docs"))
                store.write_json(folder / "student.json", figures)
            if register:
                self._register(workspace.root, log)
        return figures

    def _teacher(self) -> dict[str, Path]:
        """Return the folders of the teacher's networks, by their relative paths in the copy in the workspace."""
        paths = stages.get_stage("register-model").paths(self.home, self.teacher.trials)
        networks = {f"f/{k}": folder for k, folder in enumerate(paths["f"])} | {"h": paths["h"]}
        trunk = {f"embeddings/{TRUNK}": paths["embeddings"] / TRUNK}
        return networks | (trunk if self.teacher.train_pseudo_intensity.network.frozen else {})

    def _add_teacher(self, root: Path) -> None:
        """Copy the teacher to a workspace, and add it as an input to the stage train-pseudo-intensity there."""
        path = root / "dvc.yaml"
        tree = read_yaml(path)
        try:
            stage = tree["stages"]["train-pseudo-intensity"]
            stage["cmd"] += f" --teacher {TEACHER}"
            stage["deps"].append(str(TEACHER))
        except (LookupError, TypeError, AttributeError) as error:
            expected = "the stage train-pseudo-intensity with cmd and deps"
            raise ParamsError("not the flow of aupair", where=path, got=error, expected=expected) from error
        with store.atomic(root / TEACHER) as copy:
            for place, folder in self._teacher().items():
                shutil.copytree(folder, copy / place)
        store.write_text(path, yaml.safe_dump(tree, sort_keys=False))

    def _register(self, root: Path, log: Log) -> None:
        """Register the student, and tag its version with the hash of the teacher's files and the teacher's version."""
        from aupair.ranking.checkpoint import digest
        from aupair.registry import mlflow_store

        stages.run_stage("register-model", self.params, root=root, log=log)
        version = str(_read_version(root / ARTIFACTS["registered"]))
        inputs = self._teacher() | {name: root / ARTIFACTS[name] for name in ("labels", "pairs")}
        tags = {"student.of.files": digest(inputs, {})[:16]}
        registered = self.home / ARTIFACTS["registered"]
        if registered.exists() and (teacher := _read_version(registered)) is not None:
            tags["student.of.version"] = str(teacher)
        client, name = mlflow_store.open_mlflow(), self.params.register_model.name
        with mlflow_store.mlflow_errors(f"model {name}"):
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, value)

    def _figures(self, root: Path, params: Params) -> dict[str, Any]:
        """Return the size, cost, F1 and speed of the networks in a folder; F1 only if evaluate has run there."""
        from aupair.evaluation.cost import cost_of_files
        from aupair.evaluation.summary import read_metrics

        paths = stages.get_stage("register-model").paths(root, params.trials)
        f, h = paths["f"], paths["h"]
        trunk = paths["embeddings"] / TRUNK if params.train_pseudo_intensity.network.frozen else None
        cost = cost_of_files(f[0], h, paths["mapping"])
        rows = read_metrics(paths["metrics"])["rows"] if paths["metrics"].exists() else []
        f1 = {row["split"]: row["f1"] for row in rows if row["name"] == "P2"}
        device = self.params.train_pseudo_intensity.device
        return {
            "parameters": cost["parameters"],
            "gmac_per_frame": cost["gmac_per_frame"],
            "f1_select": f1.get("select"),
            "f1_validation": f1.get("validation"),
            "frames_per_second": _scoring_speed(f, h, trunk, self.params.preprocess_faces.size, device),
        }


class _Registered(store.Artifact):
    """The version in registered.json; None if no version was registered."""

    version: int | None


def _read_version(path: Path) -> int | None:
    """Return the version that register-model wrote to a registered.json."""
    return store.read_record(path, _Registered).version


def _scoring_speed(f: Sequence[Path], h: Path, trunk: Path | None, size: int, device: str) -> float:
    """Measure the faces per second that f and h together score: the best of three passes over random images."""
    import numpy as np

    from aupair.ranking.scores import Scorer
    from aupair.ranking.sigma import read_about

    scorer = Scorer(f, h, read_about(h).ensemble, device, trunk)
    images = np.random.default_rng(0).integers(0, 256, (_TIMED_FACES, size, size, 3)).astype(np.uint8)
    seconds = []
    for _ in range(4):  # the first pass warms up
        start = time.perf_counter()
        scorer(images)
        seconds.append(time.perf_counter() - start)
    return _TIMED_FACES / min(seconds[1:])

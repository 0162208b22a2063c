"""Readers under attack: for each kind of input a whole one, and the call that must accept or refuse a damaged copy."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from attack.commands import run_line, run_settings, use_address
from attack.mutators import mutate
from attack.sandbox import Verdict, judge
from conftest import REPOSITORY

Read = Callable[[Path, Path, int], object]
"""Reads an input below a root, of which one file was damaged; the seed says how thoroughly."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        victims: patterns, below the root, of the files that are damaged.
        read: the call.
        dose: how many `make test` tries.
        strict: whether every change of bytes must be refused.
        damaged: whether files are damaged; otherwise the call does something else that is bad.
    """

    victims: tuple[str, ...]
    read: Read
    dose: int = 20
    strict: bool = False
    damaged: bool = True


@dataclass(frozen=True)
class Attempt:
    """A damage to one file of an input, and the verdict of its reader.

    Attributes:
        kind: the name of the kind of input.
        whole: the folder of the whole input, which is left as it is.
        root: a copy of it.
    """

    kind: str
    whole: Path
    root: Path

    def __call__(self, seed: int) -> Verdict:
        kind, rng = KINDS[self.kind], random.Random(f"{self.kind} {seed}")
        victim = rng.choice(list_victims(self))
        whole = (self.whole / victim).read_bytes()
        damaged = mutate(whole, victim.suffix, rng) if kind.damaged else whole
        self._replace(victim, damaged)
        before = self._files()
        verdict = judge(lambda: kind.read(self.root, victim, seed))
        after = self._files()
        self._replace(victim, whole)
        if verdict.failed:
            return Verdict(verdict.kind, f"{victim}: {verdict.detail}")
        if kind.strict and verdict.kind == "accepted" and not _means_the_same(damaged, whole, victim.suffix):
            return Verdict("accepted a change", str(victim))
        if verdict.kind == "refused" and after != before:
            return Verdict("half-written", f"{victim}: {sorted(map(str, before ^ after))}")
        return verdict

    def _replace(self, victim: Path, data: bytes) -> None:
        """Write a new file, since the old one may be mapped into memory."""
        (self.root / victim).unlink()
        (self.root / victim).write_bytes(data)

    def _files(self) -> set[Path]:
        return set(self.root.rglob("*"))


def _means_the_same(damaged: bytes, whole: bytes, suffix: str) -> bool:
    """Return whether two files have the same bytes, or the same values as JSON."""
    return damaged == whole or (suffix == ".json" and json.loads(damaged) == json.loads(whole))


def list_victims(attempt: Attempt) -> list[Path]:
    """Return the files that can be damaged, below the root."""
    whole, patterns = attempt.whole, KINDS[attempt.kind].victims
    paths = {path for pattern in patterns for path in whole.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(whole) for path in paths)


def restore(attempt: Attempt) -> None:
    """Copy the whole input again, of which a crash may have left a damaged file."""
    shutil.rmtree(attempt.root, ignore_errors=True)
    shutil.copytree(attempt.whole, attempt.root)


def read_data(root: Path, victim: Path, seed: int) -> None:
    """Read a data folder; every twentieth time with the rules of Great Expectations and the Data Docs."""
    from aupair.data.checks import check_data_folder
    from aupair.data.corpus import read_corpus
    from aupair.params import CheckData

    if seed % 20:
        read_corpus(root)
        return
    out = root.parent / "checked"
    check_data_folder(root, labels=out / "labels.parquet", info=out / "i.json", docs=out / "d", params=CheckData())


def import_csv(root: Path, victim: Path, seed: int) -> None:
    """Import tables by frame or by event."""
    from aupair.importing.csv_options import CsvOptions
    from aupair.importing.tabular import read_csv_labels

    frames, subjects = root / "frames.csv", root / "subjects.csv"
    coded = root / "coded.csv" if victim.name == "coded.csv" else None
    options = CsvOptions(
        videos=root / "movies", subjects=None if coded else subjects, coded=coded, levels=not coded and not seed % 3
    )
    source = root / "events.csv" if coded or victim.name == "events.csv" else frames
    _write_import(root, "csv", source, lambda notes: read_csv_labels(source, options, root / "out", notes))


def import_elan(root: Path, victim: Path, seed: int) -> None:
    """Import an .eaf file."""
    from aupair.importing.elan import ElanOptions, read_elan

    options = ElanOptions({}, videos=root / "movies")
    source = root / "elan"
    _write_import(root, "elan", source, lambda notes: read_elan(source, options, root / "out", notes))


def import_disfa(root: Path, victim: Path, seed: int) -> None:
    """Import DISFA."""
    from aupair.importing.disfa import DisfaOptions, read_disfa

    source = root / "disfa"
    _write_import(root, "disfa", source, lambda notes: read_disfa(source, DisfaOptions(), root / "out", notes))


def _write_import(root: Path, kind: str, source: Path, read: Callable[..., list]) -> None:
    from aupair.importing.recordings import Notes
    from aupair.importing.writer import WriteOptions, write_data
    from aupair.log import SILENT

    notes, out = Notes(), root / "out"
    try:
        write_data(kind, source, read(notes), notes, WriteOptions(out, "none"), SILENT)
        assert {path.name for path in out.iterdir()} <= {"annotations", "videos", "subjects.csv", "import.json"}
        notes.lines()
    finally:
        shutil.rmtree(out, ignore_errors=True)


def read_settings(root: Path, victim: Path, seed: int) -> None:
    """Read params.yaml, the gate, a compiled pipeline, data.dvc, or a cluster's options, with which every tenth time one is compiled."""
    from aupair.data.hashing import read_tracked
    from aupair.kubeflow.cluster import load_cluster
    from aupair.kubeflow.compile import compile_pipeline
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file
    from aupair.params import load_params, project_model_name
    from aupair.registry.gate import load_gate

    path = root / victim
    if victim.name == "params.yaml":
        load_params(path)
        project_model_name(path)
    elif victim.name == "registry.yaml":
        load_gate(path)
    elif victim.name == "data.dvc":
        read_tracked(path)
    elif victim.name == "cluster.yaml":
        options = load_cluster(path)
        if not seed % 10:
            compile_pipeline("train", load_params(root / "params.yaml"), options, root.parent / "compiled.yaml")
    else:
        parse_arguments(read_pipeline_file(path), ["source=videos"])


def read_video(root: Path, victim: Path, seed: int) -> None:
    """Decode a video; every tenth time faces are looked for in it."""
    from aupair.data.layout import read_movie_header
    from aupair.faces.decode import describe_missing_frames, read_frames
    from aupair.faces.video import iter_faces
    from aupair.params import PreprocessFaces

    read_movie_header(root / victim)
    if seed % 10:
        count, last = 0, -1.0
        for frame in read_frames(root / victim):
            assert frame.index == count
            assert last < frame.time
            count, last = count + 1, frame.time
    else:
        count = sum(1 for _ in iter_faces(root / victim, PreprocessFaces(size=32)))
    describe_missing_frames(root / victim, count)


def read_artifact(root: Path, victim: Path, seed: int) -> None:
    """Read the outputs of stages as the next stages do: those that the damaged file belongs to."""
    from aupair import store
    from aupair.data.frames import load_frames
    from aupair.data.quality import load_quality
    from aupair.evaluation.selection import read_outputs
    from aupair.evaluation.summary import read_metrics
    from aupair.inference.recognizer import read_selection
    from aupair.ranking.ensemble import load_ensemble
    from aupair.ranking.samples import load_training_set
    from aupair.ranking.scores import load_f, read_sigma
    from aupair.ranking.sigma import load_sigma_model

    work = root / "work"
    labels, faces, pairs, f, h = (work / name for name in ("labels.parquet", "faces", "pairs", "f", "h"))
    part = victim.parts[1]
    if part == "selection.json":
        read_selection(root / victim)
    elif victim.name == "metrics.json":
        read_metrics(root / victim)
    elif victim.name == "curves.jsonl":
        store.read_jsonl(root / victim)
    elif part in ("labels.parquet", "faces", "pairs"):
        load_quality(faces, load_training_set(labels, faces, pairs).frames)
    elif part == "f":
        load_ensemble([f / "0", f / "1"], len(load_frames(labels, faces)), "all")
        load_f(root / Path(*victim.parts[:3]), victim.stem if victim.stem in ("fold0", "fold1") else "final")
    elif part == "h":
        read_sigma(h, len(load_frames(labels, faces)))
        load_sigma_model(h)
    else:
        frames = load_frames(labels, faces)
        read_outputs(
            frames, f=[f / "0", f / "1"], h=h, features=work / "features", mapping=work / "mapping", ensemble="all"
        )


def read_bundle(root: Path, victim: Path, seed: int) -> None:
    """Load a bundle."""
    from aupair.inference.recognizer import BundleRecognizer

    BundleRecognizer.load(root, "cpu")


def read_results(root: Path, victim: Path, seed: int) -> None:
    """Continue in a folder of predictions, and turn it into a submission."""
    from aupair import store
    from aupair.inference.output import claim_output, find_finished
    from aupair.inference.submission import write_submission

    out = root.parent / "submission"
    shutil.rmtree(out, ignore_errors=True)
    settings = store.read_json(root.parent / "whole" / "predict.json")
    earlier = claim_output(root, settings)
    find_finished([(Path("a.mp4"), "a")], root, earlier)
    write_submission(root, out)


KINDS: dict[str, Kind] = {
    "tables": Kind(("*.csv", "annotations/**/*"), read_data, 40),
    "csv imports": Kind(("*.csv",), import_csv, 60),
    "elan imports": Kind(("elan/*.eaf",), import_elan),
    "disfa imports": Kind(("disfa/*.txt",), import_disfa),
    "settings": Kind(("*.yaml", "mlflow/registry.yaml", "params/cluster.yaml", "data.dvc"), read_settings, 40),
    "videos": Kind(("*",), read_video, 40),
    "artifacts": Kind(("work/**/*", "reports/metrics.json"), read_artifact, 60),
    "bundles": Kind(("**/*",), read_bundle, strict=True),
    "results": Kind(("*.csv", "predict.json"), read_results),
    "command lines": Kind(("params.yaml",), run_line, 30, damaged=False),
    "extreme settings": Kind(("params.yaml",), run_settings, 4, damaged=False),
    "addresses": Kind(("params.yaml",), use_address, 4, damaged=False),
}


def write_whole(name: str, folder: Path, home: Path) -> None:
    """Write a whole input of a kind into a folder, from a finished flow where the kind needs one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[name](folder, home)


def _copy_data(folder: Path, home: Path) -> None:
    shutil.copytree(home / "data", folder)


def _write_imports(folder: Path, home: Path) -> None:
    from importing.eaf import write_eaf
    from importing.folders import frame_table, movie, text

    values = np.random.default_rng(0).integers(0, 2, (12, 3))
    for name in ("a", "b"):
        movie(folder / "movies" / f"{name}.mp4", 12)
    movie(folder / "disfa" / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi", 12)
    frame_table(folder / "frames.csv", {"a": values, "b": values[::-1]}, ["AU1", "AU4", "AU12"])
    text(folder / "subjects.csv", "video,subject", "a,p1", "b,p2")
    text(folder / "events.csv", "video,au,start,end", "a,AU1,0.0,0.2", "a,AU4,0.1,0.3", "b,AU12,0.04,0.4")
    text(folder / "coded.csv", "video,au,start,end", "a,AU1,0.0,0.4", "a,AU4,0.0,0.4", "b,AU12,0.0,0.48")
    write_eaf(folder / "elan" / "a.eaf", {"AU1": [(0, 200, "1")], "AU12": [(40, 400, "2")]}, "movies/a.mp4", "p1")
    for au in (1, 4):
        text(folder / "disfa" / f"SN001_au{au}.txt", *(f"{k + 1},{(k * au) % 6}" for k in range(12)))


def _write_settings(folder: Path, home: Path) -> None:
    from aupair import store
    from aupair.kubeflow.cluster import load_cluster
    from aupair.kubeflow.compile import compile_pipeline
    from aupair.params import load_params

    for name in ("mlflow/registry.yaml", "params/cluster.yaml", "params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    compile_pipeline("predict", load_params(folder / "params.yaml"), load_cluster(None), folder / "predict.yaml")
    outs = [{"md5": "0" * 32 + ".dir", "size": 1, "nfiles": 1, "hash": "md5", "path": "data"}]
    store.write_text(folder / "data.dvc", yaml.safe_dump({"outs": outs}))


def _write_videos(folder: Path, home: Path) -> None:
    from videos import write_video

    rng = np.random.default_rng(0)
    images = [np.full((48, 64, 3), 20 * k, np.uint8) + rng.integers(0, 9, (48, 64, 3), np.uint8) for k in range(8)]
    for name in ("a.mp4", "b.avi", "c.mkv", "d.mov"):
        write_video(folder / name, images)
    shutil.copyfile(sorted((home / "data" / "videos").iterdir())[0], folder / "e.mp4")


def _copy_flow(folder: Path, home: Path) -> None:
    shutil.copytree(home / "work", folder / "work")
    shutil.copytree(home / "reports", folder / "reports")


def _write_bundle(folder: Path, home: Path) -> None:
    from aupair.inference.bundle import write_bundle
    from aupair.params import load_params
    from bundle_parts import parts_of_flow

    params = load_params(home / "params.yaml")
    write_bundle(folder, parts_of_flow(home, params), params)


def _copy_project(folder: Path, home: Path) -> None:
    shutil.copytree(home, folder)


def _write_project(folder: Path, home: Path) -> None:
    shutil.copytree(home, folder)
    _write_bundle(folder / "bundle", home)
    for video in sorted((folder / "data" / "videos").iterdir())[1:]:
        video.unlink()
    (folder / "results").mkdir()
    _write_imports(folder, home)


def _write_results(folder: Path, home: Path) -> None:
    from aupair.api import Recognizer
    from aupair.inference.output import claim_output, describe_settings
    from aupair.inference.predict import predict_videos

    bundle = folder.parent / "bundle"
    _write_bundle(bundle, home)
    recognizer = Recognizer.load(bundle, "cpu")
    claim_output(folder, describe_settings("bundle", recognizer.sha256, recognizer.aus, None, None))
    predict_videos(sorted((home / "data" / "videos").iterdir())[:2], recognizer, folder, None)


_WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "tables": _copy_data,
    "csv imports": _write_imports,
    "elan imports": _write_imports,
    "disfa imports": _write_imports,
    "settings": _write_settings,
    "videos": _write_videos,
    "artifacts": _copy_flow,
    "bundles": _write_bundle,
    "results": _write_results,
    "command lines": _write_project,
    "extreme settings": _copy_project,
    "addresses": _write_project,
}

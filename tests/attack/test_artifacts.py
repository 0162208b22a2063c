"""Artifacts with numbers, types and keys that no stage writes: one line each, before memory is allocated."""

import json
import multiprocessing
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attack.budget import Tally, cases
from attack.mutators import mutate
from attack.sandbox import Verdict, judge
from aupair import store
from aupair.data.hashing import read_data_md5
from aupair.errors import ArtifactError
from aupair.evaluation.cost import cost_of_files
from aupair.evaluation.summary import read_metrics, read_scores
from aupair.inference.recognizer import BundleRecognizer, read_selection
from aupair.mapping.extractor import Extractor
from aupair.mapping.features import read_about as read_features_about
from aupair.mapping.model import Mapping
from aupair.params import ExtractFeatures, Params, parse_params
from aupair.ranking.scores import load_f
from aupair.ranking.sigma import load_sigma_model
from bundle_parts import write_real_parts
from conftest import TINY

HUGE = (2**31, 2**62, 2**63 - 1)


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(TINY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """The parts of a bundle, with small networks of random weights. Tests must not change it."""
    folder = tmp_path_factory.mktemp("parts")
    write_real_parts(folder, ("AU1", "AU12"), params)
    return folder


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "parts"))


def load_f_0(parts: Path) -> object:
    return load_f(parts / "f" / "0")


def load_h(parts: Path) -> object:
    return load_sigma_model(parts / "h")


def load_mapping(parts: Path) -> object:
    return Mapping.load(parts / "mapping")


Load = Callable[[Path], object]

SIZES: list[tuple[str, tuple[str, ...], Load]] = [
    ("f/0/about.json", ("size",), load_f_0), ("f/0/about.json", ("network", "width"), load_f_0),
    ("h/about.json", ("size",), load_h), ("h/about.json", ("network", "width"), load_h),
    ("mapping/about.json", ("routes", "raw", "features"), load_mapping),
    ("mapping/about.json", ("routes", "raw", "width"), load_mapping), ("mapping/about.json", ("seeds",), load_mapping),
]  # fmt: skip


def change(path: Path, keys: tuple[str, ...], value: object) -> None:
    """Change one value of a JSON file."""
    tree = store.read_json(path)
    own: dict[str, Any] = tree
    for key in keys[:-1]:
        own = own[key]
    own[keys[-1]] = value
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("value", [*HUGE, 0, -1, "x", None, [], 1.5], ids=str)
@pytest.mark.parametrize(
    ("file", "keys", "load"), SIZES, ids=lambda part: ".".join(part) if isinstance(part, tuple) else None
)
def test_sizes_of_networks_are_held_against_their_weights(
    parts: Path, file: str, keys: tuple[str, ...], load: Load, value: object
) -> None:
    change(parts / file, keys, value)
    verdict = judge(lambda: load(parts))
    assert verdict.kind == "refused", verdict.detail


def test_the_width_of_a_full_network_allocates_nothing(parts: Path) -> None:
    """Without the comparison VGG16 in full would take half a gigabyte before its weights are found to be others."""
    change(parts / "f/0/about.json", ("network", "width"), 2.0)
    with pytest.raises(
        ArtifactError, match=r"weights do not fit their network: in .*final\.safetensors, got networks\.0"
    ):
        load_f_0(parts)


@pytest.mark.parametrize("damage", ["missing", "shape", "type"])
@pytest.mark.parametrize("name", ["raw.y_min", "raw.y_max", "raw.log_sigma"])
def test_arrays_are_checked_for_name_shape_and_type(parts: Path, params: Params, name: str, damage: str) -> None:
    path = parts / "features" / "statistics.safetensors"
    arrays = store.read_arrays(path)
    own = arrays.pop(name)
    if damage != "missing":
        arrays[name] = own[:1] if damage == "shape" else own.astype(np.int64)
    store.write_arrays(path, arrays)
    with pytest.raises(ArtifactError, match=r"not the array that belongs here: in .*statistics\.safetensors, got "):
        Extractor.load(parts / "features", params.extract_features)


@dataclass(frozen=True)
class Attempt:
    """The reading of a damaged JSON file of some parts."""

    root: Path
    file: str
    params: ExtractFeatures

    def __call__(self, seed: int) -> Verdict:
        path, rng = self.root / self.file, random.Random(f"{self.file} {seed}")
        data = path.read_bytes()
        path.write_bytes(mutate(data, ".json", rng))
        try:
            return judge(lambda: READERS[self.file](self))
        finally:
            path.write_bytes(data)


READERS: dict[str, Callable[[Attempt], object]] = {
    "f/0/about.json": lambda own: load_f_0(own.root),
    "h/about.json": lambda own: load_h(own.root),
    "mapping/about.json": lambda own: (load_mapping(own.root), cost_of(own.root)),
    "features/smoother.json": lambda own: Extractor.load(own.root / "features", own.params),
    "selection.json": lambda own: read_selection(own.root / "selection.json"),
    "data.json": lambda own: read_data_md5(own.root / "data.json"),
    "metrics.json": lambda own: read_scores(own.root / "metrics.json"),
}
"""The files that a stage writes and another one reads, and a reader of each."""


def cost_of(root: Path) -> object:
    return cost_of_files(root / "f" / "0", root / "h", root / "mapping")


def _try_all(attempt: Attempt, tally: Tally) -> None:
    for case in cases(60):
        verdict = attempt(case)
        tally.add(case, f"{verdict.kind}: {verdict.detail}" if verdict.failed else "")
    tally.close()


@pytest.mark.parametrize("file", READERS)
def test_a_damaged_document_of_a_stage_is_accepted_or_refused_in_a_line(parts: Path, params: Params, file: str) -> None:
    tally = Tally("inputs", file, "test_artifacts.py")
    attempt = Attempt(parts, file, params.extract_features)
    READERS[file](attempt)
    process = multiprocessing.get_context("fork").Process(target=_try_all, args=(attempt, tally))
    process.start()
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}"


@pytest.mark.parametrize("read", [read_metrics, read_scores, read_data_md5, read_selection, read_features_about])
@pytest.mark.parametrize("content", ["[]", "null", "1", '"x"', "{}", '{"rows": [1]}', '{"routes": 1}', '{"md5": []}'])
def test_other_json_is_one_line(tmp_path: Path, read: Callable[[Path], object], content: str) -> None:
    for name in ("features.json", "about.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(ArtifactError):
        read(tmp_path if read is read_features_about else tmp_path / "about.json")


def test_a_bundle_given_as_a_folder_is_held_against_its_hashes(parts: Path, params: Params, tmp_path: Path) -> None:
    from aupair.inference.bundle import Parts, write_bundle

    named = {name: parts / f"{name}.json" for name in ("selection", "data", "metrics")}
    bundle = tmp_path / "bundle"
    write_bundle(bundle, Parts((parts / "f/0",), parts / "h", parts / "mapping", parts / "features", **named), params)
    BundleRecognizer.load(bundle, "cpu")
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ArtifactError):
            BundleRecognizer.load(bundle, "cpu")
        path.write_bytes(data)

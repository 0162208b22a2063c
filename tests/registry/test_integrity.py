"""Altered files: of a version in the registry, whatever MLflow would execute or read, and of a bundle given as a folder."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aupair import store
from aupair.errors import ArtifactError, RegistryError
from aupair.inference.bundle import write_bundle
from aupair.inference.recognizer import BundleRecognizer
from aupair.params import Params, parse_params
from aupair.registry import versions
from aupair.registry.model_files import MODEL_TAG
from aupair.registry.register import register_bundle
from bundle_parts import write_parts

MODEL = "models:/aupair/1"
RUN = "import mlflow; mlflow.pyfunc.load_model('models:/aupair/1')"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the files of a version, in a store of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        register_bundle(home / "bundle", write_parts(home / "work"), (), (), parse_params({}))
        yield versions.resolve_bundle(MODEL).parents[1]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", write_parts(tmp_path / "work"), Params())
    return tmp_path / "bundle"


@pytest.mark.parametrize(
    "name",
    ["serving.py", "code/aupair/errors.py", "MLmodel", "requirements.txt", "conda.yaml", "artifacts/bundle/data.json"],
)
def test_whatever_is_altered_is_refused(model: Path, name: str) -> None:
    whole = (model / name).read_bytes()
    for content in (whole + b"\n", None):
        (model / name).unlink()
        if content is not None:
            (model / name).write_bytes(content)
        with pytest.raises(RegistryError, match=r"not the one that was|not those that were|is damaged") as caught:
            versions.resolve_bundle(MODEL)
        assert "\n" not in str(caught.value)
        (model / name).write_bytes(whole)
    assert versions.resolve_bundle(MODEL).is_dir()


def test_a_file_beside_the_others_is_refused_and_what_python_and_mlflow_leave_is_not(model: Path) -> None:
    assert MODEL_TAG in versions.get_version(1).tags
    (model / "code" / "aupair" / "sitecustomize.py").write_text("")
    with pytest.raises(RegistryError, match="the model's files are not those that were registered"):
        versions.resolve_bundle(MODEL)
    (model / "code" / "aupair" / "sitecustomize.py").unlink()
    (model / "code" / "aupair" / "__pycache__").mkdir()
    (model / "code" / "aupair" / "__pycache__" / "errors.pyc").write_bytes(b"")
    (model / "registered_model_meta").write_text("model_name: aupair\n")
    assert versions.resolve_bundle(MODEL).is_dir()


@pytest.mark.slow
def test_mlflow_itself_runs_what_it_finds(model: Path, tmp_path: Path) -> None:
    """docs/registry.md says so; the networks of this bundle cannot be loaded, but the line has run by then."""
    whole, marker = (model / "serving.py").read_text(), tmp_path / "ran"
    (model / "serving.py").write_text(f"{whole}\nPath({str(marker)!r}).touch()\n")
    with pytest.raises(RegistryError, match="the model's files are not those that were registered"):
        versions.resolve_bundle(MODEL)
    assert not marker.exists()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{Path.cwd()}/mlflow.db"}
    subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, check=False)
    (model / "serving.py").write_text(whole)
    assert marker.exists()


def test_each_file_of_a_bundle_in_a_folder_is_checked_when_it_is_loaded(bundle: Path) -> None:
    names = [str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()]
    assert len(names) > 12
    for name in names:
        whole = (bundle / name).read_bytes()
        (bundle / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ArtifactError) as caught:
            BundleRecognizer.load(bundle, "cpu")
        assert str(bundle / name) in str(caught.value), name
        (bundle / name).write_bytes(whole)


def test_a_bundle_s_description_cannot_be_altered_unseen(bundle: Path) -> None:
    """Values, keys, types and whole parts are replaced; only what JSON reads as the same may pass."""
    path, rng = bundle / "about.json", random.Random(0)
    whole = store.read_json(path)
    text = path.read_text()
    for _ in range(200):
        start = rng.randrange(len(text))
        altered = (
            text[:start] + rng.choice(['"', "0", "2147483648", "", "[", "null", "x"]) + text[start + rng.randrange(4) :]
        )
        path.write_text(altered)
        try:
            same = store.read_json(path) == whole
        except ArtifactError:
            same = False
        if not same:
            with pytest.raises(ArtifactError) as caught:
                BundleRecognizer.load(bundle, "cpu")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": []}, "no members"),
        ({"members": [[2147483648, "final"]]}, "no file of f/2147483648/final"),
        ({"members": "final"}, "members: Input should be a valid list"),
        ({"format": 9}, "a later version wrote this bundle"),
        ({"format": 3}, "this file was altered"),
    ],
)
def test_a_wrong_description_of_an_earlier_format_is_one_line(
    bundle: Path, change: dict[str, object], message: str
) -> None:
    tree = store.read_json(bundle / "about.json")
    earlier = {"format": 2, "members": tree["members"], "files": sorted(n for n in tree["files"] if "/" in n)}
    store.write_json(bundle / "about.json", earlier)
    assert versions.resolve_bundle(str(bundle)) == bundle
    store.write_json(bundle / "about.json", earlier | change)
    with pytest.raises(ArtifactError, match=message):
        BundleRecognizer.load(bundle, "cpu")


def test_a_file_that_does_not_belong_to_a_bundle_is_refused(bundle: Path) -> None:
    (bundle / "h" / "signals.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"does not belong to this bundle: in .*signals\.safetensors; delete it"):
        BundleRecognizer.load(bundle, "cpu")

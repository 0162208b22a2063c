"""The registered bundle, loaded in a fresh process that cannot see the repository's working tree."""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from aupair.errors import ArtifactError
from aupair.inference.bundle import Parts, write_bundle
from aupair.inference.recognizer import BundleRecognizer
from aupair.params import Params
from aupair.registry.register import register_bundle
from aupair.registry.runs import StageRun
from bundle_parts import parts_of_flow

SIZE = 32

SCRIPT = """
import importlib.util, json, sys
sys.path.append({site!r})  # without its .pth files: the editable install is not seen
assert importlib.util.find_spec("aupair") is None, "the working tree can be seen"
import numpy as np, warnings
warnings.simplefilter("ignore")
import mlflow, types
from mlflow.pyfunc import scoring_server
sys.modules["mlflow.pyfunc.scoring_server.app"] = types.ModuleType("app")  # as in the process of `mlflow models serve`
model = mlflow.pyfunc.load_model({model!r})
import aupair
faces = np.load({faces!r})
table = model.predict(faces, params={{"fps": 10.0}})
def refusal(*arguments, **more):
    try:
        model.predict(*arguments, **more)
    except mlflow.MlflowException as error:
        return error.message, error.get_http_status_code()
rates = [{{}}, *({{"params": {{"fps": fps}}}} for fps in (0.0, -25.0, float("nan"), float("inf")))]
refused = refusal(faces[:, :-1], params={{"fps": 10.0}}), [refusal(faces, **rate) for rate in rates]
def serve(**request):
    schema = model.metadata.get_input_schema()
    try:
        response = scoring_server.invocations(json.dumps(request), "application/json", model, schema).response
        return len(json.loads(response)["predictions"])
    except mlflow.MlflowException as error:
        return json.loads(error.serialize_as_json())["message"]
fps = {{"fps": 10.0}}
served = [
    serve(inputs=faces.tolist(), params=fps), serve(inputs=faces.tolist()), serve(inputs=faces[:0].tolist(), params=fps),
    serve(inputs=faces[:, :-1].tolist(), params=fps), serve(inputs=faces.tolist(), params={{"fps": "many"}}),
    serve(inputs=(faces / 255).tolist(), params=fps),
]
print(json.dumps({{"served": served, "file": aupair.__file__, "refused": refused, "table": table.to_dict("list")}}))
"""


@pytest.fixture
def params(tiny: Params) -> Params:
    """The params of the bundle: faces are scored in chunks of four."""
    return tiny.model_copy(update={"extract_features": tiny.extract_features.model_copy(update={"batch": 4})})


@pytest.fixture
def parts(finished: Path, tiny: Params) -> Parts:
    """The parts of the finished flow."""
    return parts_of_flow(finished, tiny)


def faces(n: int = 11) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


@pytest.mark.slow
def test_a_fresh_process_without_the_working_tree_predicts_the_same(
    parts: Parts, params: Params, tmp_path: Path, monkeypatch
) -> None:
    database = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "table.md").write_text("| |\n")
    registered = register_bundle(tmp_path / "bundle", parts, [StageRun("evaluate")], [reports], params)
    assert registered.version == 1

    np.save(tmp_path / "faces.npy", faces())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = SCRIPT.format(
        site=sysconfig.get_path("purelib"), model="models:/aupair@challenger", faces=str(tmp_path / "faces.npy")
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    ran = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])

    assert Path(result["file"]).is_relative_to(tmp_path / "mlruns")
    shape, rates = result["refused"]
    assert shape, "faces of another size must not pass the signature"
    assert [status for _, status in rates] == [400] * 5
    assert [line.split(",")[0] for line, _ in rates] == [
        f"param fps: got {fps}" for fps in ("0", "0", "-25", "nan", "inf")
    ]
    count, *errors = result["served"]
    assert count == len(faces())
    assert errors[0].startswith("param fps: got 0, expected the video's frames a second")
    scaled = errors.pop()
    assert scaled.startswith(
        "faces: got only 2 different values, the largest 1, expected RGB as integers from 0 to 255"
    )
    for error in errors:
        assert not re.match(r"[\[\d\s.,]*\d{1,3}[, ]+\d{1,3}", error), "no pixels at the beginning"
        assert "Error: " in error[:300] or error.startswith("param fps"), error
    expected = BundleRecognizer.load(tmp_path / "bundle", "cpu").predict_faces(faces(), 10.0).columns()
    assert list(result["table"]) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(result["table"][name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_chunks_do_not_change_the_result(parts: Parts, params: Params, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", parts, params)
    recognizer = BundleRecognizer.load(tmp_path / "bundle", "cpu")
    whole = [recognizer.scorer(face[None]) for face in faces()]
    scores = recognizer.predict_faces(faces(), 10.0).scores
    np.testing.assert_allclose(scores.y_hat, np.concatenate([one.y_hat for one in whole]), atol=1e-5)
    np.testing.assert_allclose(scores.sigma, np.concatenate([one.sigma for one in whole]), atol=1e-5)


@pytest.mark.parametrize(
    "part", ["f/0/final.safetensors", "features/statistics.safetensors", "mapping/raw.safetensors"]
)
def test_a_corrupt_part_is_one_line(parts: Parts, params: Params, tmp_path: Path, part: str) -> None:
    write_bundle(tmp_path / "bundle", parts, params)
    (tmp_path / "bundle" / part).write_bytes(b"no weights")
    with pytest.raises(ArtifactError) as caught:
        BundleRecognizer.load(tmp_path / "bundle", "cpu")
    assert "\n" not in str(caught.value)
    assert part in str(caught.value)

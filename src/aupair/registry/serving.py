"""The MLflow model that serves a bundle (models from code): MLflow executes this file, and nothing else imports it.

Input: the aligned faces of one video, in order, (n, S, S, 3) uint8, RGB; param `fps`, frames per second, required.
Output: a table with a row for each face, and for each AU of the model the columns AU1, AU1_raw, AU1_pseudo_intensity,
AU1_uncertainty, AU1_confidence (here of AU1). A model trained on intensities adds AU1_intensity, 0..5, after AU1; one with
a smoother adds AU1_smoothed and AU1_smoothed_sd. The quality signals are unknown, since the faces have no landmarks; the
smoother then uses only sigma.

    mlflow models serve --env-manager local -m models:/aupair@champion

takes `{"inputs": FACES, "params": {"fps": 25.0}}` at /invocations, the faces as nested lists; see docs/predict.md.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from aupair.inference.recognizer import BundleRecognizer

_SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module of MLflow's server process."""
_FEWEST_VALUES = 16
"""minimum number of different values in faces; MLflow casts images scaled to 0..1 to bytes, which are then only 0 and 1"""


class _Refusal(MlflowException):
    """A rejected request, with a fixed message: MLflow's server would otherwise put all pixels before it."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        self._sentence = f"{what}: got {got}, expected {expected}"
        super().__init__(self._sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """Return the message."""
        return self._sentence

    @message.setter
    def message(self, text: str) -> None:
        """Ignore the new message."""


class _Serving(PythonModel):
    """The bundle as MLflow's Python function."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that was logged with this file."""
        self._recognizer = BundleRecognizer.load(Path(context.artifacts["bundle"]))
        if _SERVER in sys.modules:
            np.set_printoptions(threshold=0, edgeitems=0)  # since MLflow's own errors print the pixels

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the decisions for the faces of one video.

        Raises:
            MlflowException: the faces or `fps` do not fit; over HTTP this is status 400.
        """
        fps = float((params or {}).get("fps") or 0.0)
        if not 0 < fps < np.inf:
            expected = "the video's frames a second, such as params={'fps': 25.0}"
            raise _Refusal("param fps", f"{fps:g}", expected)
        size = self._recognizer.params.preprocess_faces.size
        if model_input.ndim != 4 or model_input.shape[1:] != (size, size, 3) or not len(model_input):
            raise _Refusal("faces", model_input.shape, f"(n, {size}, {size}, 3), the aligned faces of one video")
        if (values := len(np.unique(model_input))) < _FEWEST_VALUES:
            expected = "RGB as integers from 0 to 255, never scaled to 0..1"
            raise _Refusal("faces", f"only {values} different values, the largest {model_input.max()}", expected)
        return pd.DataFrame(self._recognizer.predict_faces(model_input, fps).columns())


set_model(_Serving())

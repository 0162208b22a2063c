"""The Python interface: `from aupair import Recognizer`."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aupair.inference.recognizer import BundleRecognizer
from aupair.registry.versions import resolve_bundle

if TYPE_CHECKING:
    import pandas as pd


class Recognizer(BundleRecognizer):
    """A trained model that recognises Action Units in videos."""

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", aus: Collection[str] | None = None) -> Self:
        """Load a model.

        Args:
            model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder of a bundle such as `work/bundle`.
            device: auto (a GPU where there is one), cpu, cuda, cuda:1 ...
            aus: the AUs to predict, such as `["AU4", "AU12"]`; None: all that the model knows. Their order is the model's.

        Raises:
            ParamsError: the model does not know an AU.
            RegistryError: the registry, model, version or alias is missing.
            ArtifactError: the folder is not a complete bundle.
        """
        return super().load(resolve_bundle(str(model)), device).only(aus)

    def predict(self, video: str | Path, aus: Collection[str] | None = None) -> "pd.DataFrame":
        """Recognise the Action Units of a video.

        Args:
            aus: the AUs to predict; None: those that the model was loaded with.

        Returns:
            A data frame with a row for every frame and the columns that `aupair predict` writes; values are missing where
            there is no face.

        Raises:
            DataError: the video cannot be read.
            ParamsError: the model does not know an AU.
        """
        return self.only(aus).predict_video(Path(video)).to_table()

"""Facial Action Unit recognition in video by pairwise ranking with learned uncertainty."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aupair.api import Recognizer

__version__ = "0.1.0"
__all__ = ["Recognizer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used, so that `import aupair` and the command's help stay quick."""
    if name == "Recognizer":
        return importlib.import_module("aupair.api").Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

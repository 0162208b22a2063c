"""Facial Action Unit recognition in video by pairwise ranking with learned uncertainty."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aupair.api import Recognizer

__version__ = "0.1.0"
__all__ = ["Recognizer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use, so that `import aupair` and `aupair --help` stay fast."""
    if name == "Recognizer":
        return importlib.import_module("aupair.api").Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A stand-in for kfp.dsl.Artifact."""

from pathlib import Path
from typing import Any


class Artifact:
    """The part of kfp.dsl.Artifact that components use."""

    def __init__(self, path: Path, **metadata: Any) -> None:
        self.path, self.metadata = str(path), metadata

    def log_metric(self, name: str, value: float) -> None:
        """Record a metric, as kfp.dsl.Metrics does."""
        self.metadata[name] = value

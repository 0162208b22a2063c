"""A check at the start of a run that the pod's volumes can be written."""

import os
import tempfile
from pathlib import Path

from aupair.errors import DataError
from aupair.kubeflow.cluster import VOLUMES


def check_volumes(*sources: str) -> None:
    """Check that the volumes of the compiled pipeline can be written.

    A new volume may belong to root, depending on its storage class. Volumes that hold a source are only read, and are not
    checked.

    Args:
        sources: paths or addresses from which the pipeline reads.

    Raises:
        DataError: a volume cannot be written.
    """
    for text in filter(None, os.environ.get(VOLUMES, "").split(":")):
        folder = Path(text)
        if any(Path(source).is_relative_to(folder) for source in sources):
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            user = f"user {os.getuid()}, groups {', '.join(map(str, sorted({os.getgid(), *os.getgroups()})))}"
            todo = "make that user its owner (see the runbook on volumes), or compile with run_as_user"
            raise DataError(
                "the volume cannot be written", where=folder, got=f"{error.strerror} for {user}", todo=todo
            ) from error

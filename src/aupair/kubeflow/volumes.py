"""A check that the pod's volumes can be written, made before hours of work are lost."""

import os
import tempfile
from pathlib import Path

from aupair.errors import DataError
from aupair.kubeflow.cluster import VOLUMES


def check_volumes(*sources: str) -> None:
    """Check that the volumes which the pipeline was compiled with can be written.

    A fresh volume may belong to root, depending on its storage class. A volume that holds a
    source is only read, and is not checked.

    Args:
        sources: paths, or addresses, that the pipeline reads from.

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

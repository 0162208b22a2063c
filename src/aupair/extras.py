"""The packages that only some commands need: the extras of pyproject.toml.

The core, which predicts and evaluates, is installed without them. A module that needs one imports it where it is used;
the command line turns the failure of that import into one line that names the extra.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from aupair.errors import MissingPackageError

MODULES: dict[str, tuple[str, str]] = {
    "boto3": ("boto3", "train"),
    "botocore": ("boto3", "train"),
    "docker": ("docker", "kubeflow"),
    "dvc": ("DVC", "train"),
    "great_expectations": ("Great Expectations", "train"),
    "kfp": ("Kubeflow Pipelines' SDK", "kubeflow"),
    "kfp_server_api": ("Kubeflow Pipelines' SDK", "kubeflow"),
    "mlflow": ("MLflow", "train"),
    "psycopg": ("psycopg", "train"),
    "pympi": ("pympi-ling", "train"),
    "skimage": ("scikit-image", "train"),
    "vl_convert": ("vl-convert-python", "train"),
}
"""The optional packages: the name of each imported module, that of the package, and the extra it is in."""


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """Translate the failed import of an optional package in the block into one line.

    Raises:
        MissingPackageError: the package, and the extra that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in MODULES:
            raise
        raise _missing_package_error(module) from error


def require(module: str) -> None:
    """Check that an optional package is installed, before work that would be lost or a process that would need it.

    Raises:
        MissingPackageError: it is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a folder of that name, such as a project's mlflow/, is no package
        raise _missing_package_error(module)


def _missing_package_error(module: str) -> MissingPackageError:
    package, extra = MODULES[module]
    return MissingPackageError(f"{package} is not installed", todo=f'pip install "aupair[{extra}]"')

"""Optional packages, which only some commands need: the extras of pyproject.toml.

The core, which predicts and evaluates, is installed without them. A module imports an optional package where it is used;
if that import fails, the command line prints one line that names the extra to install.
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
"""The optional packages: the name of the imported module -> the package's name and its extra."""


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """Translate a failed import of an optional package in the block.

    Raises:
        MissingPackageError: an optional package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in MODULES:
            raise
        raise _missing_package_error(module) from error


def require(module: str) -> None:
    """Check that an optional package is installed, before the work that needs it at its end or in another process.

    Raises:
        MissingPackageError: it is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a folder of that name, such as a project's mlflow/, is a namespace
        raise _missing_package_error(module)


def _missing_package_error(module: str) -> MissingPackageError:
    package, extra = MODULES[module]
    return MissingPackageError(f"{package} is not installed", todo=f'pip install "aupair[{extra}]"')

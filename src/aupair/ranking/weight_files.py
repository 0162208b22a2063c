"""Checks of the weight files that the params name, without torch, so that they can run before the first stage."""

from pathlib import Path

from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.training_params import DEFAULT_WEIGHTS, AnyNetwork


def check_weights(params: Params) -> None:
    """Check that the weight files of the networks of f and h exist.

    Raises:
        ArtifactError: a file does not exist.
    """
    networks: list[AnyNetwork] = [params.train_pseudo_intensity.network]
    if params.train_uncertainty.kind == "network":
        networks.append(params.train_uncertainty.network)
    for network in networks:
        if network.weights not in (*DEFAULT_WEIGHTS, "none"):
            check_file(Path(network.weights))


def check_file(path: Path) -> None:
    """Check that a weight file exists.

    Raises:
        ArtifactError: it does not exist.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise ArtifactError("no weights", where=path, got=got, expected="default, none, or a file of weights")

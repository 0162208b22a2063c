"""The weights of networks in safetensors files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from aupair import store
from aupair.errors import ArtifactError


def write_state(path: Path, model: nn.Module) -> None:
    """Write the weights of a network to a safetensors file."""
    store.write_arrays(path, {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()})


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        ArtifactError: the file is missing or corrupt.
    """
    return {key: torch.from_numpy(value) for key, value in store.read_arrays(path).items()}


M = TypeVar("M", bound=nn.Module)


def load_network(build: Callable[[], M], state: Mapping[str, Tensor], path: Path, compare: bool = True) -> M:
    """Build a network and load its weights.

    The network's sizes come from another file than the weights. So that a damaged file cannot cause a huge allocation,
    shapes are compared first, on torch's device `meta`, which allocates no memory.

    Args:
        compare: False for a network whose sizes do not come from a file, or which cannot be built on that device.

    Raises:
        ArtifactError: the weights do not fit the network.
    """
    if compare:
        _compare_shapes(build, state, path)
    model = build()
    load_state(model, state, path)
    return model


def _compare_shapes(build: Callable[[], nn.Module], state: Mapping[str, Tensor], path: Path) -> None:
    """Raise an ArtifactError if the shapes of a network and of its weights differ."""
    try:
        with torch.device("meta"):
            shapes = _shapes(build().state_dict())
    except (RuntimeError, TypeError, OverflowError) as error:
        got = str(error).splitlines()[0]
        raise ArtifactError("invalid sizes of a network", where=path.parent / "about.json", got=got) from error
    own = _shapes(state)
    for key in sorted(shapes.keys() | own.keys()):
        got, expected = (str(of.get(key, "nothing")) for of in (own, shapes))
        if got != expected:
            what, todo = "weights do not fit their network", "run the stage again that wrote about.json beside it"
            raise ArtifactError(what, where=path, got=f"{key} {got}", expected=expected, todo=todo)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, with (1,) for a scalar, as it is stored in files."""
    return {key: tuple(value.shape) or (1,) for key, value in state.items()}


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a network.

    Raises:
        ArtifactError: the weights do not fit the network.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtifactError("weights do not fit their network", where=path, got=reason) from error

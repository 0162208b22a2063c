"""Pretrained weights of networks: files of the user, or torchvision's own from its cache or by download."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aupair.errors import ArtifactError
from aupair.ranking.weight_files import check_file
from aupair.training_params import DEFAULT_WEIGHTS


def load_pretrained(network: nn.Module, weights: str, kind: str, last: str = "") -> None:
    """Load pretrained weights into a network, except for the layers whose names begin with `last`.

    The names in the file may have a common prefix, as in the file of an f that was trained earlier.

    Args:
        weights: default (or imagenet), or a path (.safetensors, or .pth read with weights_only=True).
        kind: torchvision's name of the network.

    Raises:
        ArtifactError: the file is missing, cannot be read or downloaded, or has other shapes.
    """
    state = _read_default(kind) if weights in DEFAULT_WEIGHTS else read_state_dict(Path(weights))
    own = network.state_dict()
    loaded = [name for name in own if not (last and name.startswith(last))]
    prefix = next((key.removesuffix(loaded[0]) for key in state if f".{key}".endswith(f".{loaded[0]}")), "")
    for name in loaded:
        got = tuple(state[prefix + name].shape) if prefix + name in state else "nothing"
        if got == (1,) and own[name].ndim == 0:  # aupair's own files store a scalar as an array of length 1
            continue
        if got != tuple(own[name].shape):
            todo = f"give a file of {kind}, or set weights: none"
            if kind == "vgg16":
                todo = "VGG16's weights need width 1, 224 pixels and its batch_norm; else set weights: none"
            raise ArtifactError(
                "weights do not fit", where=f"{weights}: {name}", got=got, expected=tuple(own[name].shape), todo=todo
            )
    network.load_state_dict({name: state[prefix + name] for name in loaded}, strict=False)


def default_weights_url(kind: str) -> str:
    """Return the URL of torchvision's own weights of a network."""
    from torchvision.models import get_model_weights

    return str(get_model_weights(kind).DEFAULT.url)


def _read_default(kind: str) -> dict[str, Tensor]:
    """Read torchvision's weights from its cache, or download them; the hash in the file's name is verified."""
    url = default_weights_url(kind)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            todo = f"fetch {path.name} elsewhere and give its path as `weights`"
            what = f"{kind}'s weights cannot be downloaded"
            raise ArtifactError(what, where=url, got=error, todo=todo) from error
    return read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code in it."""
    check_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of exception for a bad file
        expected = "a state dict, as `torch.save(network.state_dict(), path)` writes it, or a safetensors file"
        raise ArtifactError(
            "weights cannot be read", where=path, got=type(error).__name__, expected=expected
        ) from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        keys = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
        todo = "save the state dict alone, such as the entry `state_dict` or `model` of a checkpoint"
        raise ArtifactError("not a state dict", where=path, got=keys, expected="names and tensors", todo=todo)
    return state

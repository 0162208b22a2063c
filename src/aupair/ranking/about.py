"""The schema of about.json, which describes the networks in a folder of f, h or a frozen trunk."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from aupair.aus import AFFWILD2
from aupair.store import Artifact
from aupair.training_params import AnyNetwork, VggNetwork

FINAL = "final"
"""name of the network that is trained on all people of fit"""


class Member(NamedTuple):
    """A network of f.

    Attributes:
        trial: the index of its trial in the list of folders of f.
        name: `final`, or `fold0` and so on.
    """

    trial: int
    name: str


AuNames = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
_Size = Annotated[int, Field(ge=1, le=2**14)]


class AboutTrunk(Artifact):
    """The settings of a frozen trunk, and the side of its images."""

    network: AnyNetwork
    size: _Size


class _Standard(Artifact):
    """The standardisation of one network's outputs, a number for each AU."""

    center: tuple[float, ...]
    scale: tuple[float, ...]


class _AboutNetworks(Artifact):
    """The networks of f or h.

    Attributes:
        aus: names of the AUs; older files do not store them and have those of Aff-Wild2.
        size: side of the faces, pixels.
        features: the number of input features of networks with a frozen trunk, else None.
    """

    aus: AuNames = AFFWILD2
    size: _Size
    features: Annotated[int, Field(ge=1)] | None = None

    @property
    def inputs(self) -> int:
        """Return the input size of the networks: the side of images, or with a frozen trunk the number of features."""
        return self.size if self.features is None else self.features

    def compares(self, network: AnyNetwork | None) -> bool:
        """Return whether `load_network` can compare the shapes of a network and its weights on the device `meta`.

        A backbone is not compared, since a user's function may build it.
        """
        return self.features is not None or isinstance(network, VggNetwork)


class AboutF(_AboutNetworks):
    """The networks of f of one trial.

    Attributes:
        standardisation: center and scale of the outputs, by the name of the network.
        select_pair_accuracy: pair accuracy of `final` on select; None without pairs.
    """

    network: AnyNetwork
    standardisation: Annotated[dict[str, _Standard], Field(min_length=1)]
    select_pair_accuracy: float | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        """Check that there is a number for each AU."""
        lengths = {len(part) for own in self.standardisation.values() for part in (own.center, own.scale)}
        if lengths != {len(self.aus)}:
            raise ValueError(f"standardisation: {len(self.aus)} numbers, one for each AU")
        return self


class _Signals(Artifact):
    """The standardisation of h's signals."""

    center: tuple[float, ...]
    scale: tuple[float, ...]


class _Guard(Artifact):
    """The guard of h, a number for each AU; an NLL is None for an AU without pairs."""

    strength: tuple[float, ...]
    log_reference: tuple[float, ...]
    log_constant: tuple[float, ...]
    nll: dict[str, tuple[float | None, ...]]
    ensemble_scale: float


class AboutH(_AboutNetworks):
    """The models of h; attributes that another kind or an earlier version does not have are None or have a default.

    Attributes:
        format: the format of the folder; format 1 was not numbered.
        block: the block of f's trunk from which factors are read.
        members: the networks of f that h reads.
        ensemble: the networks of f whose mean is y_hat.
    """

    format: int = 1
    kind: Literal["network", "factors", "integrated"]
    network: AnyNetwork | None = None
    block: Annotated[int, Field(ge=1, le=5)] | None = None
    floor: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    members: tuple[Member, ...] = (Member(0, FINAL),)
    ensemble: Annotated[tuple[Member, ...], Field(min_length=1)] = (Member(0, FINAL),)
    signals: _Signals | None = None
    guard_of_aus: _Guard | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Check that a kind has what it needs, and that there is a number for each AU."""
        if (self.kind == "network" and self.network is None) or (self.kind == "factors" and self.block is None):
            raise ValueError(f"kind: {self.kind} with its network or block")
        guard = self.guard_of_aus
        parts = [] if guard is None else [guard.strength, guard.log_reference, guard.log_constant, *guard.nll.values()]
        if any(len(part) != len(self.aus) for part in parts):
            raise ValueError(f"guard_of_aus: {len(self.aus)} numbers, one for each AU")
        if self.signals is not None and len(self.signals.center) != len(self.signals.scale):
            raise ValueError("signals: center and scale of equal lengths")
        return self

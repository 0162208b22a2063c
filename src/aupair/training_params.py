"""The parameters of training f and h, two of the sections in `aupair.params`."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from aupair.record import FACTORY, Positive, Record, Share, Width, default_tags, tag_of

DEFAULT_WEIGHTS = ("default", "imagenet")
"""The values of `weights` that stand for the pretrained weights of a kind."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class _Settings(Record):
    """Settings that a network of every kind has."""

    dropout: Share = 0.5
    frozen: bool = False
    """whether the trunk keeps its weights: embed-faces computes its features once, and only heads are trained on them"""

    def trunk_settings(self) -> dict[str, Any]:
        """Return the settings that a frozen trunk depends on, in the form that `parse_network` reads."""
        of_heads = {"dropout", "head", "sharing", "uncertainty_weight", "frozen_convolutions", "frozen"}
        return self.model_dump(mode="json", exclude=of_heads)

    def describe(self) -> str:
        """Return the trunk in a few words, such as `resnet50, 2 blocks trained`."""
        return f"{self._describe_kind()}, frozen" if self.frozen else self._describe_kind()

    def _describe_kind(self) -> str:
        raise NotImplementedError

    def shares_features(self, other: "_Settings") -> bool:
        """Return whether two networks have the same frozen trunk."""
        return self.frozen and other.frozen and self.trunk_settings() == other.trunk_settings()


class VggNetwork(_Settings):
    """Settings of a VGG16, full or narrow."""

    kind: Literal["vgg16"] = "vgg16"
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    """channels, as a share of VGG16's; up to twice as many"""
    batch_norm: bool = False
    """batch normalisation after every convolution"""
    weights: str = "imagenet"
    """imagenet (or default) | none | the path of a state dict of torchvision's VGG16"""
    frozen_convolutions: Annotated[int, Field(ge=0, le=13)] = 2
    """how many of the first convolutions keep their weights"""
    shrink: Annotated[int, Field(ge=1, le=8)] = 1
    """faces are averaged over squares of this side, in pixels, before the trunk: 2 reduces a side of 224 to 112"""

    def _describe_kind(self) -> str:
        return self.kind if self.width == 1 else f"{self.kind}, width {self.width:g}"

    @model_validator(mode="after")
    def _check_width(self) -> "VggNetwork":
        """Check that the width is 1 with ImageNet's weights, which exist only for VGG16 itself."""
        if self.weights in DEFAULT_WEIGHTS and self.width != 1:
            raise ValueError(f"width: 1 together with weights: {self.weights}; else weights: none, or a file")
        return self


class BackboneNetwork(_Settings):
    """Settings of a pretrained backbone, torchvision's or a user's, with a head of one hidden layer."""

    kind: Literal["efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "resnet50", "vit_b_16", "factory"]
    """torchvision's name; `kind: package.module:function` is short for kind: factory with that `factory`"""
    factory: str | None = None
    """package.module:function, which returns a torch module from images to features (kind: factory)"""
    weights: str = "default"
    """default: torchvision's own, or those that the factory sets | none | the path of a state dict"""
    trained_blocks: Positive | None = None
    """how many of the last blocks are trained, beside the head; null: all"""
    head: Width = 128
    """units of the head's hidden layer"""

    def _describe_kind(self) -> str:
        blocks = "" if self.trained_blocks is None else f", {self.trained_blocks} blocks trained"
        return (self.factory or self.kind) + blocks

    @model_validator(mode="after")
    def _check_factory(self) -> "BackboneNetwork":
        """Check that there is a factory if the kind needs one, and only then."""
        if (self.kind == FACTORY) != (self.factory is not None):
            raise ValueError("kind: package.module:function, or another kind with factory: null")
        if self.factory is not None and not _FACTORY.fullmatch(self.factory):
            raise ValueError("factory: package.module:function")
        return self

    @model_validator(mode="after")
    def _check_blocks(self) -> "BackboneNetwork":
        """Check that no block of a frozen trunk is trained."""
        if self.frozen and self.trained_blocks is not None:
            raise ValueError("trained_blocks: null together with frozen: true")
        return self


class _SecondHead(Record):
    """Settings of a trunk of f whose second head learns sigma (with train_uncertainty.kind: integrated)."""

    sharing: Literal["integrated"] = "integrated"
    uncertainty_weight: Annotated[float, Field(ge=0)] = 1.0
    """weight of sigma's loss beside that of the values"""


class _FirstHeadOnly(Record):
    """Settings of a network with one number for each AU."""

    sharing: Literal["shared", "per_au"] = "shared"
    """shared: one trunk with a head for each AU; per_au: one network for each AU"""


class Network(_FirstHeadOnly, VggNetwork):
    """Settings of a VGG16 with one number for each AU."""


class IntegratedNetwork(_SecondHead, VggNetwork):
    """Settings of a VGG16 with a second head."""


class Backbone(_FirstHeadOnly, BackboneNetwork):
    """Settings of a backbone with one number for each AU."""


class IntegratedBackbone(_SecondHead, BackboneNetwork):
    """Settings of a backbone with a second head."""


def _name_factory(value: Any) -> Any:
    """Return a section with `kind: package.module:function` as `kind: factory`, and that text as its `factory`."""
    if isinstance(value, dict) and tag_of(value.get("kind")) != value.get("kind"):
        return value | {"kind": FACTORY, "factory": value["kind"]}
    return value


_AnyVgg = Annotated[Network | IntegratedNetwork, Field(discriminator="sharing"), default_tags(sharing="shared")]
_AnyBackbone = Annotated[Backbone | IntegratedBackbone, Field(discriminator="sharing"), default_tags(sharing="shared")]
_AnyIntegrated = Annotated[
    IntegratedNetwork | IntegratedBackbone,
    Field(discriminator="kind"), default_tags(kind="vgg16"), BeforeValidator(_name_factory),
]  # fmt: skip
AnyNetwork = Annotated[
    _AnyVgg | _AnyBackbone, Field(discriminator="kind"), default_tags(kind="vgg16"), BeforeValidator(_name_factory)
]
"""Settings of a network of f."""
PlainNetwork = Annotated[
    Network | Backbone, Field(discriminator="kind"), default_tags(kind="vgg16"), BeforeValidator(_name_factory)
]
"""Settings of a network with one number for each AU."""


class Optimiser(Record):
    """Settings of fitting a network."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    schedule: Literal["constant", "one_cycle"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    steps: Positive = 3000
    """optimiser steps of the final network"""
    fold_steps: Positive = 3000
    """optimiser steps of each cross-fitting network"""
    batch: Annotated[int, Field(ge=2, le=2**16)] = 48
    """frames in a batch: whole groups of different videos, at least one (sample_pairs.mode: groups), or pairs of two"""
    evaluate_every: Positive = 300
    """steps between two evaluations on the fixed pairs of people who are held out from the network"""
    keep: Literal["best", "last"] = "best"
    """which weights are kept: those of the best evaluation, or the last"""
    patience: Annotated[int, Field(ge=0)] = 0
    """number of evaluations in a row without a better one after which training stops; 0: it never stops early"""


class _TrainPseudoIntensity(Record):
    """Settings of train-pseudo-intensity that all objectives have."""

    network: AnyNetwork = Network()
    optimiser: Optimiser = Optimiser()
    augment: Share = 0.5
    """strength of the augmentation while training: none to full"""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """whether torch.compile speeds up the steps; this takes a minute for each network first, and needs a C compiler"""
    device: str = "auto"
    """auto: a GPU where there is one"""


class RankPairs(_TrainPseudoIntensity):
    """Settings for training f on pairs, as in the paper: f learns which of two frames shows more of an AU."""

    objective: Literal["pairs"] = "pairs"
    margin: Annotated[float, Field(gt=0)] = 1.0


class _GradeFrames(_TrainPseudoIntensity):
    """Settings for training f on single frames: f learns the level of a frame, a baseline without pairs."""

    objective: Literal["single"] = "single"
    network: PlainNetwork = Network()


class _ImitateTeacher(_TrainPseudoIntensity):
    """Settings for training f as a student: f learns a teacher's y_hat and sigma of a frame (`aupair distill`)."""

    objective: Literal["distill"] = "distill"
    network: _AnyIntegrated = IntegratedNetwork()

    @model_validator(mode="after")
    def _check_trunk(self) -> "_ImitateTeacher":
        """Check that the student's trunk is not frozen, since it learns from images, as its teacher did."""
        if self.network.frozen:
            raise ValueError("network.frozen: false together with objective: distill")
        return self


TrainPseudoIntensity = Annotated[
    RankPairs | _GradeFrames | _ImitateTeacher, Field(discriminator="objective"), default_tags(objective="pairs")
]
"""Settings of train-pseudo-intensity: f, pseudo-intensities by ranking."""


class _LossWithoutMargin(Record):
    """The choice of a loss of h without a margin: nll is the only one."""

    loss: Literal["nll"] = "nll"
    margin: ClassVar[float] = 0.0


class _LossWithMargin(Record):
    """The choice of a loss of h with a margin, and that margin."""

    loss: Literal["nll_margin", "misorder", "printed"] = "nll_margin"
    margin: Annotated[float, Field(gt=0)] = 1.0


class _Guarded(Record):
    """The setting for a sigma that is no better than a constant."""

    guard: bool = True
    """whether sigma of an AU is shrunk toward its best constant as far as this lowers the loss on people of fit, out of fold"""
    device: str = "auto"


class _FitUncertainty(_Guarded):
    """Settings of an h that is trained separately from f."""

    floor: Annotated[float, Field(gt=0)] = 0.05
    """smallest sigma"""


class _UncertaintyNetwork(_FitUncertainty):
    """Settings of an h that is a separate network, as in the paper."""

    kind: Literal["network"] = "network"
    network: PlainNetwork = Network()
    optimiser: Optimiser = Optimiser()
    augment: Share = 0.5
    """as for f"""
    log_sigma_penalty: Annotated[float, Field(ge=0)] = 1e-3
    """weight of the mean squared log sigma, which makes sigma unique, see `losses.uncertainty_loss`"""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """as for f"""


class _UncertaintyFactors(_FitUncertainty):
    """Settings of an h that reads f's frozen trunks, which are computed only once for each face."""

    kind: Literal["factors"] = "factors"
    factors: Width = 64
    """number of principal components of the trunk's features that are read"""
    block: Annotated[int, Field(ge=1, le=5)] = 5
    """the block of f's trunk that they are read from"""
    priors: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.1, 0.3, 1.0, 3.0)
    """candidate strengths of the prior toward a constant; the best on people of fit, out of fold, is used"""
    inner_folds: Annotated[int, Field(ge=2, le=1000)] = 4
    """number of parts of a fold's people; each part is scored by an h that was trained on the other parts"""


class UncertaintyNetwork(_LossWithoutMargin, _UncertaintyNetwork):
    """Settings of an h that is a separate network; its loss has no margin."""


class _NetworkWithMargin(_LossWithMargin, _UncertaintyNetwork):
    """Settings of an h that is a separate network; its loss has a margin."""


class UncertaintyFactors(_LossWithoutMargin, _UncertaintyFactors):
    """Settings of an h of factors; its loss has no margin."""


class _FactorsWithMargin(_LossWithMargin, _UncertaintyFactors):
    """Settings of an h of factors; its loss has a margin."""


class UncertaintyHead(_Guarded):
    """Settings of an h that is f's second head: it was trained with f."""

    kind: Literal["integrated"] = "integrated"


FitNetwork = Annotated[UncertaintyNetwork | _NetworkWithMargin, Field(discriminator="loss"), default_tags(loss="nll")]
"""Settings of an h that is a separate network."""
FitFactors = Annotated[UncertaintyFactors | _FactorsWithMargin, Field(discriminator="loss"), default_tags(loss="nll")]
"""Settings of an h that reads f's trunks."""
FitUncertainty = FitNetwork | FitFactors
"""Settings of an h that is trained separately from f."""

TrainUncertainty = Annotated[
    FitUncertainty | UncertaintyHead, Field(discriminator="kind"), default_tags(kind="network")
]
"""Settings of train-uncertainty: h, the uncertainty of a pseudo-intensity."""


def parse_network(tree: dict[str, Any]) -> AnyNetwork:
    """Convert the network settings stored with a trained network to a record."""
    network: AnyNetwork = TypeAdapter(AnyNetwork).validate_python(tree)
    return network

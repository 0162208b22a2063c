"""The parameters: one frozen record a stage; every number of a run stands in `params.yaml`."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from aupair.record import Record, read, validate

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CheckData(Record):
    """Which annotations are read and how strict the checks are."""

    max_missing_videos: Annotated[int, Field(ge=0)] = 0
    """labelled videos without a file that are counted instead of stopping the flow"""
    few_positives: Annotated[int, Field(ge=0)] = 50
    """an AU with fewer positive frames in a split is pointed out"""


class PreprocessFaces(Record):
    """From a video to aligned faces."""

    size: Annotated[int, Field(ge=32, le=512)] = 224
    """side of the aligned face, pixels"""
    detector: Literal["tracking", "reference"] = "tracking"
    """tracking: O-Net follows the last face; reference: the whole frame is searched, every frame"""
    min_face: Annotated[int, Field(ge=12)] = 40
    """smallest face searched for, pixels"""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality of the stored face"""
    workers: Annotated[int, Field(ge=0)] = 0
    """processes, one video each; 0: one a core"""


class SamplePairs(Record):
    """Which frames are compared."""

    mode: Literal["groups", "reference"] = "groups"
    """groups: all ordered pairs inside groups of frames; reference: the authors' explicit list"""
    frames: Annotated[int, Field(ge=2)] = 12
    """frames in a group, all of one video"""
    groups: Positive = 40
    """groups drawn for each video"""
    train_pairs: Positive = 10000
    """pairs for each AU to train on (reference mode)"""
    valid_pairs: Positive = 500
    """fixed pairs for each AU and split to validate on"""
    folds: Annotated[int, Field(ge=1)] = 1
    """folds by subject for cross-fitting; 1: no cross-fitting"""


class Network(Record):
    """What a VGG16 looks like here."""

    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    """channels, as a share of VGG16's; up to twice as many"""
    batch_norm: bool = False
    """batch normalisation after every convolution"""
    weights: str = "imagenet"
    """imagenet | none | the path of a state dict of torchvision's VGG16"""
    frozen_convolutions: Annotated[int, Field(ge=0, le=13)] = 2
    """how many of the first convolutions keep their weights"""
    sharing: Literal["shared", "per_au", "integrated"] = "shared"
    """shared: one trunk with a head for each AU; per_au: one network for each AU; integrated: a trunk of f whose
    second head says sigma (for f alone, with train_uncertainty.kind: integrated)"""
    dropout: Share = 0.5
    shrink: Annotated[int, Field(ge=1, le=8)] = 1
    """the trunk sees the face averaged over so many x so many pixels: 2 makes 112 of 224"""

    @model_validator(mode="after")
    def _known_width(self) -> "Network":
        """There are weights of ImageNet for VGG16 itself."""
        if self.weights == "imagenet" and self.width != 1:
            raise ValueError("width: 1 together with weights: imagenet; else weights: none, or a file")
        return self


class Optimiser(Record):
    """How a network is fitted."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    schedule: Literal["constant", "one_cycle"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    steps: Positive = 3000
    """optimiser steps of the final network"""
    fold_steps: Positive = 3000
    """optimiser steps of each cross-fitting network"""
    videos: Positive = 4
    """groups in a batch, each of another video (groups mode)"""
    pairs: Positive = 32
    """pairs in a batch (reference mode)"""
    evaluate_every: Positive = 300
    """steps between two looks at the fixed pairs of `select`"""
    keep: Literal["best", "last"] = "best"
    """which weights are kept: of the best look at `select`, or the last"""


class TrainPseudoIntensity(Record):
    """f: pseudo-intensities by ranking."""

    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    objective: Literal["pairs", "single", "distill"] = "pairs"
    """pairs: which of two frames shows more (the paper); single: the level of one frame, a baseline without pairs;
    distill: what a teacher says of one frame, value and sigma (`aupair distill`, sharing: integrated)"""
    margin: Annotated[float, Field(gt=0)] = 1.0
    uncertainty_weight: Annotated[float, Field(ge=0)] = 1.0
    """weight of sigma's loss beside that of the values (sharing: integrated)"""
    augment: Share = 0.5
    """strength of the augmentation while training: none to full"""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """let torch.compile make the steps faster: a minute for each network first, and a C compiler on the machine"""
    device: str = "auto"
    """auto: a GPU where there is one"""


class TrainUncertainty(Record):
    """h: how far a pseudo-intensity can be trusted."""

    kind: Literal["network", "factors", "integrated"] = "network"
    """network: a network of its own, as in the paper; factors: a few factors read from f's frozen trunk; integrated:
    f's second head, trained with f"""
    factors: Positive = 2
    """how many factors all AUs share (kind factors)"""
    block: Annotated[int, Field(ge=1, le=5)] = 5
    """the block of f's trunk that they are read from (kind factors)"""
    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    loss: Literal["nll", "nll_margin", "misorder", "printed"] = "nll"
    margin: Annotated[float, Field(gt=0)] = 1.0
    """m of the losses that have one"""
    floor: Annotated[float, Field(gt=0)] = 0.05
    """smallest sigma"""
    log_sigma_penalty: Annotated[float, Field(ge=0)] = 1e-3
    """weight of the mean squared log sigma (fixes the gauge of bipartite pairs)"""
    augment: Share = 0.5
    """as for f; kind factors has none, its faces are forwarded once"""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """as for f; kind factors has so little to compute that it is not compiled"""
    device: str = "auto"


class ExtractFeatures(Record):
    """G: the distribution of y_hat and sigma over the video and over windows."""

    kind: Literal["distribution", "histogram"] = "distribution"
    """distribution: all of what follows; histogram: the authors' features of 2020, without uncertainty"""
    neutral: Literal["video", "person"] = "video"
    """whose values the percentiles and the rank are taken over: the video's, or all of the person's clips (subjects)"""
    percentiles: tuple[Percent, ...] = (0.0, 10.0, 20.0)
    """percentiles of y_hat over the video"""
    thresholds: tuple[Share, ...] = (0.0, 0.25, 0.5, 0.75)
    """certainties over which the percentiles are taken again, ascending"""
    windows: tuple[Seconds, ...] = (2.0, 8.0)
    """lengths of the windows of mean, standard deviation and percentiles"""
    window_percentiles: tuple[Percent, ...] = (10.0, 50.0, 90.0)
    """percentiles of y_hat over a window"""
    context: Seconds = 10.0
    """how far the neighbours of a frame reach, each way"""
    context_points: Annotated[int, Field(ge=0)] = 20
    """neighbours each way, evenly spaced in time"""
    certainty: Literal["quantile", "min_max"] = "quantile"
    """quantile: rank of log sigma within fit; min_max: the authors' 1 - sigma / sigma_max"""
    batch: Positive = 64
    """frames scored at once by predict (the numbers don't depend on it)"""

    @field_validator("thresholds")
    @classmethod
    def _ascending(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        """An empty set takes the percentiles of the threshold before, which must be the next lower one."""
        if any(low >= high for low, high in pairwise(thresholds)):
            raise ValueError("ascending thresholds")
        return thresholds


class TrainMapping(Record):
    """From features to AUs: two fully connected networks for each AU."""

    loss: Literal["l1", "cross_entropy"] = "l1"
    """l1: the level, as in the paper; cross_entropy: a class for each level, as in 2020"""
    width: Positive = 4096
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    draws: Positive = 10000
    """frames drawn for each AU and epoch, balanced over levels, then videos"""
    epochs: Positive = 10
    batch: Positive = 32
    device: str = "auto"


class Evaluate(Record):
    """What is chosen on `select`, and how it is judged."""

    thresholds: Literal["tuned", "half"] = "tuned"
    """tuned: each AU's threshold maximises 1/2 (F1 + accuracy) on `select`; half: .5"""
    tie: Share = 0.01
    """the mapping with uncertainty must beat the simpler one by more than this on `select` to be chosen"""
    bootstrap: Positive = 1000
    """resamples of the videos behind each interval"""
    protocol: Literal["ours", "paper"] = "ours"
    """paper: choose on `validation` as the authors did; the rows are marked so"""
    seed: int = 0


class RegisterModel(Record):
    """The registered model."""

    name: str = "aupair"
    experiment: str = "aupair"


class Params(Record):
    """All sections of params.yaml."""

    seed: int = 0
    target: Literal["occurrence", "intensity"] = "occurrence"
    """occurrence: 0 or 1; intensity: levels 0 to 5 of AU_Intensity_Set, and the occurrence that follows from them"""
    trials: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    check_data: CheckData = CheckData()
    preprocess_faces: PreprocessFaces = PreprocessFaces()
    sample_pairs: SamplePairs = SamplePairs()
    train_pseudo_intensity: TrainPseudoIntensity = TrainPseudoIntensity()
    train_uncertainty: TrainUncertainty = TrainUncertainty()
    extract_features: ExtractFeatures = ExtractFeatures()
    train_mapping: TrainMapping = TrainMapping()
    evaluate: Evaluate = Evaluate()
    register_model: RegisterModel = RegisterModel()

    @property
    def levels(self) -> int:
        """How many levels the target has."""
        return 2 if self.target == "occurrence" else 6

    @model_validator(mode="after")
    def _integrated(self) -> "Params":
        """Sigma is f's second head, or it is not: both sections must say so."""
        f, h = self.train_pseudo_intensity, self.train_uncertainty
        if h.network.sharing == "integrated" or (f.network.sharing == "integrated") != (h.kind == "integrated"):
            raise ValueError("train_uncertainty.kind: integrated together with f's network.sharing: integrated")
        if f.objective == "distill" and f.network.sharing != "integrated":
            raise ValueError("objective: distill together with f's network.sharing: integrated")
        return self

    @model_validator(mode="after")
    def _seen(self) -> "Params":
        """Five times a trunk halves what it sees."""
        size = self.preprocess_faces.size
        if any(size // part.network.shrink < 32 for part in (self.train_pseudo_intensity, self.train_uncertainty)):
            raise ValueError(f"at least 32 pixels of preprocess_faces.size ({size}) after shrink")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check a params file, then apply overrides such as `train_mapping.epochs=3`.

    Raises:
        ParamsError: the file is missing, is not a mapping, or a key or value is not allowed.
    """
    return check(read(path, overrides), where=str(path))


def check(tree: dict[str, Any], where: str = "params") -> Params:
    """Turn a tree of sections into Params; a whole float stands for an int, as KFP hands them over.

    Raises:
        ParamsError: an unknown key (with the nearest known one) or a wrong value.
    """
    return validate(Params, tree, where)

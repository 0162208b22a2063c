"""The parameters: one frozen record for each stage; every setting of a run is in `params.yaml`.

A section that comes in several kinds is a union of records, distinguished by a tag (`mode`, `objective`, `kind`, `sharing`,
`loss`): a kind has only the keys that have an effect for it, and the first kind is the default.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_serializer, field_validator, model_validator

from aupair.aus import check_au_names
from aupair.errors import DataError
from aupair.record import (
    Positive,
    Record,
    Repeats,
    Share,
    Width,
    apply_overrides,
    default_tags,
    drop_unknown_keys,
    parse_settings,
    read_settings,
)
from aupair.training_params import (
    AnyNetwork,
    RankPairs,
    TrainPseudoIntensity,
    TrainUncertainty,
    UncertaintyNetwork,
    VggNetwork,
)

Percent = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Route = Literal["constant", "columns", "sigma", "quality", "both"]


class CheckData(Record):
    """Settings of check-data: which annotations are read and how strict the checks are."""

    max_missing_videos: Annotated[int, Field(ge=0)] = 0
    """how many labelled videos may lack their file; more of them stop the flow"""
    few_positives: Annotated[int, Field(ge=0)] = 50
    """check-data warns of an AU with fewer positive frames than this in a split"""


Alignment = Literal["all", "stable"]


class PreprocessFaces(Record):
    """Settings of preprocess-faces: from a video to aligned faces."""

    size: Annotated[int, Field(ge=32, le=512)] = 224
    """side of the aligned face, pixels"""
    detector: Literal["tracking", "reference"] = "tracking"
    """tracking: O-Net follows the last face; reference: the whole frame is searched, every frame"""
    min_face: Annotated[int, Field(ge=12)] = 40
    """smallest face searched for, pixels"""
    align: Alignment = "all"
    """the points that align a face: all 68, or only eye corners and nose, so that it does not shrink if the jaw drops"""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality of the stored face"""
    workers: Annotated[int, Field(ge=0, le=1000)] = 0
    """processes, one video each; 0: one for each core"""


class _SamplePairs(Record):
    """Settings of sample-pairs that both modes have."""

    valid_pairs: Annotated[int, Field(ge=1, le=10**6)] = 500
    """fixed pairs for each AU and split, on which networks are evaluated"""
    folds: Repeats = 1
    """folds by subject for cross-fitting; 1: no cross-fitting"""


class PairsInGroups(_SamplePairs):
    """Settings of sample-pairs: groups of frames of one video, whose pairs with different levels are all trained on."""

    mode: Literal["groups"] = "groups"
    frames: Annotated[int, Field(ge=2, le=1000)] = 12
    """frames in a group, all of one video"""
    groups: Annotated[int, Field(ge=1, le=10**5)] = 40
    """groups drawn for each video"""


class ListedPairs(_SamplePairs):
    """Settings of sample-pairs: an explicit list of pairs, as the authors draw it."""

    mode: Literal["reference"] = "reference"
    train_pairs: Annotated[int, Field(ge=1, le=10**8)] = 10000
    """pairs for each AU to train on"""


SamplePairs = Annotated[PairsInGroups | ListedPairs, Field(discriminator="mode"), default_tags(mode="groups")]
"""Settings of sample-pairs: which frames are compared."""


class EmbedFaces(Record):
    """Settings of embed-faces: what a frozen trunk computes features of (train_pseudo_intensity.network.frozen: true)."""

    copies: Annotated[int, Field(ge=0, le=1000)] = 0
    """number of augmented copies of each video of fit; a training step sees one of them, or the original"""
    augment: Share = 0.5
    """strength of the copies' augmentation: none to full"""
    device: str = "auto"
    """auto: a GPU where there is one"""


class _ExtractFeatures(Record):
    """Settings of extract-features that both kinds have."""

    neutral: Literal["video", "person"] = "video"
    """what percentiles, rank and histogram are computed over: the video, or all clips of the person"""
    batch: Width = 64
    """frames scored at once by predict (the results do not depend on it)"""


class DistributionFeatures(_ExtractFeatures):
    """Settings of extract-features: the distribution of y_hat, smoothed or not, over the video and over windows."""

    kind: Literal["distribution"] = "distribution"
    percentiles: tuple[Percent, ...] = (0.0, 10.0, 20.0)
    """percentiles of y_hat over the video"""
    thresholds: tuple[Share, ...] = (0.0, 0.25, 0.5, 0.75)
    """the percentiles are computed again over frames of at least these certainties, ascending"""
    windows: tuple[Seconds, ...] = (2.0, 8.0)
    """lengths of the windows of mean, standard deviation and percentiles"""
    window_percentiles: tuple[Percent, ...] = (10.0, 50.0, 90.0)
    """percentiles of y_hat over a window"""
    context: Seconds = 10.0
    """how far the neighbours of a frame reach in each direction, seconds"""
    context_points: Annotated[int, Field(ge=0, le=1000)] = 20
    """number of neighbours in each direction, evenly spaced in time"""
    certainty: Literal["quantile", "min_max"] = "quantile"
    """of the columns of uncertainty; quantile: 1 - the rank of log sigma within fit; min_max: the authors' 1 - sigma / sigma_max"""
    smoother: Literal["none", "constant", "sigma", "quality", "both"] = "both"
    """the noise of y_hat by which it is smoothed before G, for the mapping with uncertainty: both is sigma and the
    disagreement of the two landmark passes; none: no smoother, and columns of uncertainty in G, as in the paper"""
    compare: tuple[Route, ...] = ("constant", "columns", "sigma")
    """further ways of the uncertainty into a mapping, which are trained as rows of the tables and decide nothing"""

    @field_validator("thresholds")
    @classmethod
    def _check_ascending(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        """Check the order, since a threshold that no frame reaches takes the percentiles of the next lower one."""
        if any(low >= high for low, high in pairwise(thresholds)):
            raise ValueError("ascending thresholds")
        return thresholds

    @property
    def deciding(self) -> str:
        """Return the route of the mapping with uncertainty; see `aupair.mapping.extractor`."""
        return "columns" if self.smoother == "none" else self.smoother

    @property
    def routes(self) -> tuple[str, ...]:
        """Return all routes, each once: those that decide without and with uncertainty, then those to compare with."""
        return tuple(dict.fromkeys(("raw", self.deciding, *self.compare)))


class HistogramFeatures(_ExtractFeatures):
    """Settings of extract-features: the authors' features of 2020, without uncertainty."""

    kind: Literal["histogram"] = "histogram"

    @property
    def deciding(self) -> str:
        """Return the route of both mappings."""
        return "raw"

    @property
    def routes(self) -> tuple[str, ...]:
        """Return the only route."""
        return ("raw",)


ExtractFeatures = Annotated[
    DistributionFeatures | HistogramFeatures, Field(discriminator="kind"), default_tags(kind="distribution")
]
"""Settings of extract-features: G, the features of a frame within its video."""


class TrainMapping(Record):
    """Settings of train-mapping: fully connected networks for each AU and route, from features to levels."""

    loss: Literal["l1", "cross_entropy"] = "l1"
    """l1: the level, as in the paper; cross_entropy: a class for each level, as in 2020"""
    width: Width = 4096
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    draws: Positive = 10000
    """frames drawn for each AU and epoch, balanced over levels, then videos"""
    epochs: Positive = 10
    batch: Width = 32
    seeds: Repeats = 5
    """number of networks for each AU and route, with different initial weights and draws; their mean is the mapping"""
    device: str = "auto"


ThresholdRule = Literal["tuned", "tuned_f1", "half"]


class Evaluate(Record):
    """Settings of evaluate: what is chosen on `select`, and how it is scored."""

    thresholds: ThresholdRule = "tuned"
    """tuned: each AU's threshold maximises 1/2 (F1 + accuracy) on `select`; tuned_f1: its F1; half: .5"""
    tie: Share = 0.01
    """P2: an AU keeps its mapping with uncertainty unless its score on `select` is lower by more than this"""
    loss_confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """... and is lower at all with this confidence (one-sided, over the people of `select`); .5: any loss beyond `tie` counts"""
    bootstrap: Annotated[int, Field(ge=1, le=10**5)] = 1000
    """number of bootstrap resamples of the people, for the confidence intervals"""
    protocol: Literal["ours", "paper"] = "ours"
    """paper: choose on `validation`, as the authors did; the rows are then marked"""
    seed: Annotated[int, Field(ge=0)] = 0


class RegisterModel(Record):
    """Settings of register-model: names in MLflow, and what is registered."""

    name: str = "aupair"
    experiment: str = "aupair"
    rehearsals: bool = False
    """register the model of a DVC experiment (`dvc exp run`), or of a pipeline's run on this machine, too"""


def _check_distinct(trials: tuple[int, ...]) -> tuple[int, ...]:
    """Check that no trial is listed twice, since it would be trained and counted twice."""
    if len(set(trials)) < len(trials):
        raise ValueError("each trial once")
    return trials


def _parse_aus(aus: Any) -> Any:
    """Split text such as `AU1,AU2`, the form of a list of AUs on the command line and in Kubeflow."""
    if isinstance(aus, str) and aus != "all":
        return tuple(name.strip() for name in aus.split(","))
    return aus


def _check_aus(aus: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Check the names of a list of AUs."""
    if not isinstance(aus, str):
        try:
            check_au_names(aus, "aus")
        except DataError as error:
            expected = (
                "all, or different names of letters, digits and hyphens, such as AU12L, that are not column names"
            )
            raise ValueError(expected) from error
    return aus


class Params(Record):
    """All sections of params.yaml."""

    aus: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_parse_aus), AfterValidator(_check_aus)] = "all"
    """the AUs to learn, some of those that are annotated; all: every one"""
    seed: Annotated[int, Field(ge=0)] = 0
    target: Literal["occurrence", "intensity"] = "occurrence"
    """occurrence: 0 or 1; intensity: levels 0 to 5 of AU_Intensity_Set, and the occurrence that follows from them"""
    trials: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_check_distinct)] = (
        0,
    )
    ensemble: Literal["all", "final"] = "all"
    """all: y_hat is the mean over the final and the fold networks of all trials; final: the paper's way, the best trial's
    final network alone"""
    check_data: CheckData = CheckData()
    preprocess_faces: PreprocessFaces = PreprocessFaces()
    sample_pairs: SamplePairs = PairsInGroups()
    embed_faces: EmbedFaces = EmbedFaces()
    train_pseudo_intensity: TrainPseudoIntensity = RankPairs()
    train_uncertainty: TrainUncertainty = UncertaintyNetwork()
    extract_features: ExtractFeatures = DistributionFeatures()
    train_mapping: TrainMapping = TrainMapping()
    evaluate: Evaluate = Evaluate()
    register_model: RegisterModel = RegisterModel()

    @field_serializer("aus", when_used="json")
    def _write_aus(self, aus: str | tuple[str, ...]) -> str:
        """Return `aus` as text, since a parameter of Kubeflow has one type."""
        return aus if isinstance(aus, str) else ",".join(aus)

    @property
    def levels(self) -> int:
        """Return the number of levels: 2 for occurrence, 6 for intensity."""
        return 2 if self.target == "occurrence" else 6

    @model_validator(mode="after")
    def _check_integrated(self) -> "Params":
        """Check that f and h agree on whether sigma is a second output of f, if both sections are given."""
        f, h = self.train_pseudo_intensity, self.train_uncertainty
        both_given = {"train_pseudo_intensity", "train_uncertainty"} <= self.model_fields_set  # a KFP task has one
        if both_given and (f.network.sharing == "integrated") != (h.kind == "integrated"):
            raise ValueError(
                "`integrated` in both train_uncertainty.kind and train_pseudo_intensity.network.sharing, or in neither"
            )
        return self

    @model_validator(mode="after")
    def _check_frozen(self) -> "Params":
        """Check that a separate h with a frozen trunk shares that of f, whose features embed-faces computes."""
        f, h = self.train_pseudo_intensity.network, self.train_uncertainty
        both_given = {"train_pseudo_intensity", "train_uncertainty"} <= self.model_fields_set
        if both_given and h.kind == "network" and h.network.frozen and not h.network.shares_features(f):
            raise ValueError("train_uncertainty.network with frozen: true has the kind and the weights of f's network")
        if "train_pseudo_intensity" in self.model_fields_set and self.embed_faces.copies and not f.frozen:
            raise ValueError("embed_faces.copies: 0 unless train_pseudo_intensity.network has frozen: true")
        return self

    @model_validator(mode="after")
    def _check_size(self) -> "Params":
        """Check that the input of each VGG16, which halves its size five times, is large enough."""
        size, networks = self.preprocess_faces.size, list[AnyNetwork]([self.train_pseudo_intensity.network])
        if self.train_uncertainty.kind == "network":
            networks.append(self.train_uncertainty.network)
        if any(isinstance(network, VggNetwork) and size // network.shrink < 32 for network in networks):
            raise ValueError(f"at least 32 pixels of preprocess_faces.size ({size}) after shrink")
        return self


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Load a params file with overrides such as `train_mapping.epochs=3`.

    An override that changes a section's kind drops the keys of the file that the new kind does not have.

    Raises:
        ParamsError: the file is missing, is not a mapping, or a key or value is not allowed.
    """
    sections: dict[str, Any] = {
        name: {} for name, field in Params.model_fields.items() if isinstance(field.default, Record)
    }
    tree = apply_overrides(Params, sections | read_settings(path), overrides)
    return parse_params(tree, where=f"{path} and --set" if overrides else str(path))


def project_model_name(path: Path = Path("params.yaml")) -> str:
    """Return the name of the registered model in a params file; without a file or name, the default one."""
    section = read_settings(path).get("register_model") if path.is_file() else None
    default = RegisterModel().name
    return str(section.get("name", default)) if isinstance(section, dict) else default


def parse_params(tree: dict[str, Any], where: str = "params") -> Params:
    """Convert a tree of sections to Params; a whole float is accepted for an int, since KFP passes ints as floats.

    Raises:
        ParamsError: an unknown key (with the nearest known one) or a wrong value.
    """
    return parse_settings(Params, tree, where)


def parse_stored_params(tree: dict[str, Any], where: str) -> Params:
    """Convert the params stored with a bundle or a trained network to Params.

    Earlier versions wrote the keys of all kinds; those that have no effect with the chosen kind are dropped.

    Raises:
        ParamsError: a wrong value.
    """
    return parse_params(drop_unknown_keys(Params, tree), where)

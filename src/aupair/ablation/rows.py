"""The rows of the ablation: the settings that each row changes, and the decision rule by which its run is scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aupair.errors import ParamsError, did_you_mean
from aupair.params import Params, parse_params
from aupair.record import apply_settings
from aupair.training_params import VggNetwork

Setting = Any | Callable[[Params, int], Any]

GROUPS = {
    "constant": "Constant guesses",
    "no-pairs": "Single images instead of pairs, with the same trunk",
    "no-distribution": "Pairs, but of the video's distribution at most a person's offset",
    "ours": "The method",
    "pairs": "Sampling of pairs and sharing of networks",
    "smoother": "Use of the uncertainty by the mapping",
    "ensemble": "Number of networks",
    "uncertainty": "Kind and training of h",
    "features": "Features of G, and the mapping",
}
REFERENCE = "P2"
"""The row that all others are compared with."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: its name on the command line and in the table.
        group: one of GROUPS.
        text: a description of the row for the report.
        rule: the decision rule that is scored: a row of evaluate (`no-uncertainty`, `P1`, `P2`, a constant), or a threshold
            on y_hat: `value`, `value-median` and `value-lowest` (minus the person's median, or minus a low percentile).
        settings: keys of params.yaml and their values; a value that depends on the user's params or on the number of AUs is
            a function of both.
    """

    name: str
    group: str
    text: str
    rule: str
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def params(self, base: Params, aus: int) -> Params:
        """Return the params of the row's run, for a number of AUs.

        Raises:
            ParamsError: the settings do not fit the user's params.
        """
        settings = {key: value(base, aus) if callable(value) else value for key, value in self.settings.items()}
        where = f"ablation row {self.name}"
        return parse_params(apply_settings(Params, base.model_dump(mode="json"), settings, where), where)

    def trains_f(self, base: Params, aus: int) -> bool:
        """Return whether the row's run trains f again, which by itself changes F1."""
        params = self.params(base, aus)
        return any(getattr(params, name) != getattr(base, name) for name in _OF_F)

    def why_unfit(self, base: Params, aus: int) -> str:
        """Return the reason why the row does not apply to these params; empty if it applies."""
        try:
            params = self.params(base, aus)
        except ParamsError as error:
            return str(error)
        return "params.yaml has these settings already" if self.settings and params == base else ""


PAPER_ROUTE: dict[str, Setting] = {"extract_features.smoother": "none", "extract_features.compare": []}
"""The uncertainty as columns of G."""
_OF_F = (
    "aus",
    "target",
    "seed",
    "check_data",
    "preprocess_faces",
    "sample_pairs",
    "embed_faces",
    "train_pseudo_intensity",
)
"""The params on which f depends, except for the number of trials."""
SINGLE = {"train_pseudo_intensity.objective": "single"}
HISTOGRAM = {"extract_features.kind": "histogram", "train_mapping.loss": "cross_entropy"}
IN_F, IN_H = "train_pseudo_intensity", "train_uncertainty"


def _like_f(base: Params, _aus: int) -> dict[str, Any]:
    """Return the optimiser of f with 100 steps, for h; more steps only overfit to the people of fit (docs/log)."""
    if base.train_uncertainty.kind == "network":
        return base.train_uncertainty.optimiser.model_dump(mode="json")
    of_f = base.train_pseudo_intensity.optimiser.model_dump(mode="json")
    return of_f | {"steps": min(100, of_f["steps"]), "fold_steps": min(100, of_f["fold_steps"])}


def _f_network(base: Params, **changes: Any) -> dict[str, Any]:
    return base.train_pseudo_intensity.network.model_dump(mode="json", exclude={"uncertainty_weight"}) | changes


def _width(base: Params) -> float:
    """Return the width of f's network; raise ParamsError if it is not a VGG16."""
    network = base.train_pseudo_intensity.network
    if not isinstance(network, VggNetwork):
        raise ParamsError("only a vgg16 has a width", got=f"kind: {network.kind}")
    return network.width


def _augment(base: Params, _aus: int) -> float:
    h = base.train_uncertainty
    return h.augment if h.kind == "network" else base.train_pseudo_intensity.augment


def _windows(base: Params) -> list[float]:
    return sorted(base.extract_features.windows) if base.extract_features.kind == "distribution" else []


PER_AU: dict[str, Setting] = {
    f"{IN_F}.network": lambda base, _: _f_network(base, sharing="per_au"),
    f"{IN_H}.kind": "network",
    f"{IN_H}.network": lambda base, _: _f_network(base, sharing="shared"),
    f"{IN_H}.optimiser": _like_f,
    f"{IN_H}.augment": _augment,
}
"""The settings of the rows with a network for each AU. They are scored without uncertainty: h is only needed by evaluate."""

ROWS = (
    Row("all-zero", "constant", "all zero", "all-zero"),
    Row("all-one", "constant", "all one", "all-one"),
    Row("best-constant", "constant", "best constant of each AU on fit", "best-constant"),
    Row("P2", "ours", "P2: uncertainty except for AUs where it clearly loses", "P2"),
    Row("no-uncertainty", "ours", "without uncertainty", "no-uncertainty"),
    Row("P1", "ours", "P1: uncertainty for all AUs", "P1"),
    Row("smoother-constant", "smoother", "smoothed with constant noise: the effect of smoothing without uncertainty", "P1",
        {"extract_features.smoother": "constant", "extract_features.compare": []}),
    Row("smoother-sigma", "smoother", "smoothed by sigma of h alone", "P1",
        {"extract_features.smoother": "sigma", "extract_features.compare": []}),
    Row("smoother-quality", "smoother", "smoothed by the landmarks' quality alone, without h", "P1",
        {"extract_features.smoother": "quality", "extract_features.compare": []}),
    Row("smoother-none", "smoother", "the paper's: no smoother, the uncertainty as columns of G", "P1", PAPER_ROUTE),
    Row("ensemble-final", "ensemble", "one network, `final` of the best trial; the paper's has five trials", "P2",
        {"ensemble": "final"}),
    Row("one-seed", "ensemble", "one network in each mapping", "P2", {"train_mapping.seeds": 1}),
    Row("no-guard", "uncertainty", "h without its guard", "P1", {f"{IN_H}.guard": False}),
    Row("half", "ours", "P2 with all thresholds at .5", "P2", {"evaluate.thresholds": "half"}),
    Row("single", "no-pairs", "single image, a threshold on the output", "value", SINGLE),
    Row("single-median", "no-pairs", "the same, minus the person's median", "value-median", SINGLE),
    Row("single-lowest", "no-pairs", "the same, minus a low percentile of the person", "value-lowest", SINGLE),
    Row("single-G", "no-pairs", "single image, then G and the mapping", "no-uncertainty", SINGLE),
    Row("value", "no-distribution", "a threshold on y_hat", "value"),
    Row("value-median", "no-distribution", "y_hat minus the person's median", "value-median"),
    Row("value-lowest", "no-distribution", "y_hat minus a low percentile of the person", "value-lowest"),
    Row("2020", "no-distribution", "the authors' features of 2020: histogram, percentiles, cross-entropy", "no-uncertainty",
        HISTOGRAM),
    Row("in-sample", "uncertainty", "no folds: h and the mapping are trained on scores of people of f's training; one network", "P1",
        {"sample_pairs.folds": 1}),
    Row("nll_margin", "uncertainty", "loss of h: nll_margin, as in the authors' code", "P1",
        {f"{IN_H}.loss": "nll_margin", f"{IN_H}.guard": False}),
    Row("misorder", "uncertainty", "loss of h: misorder, as the paper describes it in words", "P1", {f"{IN_H}.loss": "misorder", f"{IN_H}.guard": False}),
    Row("printed", "uncertainty", "loss of h: printed, the paper's equation, whose sign is inverted", "P1", {f"{IN_H}.loss": "printed", f"{IN_H}.guard": False}),
    Row("min-max", "features", "as smoother-none, certainty by the authors' min-max instead of quantiles", "P1",
        PAPER_ROUTE | {"extract_features.certainty": "min_max"}),
    Row("no-windows", "features", "no windows", "no-uncertainty", {"extract_features.windows": []}),
    Row("short-window", "features", "one window, the shorter", "no-uncertainty",
        {"extract_features.windows": lambda base, _: _windows(base)[:1]}),
    Row("long-window", "features", "one window, the longer", "no-uncertainty",
        {"extract_features.windows": lambda base, _: _windows(base)[-1:]}),
    Row("no-context", "features", "no values before and after", "no-uncertainty",
        {"extract_features.context_points": 0}),
    Row("cross-entropy", "features", "a class for each level instead of L1", "no-uncertainty",
        {"train_mapping.loss": "cross_entropy"}),
    Row("person", "features", "the neutral level over all clips of a person",
        "no-uncertainty", {"extract_features.neutral": "person"}),
    Row("single-spread", "no-pairs", "single image, batches of many videos with two frames of each, a threshold", "value",
        SINGLE | {"sample_pairs.mode": "groups", "sample_pairs.frames": 2, "sample_pairs.folds": 1}),
    Row("network", "uncertainty", "h as a separate network, as in the paper", "P1",
        {f"{IN_H}.kind": "network", f"{IN_H}.network": lambda base, _: _f_network(base, sharing="shared"),
         f"{IN_H}.optimiser": _like_f, f"{IN_H}.augment": _augment}),
    Row("explicit", "pairs", "an explicit list of pairs, with the same number of images per step", "no-uncertainty",
        {"sample_pairs.mode": "reference"}),
    Row("integrated", "pairs", "one trunk for y_hat and sigma", "P1",
        {f"{IN_F}.network.sharing": "integrated", f"{IN_H}.kind": "integrated"}),
    Row("wide", "pairs", "a shared trunk of twice the width, at four times the cost", "no-uncertainty",
        {f"{IN_F}.network": lambda base, _: _f_network(
            base, sharing="shared", width=2 * _width(base))}),
    Row("per-au-narrow", "pairs", "a network for each AU, together about the cost of the shared one",
        "no-uncertainty",
        PER_AU | {f"{IN_F}.network": lambda base, aus: _f_network(
            base, sharing="per_au", width=_width(base) / aus**0.5)}),
    Row("per-au", "pairs", "a network for each AU, each as wide as the shared one", "no-uncertainty", PER_AU),
)  # fmt: skip
"""The rows in the order in which they are run: cheap and informative ones first."""


def select_rows(names: Sequence[str]) -> list[Row]:
    """Return the rows with these names or in these groups, plus the reference row, in the order of ROWS.

    If `names` is empty, all rows are returned.

    Raises:
        ParamsError: no such row or group.
    """
    known = {row.name for row in ROWS} | set(GROUPS)
    for name in names:
        if name not in known:
            todo = did_you_mean(name, known, "`aupair ablate --plan` lists them")
            raise ParamsError("no such row or group", got=name, todo=todo)
    selected = {REFERENCE, *names}
    return [row for row in ROWS if not names or {row.name, row.group} & selected]

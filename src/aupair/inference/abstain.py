"""The share of decisions that `aupair predict` abstains from, given by one of three options."""

from aupair.errors import ParamsError
from aupair.inference.recognizer import BundleRecognizer
from aupair.log import SILENT, Log


def choose_abstain_share(
    recognizer: BundleRecognizer,
    abstain: float | None = None,
    coverage: float | None = None,
    risk: float | None = None,
    log: Log = SILENT,
) -> float | None:
    """Return the share of decisions to abstain from, given at most one of three options; None if there is none.

    Each AU abstains from that share of its active decisions and of its inactive ones, the least confident of `select`.

    Args:
        abstain: the share itself, 0..1.
        coverage: the share to keep, 0..1.
        risk: the accepted share of wrong decisions among those kept, 0..1, at 95 % confidence for people like those of
            `select`; the resulting share is logged.

    Raises:
        ParamsError: several options are given, one is not a share, the risk cannot be achieved, or it is given for a
            recognizer that predicts only some of its AUs.
        ArtifactError: the model was made by a version of aupair that did not store risks.
    """
    share = check_abstain_options(abstain, coverage, risk)
    if risk is None:
        return share
    if recognizer.aus != recognizer.selection.aus:
        todo = "leave one of them out: the risk is that of all AUs of the model together"
        raise ParamsError("these options exclude each other", got="--risk and --aus", todo=todo)
    share = recognizer.selection.confidence.share_for_risk(risk)
    promise = f"at most {100 * risk:g} % are wrong (95 % confidence, people like those of select)"
    log.line(f"abstaining from {100 * share:.0f} % of the decisions, so that {promise}")
    return share


def check_abstain_options(abstain: float | None, coverage: float | None, risk: float | None) -> float | None:
    """Return the share of the options `abstain` and `coverage`, for which no model is needed; None if neither is given.

    Raises:
        ParamsError: several options are given, or one is not a share.
    """
    options = {"--abstain": abstain, "--coverage": coverage, "--risk": risk}
    given = {option: value for option, value in options.items() if value is not None}
    if len(given) > 1:
        raise ParamsError("these options exclude each other", got=" and ".join(given), expected="one of them")
    for option, value in given.items():
        if not 0 <= value <= 1:
            raise ParamsError(f"{option} is not a share", got=value, expected="a number from 0 to 1")
    share = abstain if coverage is None else round(1 - coverage, 9)
    return share or None  # with a share of 0, decisions are kept even if they are less confident than all of select

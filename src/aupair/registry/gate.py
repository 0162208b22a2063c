"""The promotion gate: the conditions under which a version may become the champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from aupair.aus import AFFWILD2, compare_aus
from aupair.documents import read_yaml
from aupair.errors import RegistryError
from aupair.record import Record
from aupair.registry.evidence import Evidence

PATH = Path("mlflow/registry.yaml")

AUS_TAG = "aus"
"""The tag with the AUs of a version, separated by commas; older versions without it have those of Aff-Wild2."""


class Gate(Record):
    """Settings of the gate.

    With a paired interval (`aupair.registry.evidence`), a version is refused if it is significantly worse: the interval of
    the difference in mean F1 lies below zero, or an AU's F1 is lower by more than `f1_margin` and its interval lies below
    zero. Without a paired interval, the numbers in the tags are compared.
    """

    without_interval: Literal["compare", "refuse"] = "compare"
    """without a paired interval: compare the tags, with the margins, or refuse the version"""
    score_margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """without a paired interval: the score may be lower than the champion's by this (mean F1 if the score is undefined)"""
    f1_margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    """the F1 of any AU may be lower than the champion's by this"""
    same_data: bool = True
    """whether the hash of the data must be that of the champion"""


def load_gate(path: Path = PATH) -> Gate:
    """Load the gate, without which nothing can be promoted.

    Raises:
        RegistryError: the file is missing or malformed.
    """
    try:
        return Gate.model_validate(read_yaml(path, RegistryError) or {})
    except FileNotFoundError as error:
        raise RegistryError(
            "no promotion gate", where=path, todo="run it in the project's folder; `aupair init` makes one"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise RegistryError(
            "the promotion gate", where=path, got=f"{key} = {first['input']!r}", expected=first["msg"]
        ) from error


def known_aus(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the AUs of a version from its tags."""
    return tuple(tags[AUS_TAG].split(",")) if AUS_TAG in tags else AFFWILD2


def missing_selection_tags(tags: Mapping[str, str]) -> list[str]:
    """Return the reasons why a version cannot be promoted at all, even with --force; empty if there are none."""
    lacking = [au for au in known_aus(tags) if tags.get(f"selection.{au}") not in ("P1", "P2")]
    return [f"no selection tag (P1: with uncertainty, P2: without) for {', '.join(lacking)}"] if lacking else []


def list_refusals(
    gate: Gate, version: Mapping[str, str], champion: Mapping[str, str], evidence: Evidence | str = "not compared"
) -> list[str]:
    """Return the reasons why a version must not replace the champion; empty if it may.

    Args:
        version, champion: the tags of both.
        evidence: their paired comparison, or the reason why there is none.
    """
    reasons: list[str] = []
    if gate.same_data and version.get("data.md5") != champion.get("data.md5"):
        reasons.append(f"other data ({version.get('data.md5')}, the champion's {champion.get('data.md5')})")
    aus, others = known_aus(version), known_aus(champion)
    if set(aus) != set(others):
        reasons.append(f"other AUs than the champion's ({compare_aus(aus, others)})")
    if isinstance(evidence, Evidence):
        return reasons + _compare_paired(gate, evidence)
    if gate.without_interval == "refuse":
        return [*reasons, f"no paired interval: {evidence}"]
    return reasons + _compare_tags(gate, version, champion)


def _compare_paired(gate: Gate, evidence: Evidence) -> list[str]:
    """Return the figures in which a version is significantly worse than the champion."""
    reasons = [str(evidence)] if evidence.f1.high < 0 else []
    for au, difference in evidence.per_au.items():
        if difference.value < -gate.f1_margin and difference.high < 0:
            reasons.append(f"F1 of {au} on validation {difference}")
    return reasons


def _compare_tags(gate: Gate, version: Mapping[str, str], champion: Mapping[str, str]) -> list[str]:
    """Return the tags in which a version is below the champion by more than the margins."""
    defined = "score.p2" in version.keys() & champion.keys()  # it is undefined if no frame of `select` has all labels
    reasons = _compare_tag(
        "score.p2" if defined or "f1.p2" not in champion else "f1.p2", gate.score_margin, version, champion
    )
    for au in known_aus(version):
        reasons += _compare_tag(f"f1.{au}", gate.f1_margin, version, champion)
    return reasons


def _compare_tag(tag: str, margin: float, version: Mapping[str, str], champion: Mapping[str, str]) -> list[str]:
    """Return a list with a description of the difference if a number is worse than the champion's; else an empty list.

    A number that only the champion has counts as worse.
    """
    if tag not in champion:
        return []
    if tag not in version:
        return [f"no {tag}"]
    new, old = float(version[tag]), float(champion[tag])
    # A tag has six decimals; a difference of half a unit of the last one counts as equal.
    return [f"{tag} {new:.3f} against {old:.3f}"] if not new >= old - margin - 5e-7 else []

"""The promotion gate, by tags alone."""

from pathlib import Path

import pytest

from aupair.aus import AFFWILD2
from aupair.errors import RegistryError
from aupair.registry.gate import Gate, list_refusals, load_gate, missing_selection_tags
from bundle_parts import AU_SETS

REPOSITORY = Path(__file__).parents[2]


def tags(score: float = 0.6, f1: float = 0.5, data: str = "a.dir") -> dict[str, str]:
    numbers = {f"f1.{au}": f"{f1:.6f}" for au in AFFWILD2}
    return {f"selection.{au}": "P1" for au in AFFWILD2} | numbers | {"score.p2": f"{score:.6f}", "data.md5": data}


def without(*names: str) -> dict[str, str]:
    return {key: value for key, value in tags().items() if key not in names}


@pytest.mark.parametrize(
    ("gate", "version", "refusals"),
    [
        (Gate(), tags(), []),
        (Gate(), tags(score=0.7, f1=0.9), []),
        (Gate(), tags(score=0.599), ["score.p2 0.599 against 0.600"]),
        (Gate(score_margin=0.01), tags(score=0.599), []),
        (Gate(score_margin=0.01), tags(score=0.59), []),
        (Gate(score_margin=0.01), tags(score=0.589), ["score.p2 0.589 against 0.600"]),
        (Gate(), tags(score=0.9) | {"f1.AU15": "0.440000"}, ["f1.AU15 0.440 against 0.500"]),
        (Gate(), tags(score=0.9) | {"f1.AU15": "0.460000"}, []),
        (Gate(), without("score.p2", "f1.AU4"), ["no score.p2", "no f1.AU4"]),
        (Gate(), tags(score=float("nan")), ["score.p2 nan against 0.600"]),
        (Gate(), tags(data="b.dir"), ["other data (b.dir, the champion's a.dir)"]),
        (Gate(same_data=False), tags(data="b.dir"), []),
    ],
)
def test_the_gate_refuses_what_is_worse_than_its_margins(
    gate: Gate, version: dict[str, str], refusals: list[str]
) -> None:
    assert list_refusals(gate, version, tags()) == refusals


def test_a_number_that_only_the_version_has_is_not_compared() -> None:
    assert list_refusals(Gate(), tags(), without("score.p2", "f1.AU4")) == []


def scored_by_f1(mean: float, *without: str) -> dict[str, str]:
    """Return the tags of a version whose score is undefined."""
    version = tags() | {"f1.p2": f"{mean:.6f}"}
    return {key: value for key, value in version.items() if key not in ("score.p2", *without)}


@pytest.mark.parametrize(
    ("version", "champion", "refusals"),
    [
        (scored_by_f1(0.5), scored_by_f1(0.5), []),
        (scored_by_f1(0.49), scored_by_f1(0.5), ["f1.p2 0.490 against 0.500"]),
        (scored_by_f1(0.6) | {"f1.AU4": "0.4"}, scored_by_f1(0.5), ["f1.AU4 0.400 against 0.500"]),
        (scored_by_f1(0.49), tags() | {"f1.p2": "0.5"}, ["f1.p2 0.490 against 0.500"]),
        (tags() | {"f1.p2": "0.49"}, scored_by_f1(0.5), ["f1.p2 0.490 against 0.500"]),
        (tags() | {"f1.p2": "0.4"}, tags() | {"f1.p2": "0.5"}, []),
        (scored_by_f1(0.5), tags(), ["no score.p2"]),
        (scored_by_f1(0.5, "f1.AU4"), scored_by_f1(0.5, "f1.AU4"), []),
        (scored_by_f1(0.5, "f1.AU4"), scored_by_f1(0.5), ["no f1.AU4"]),
    ],
    ids=[
        "equal", "a lower mean", "an AU", "against one with a score", "by one with a score", "both have a score",
        "against one of before", "an AU is undefined in both", "an AU is undefined in the version",
    ],
)  # fmt: skip
def test_where_the_score_is_undefined_f1_is_compared(
    version: dict[str, str], champion: dict[str, str], refusals: list[str]
) -> None:
    assert list_refusals(Gate(), version, champion) == refusals


@pytest.mark.parametrize(
    ("version", "champion", "refusals"),
    [
        (tags() | {"aus": ",".join(AFFWILD2)}, tags(), []),
        (tags(), tags() | {"aus": ",".join(AFFWILD2[::-1])}, []),
        (
            tags() | {"aus": "AU1,AU2,AU12L,AU12R", "f1.AU12L": "0.1"},
            tags() | {"aus": "AU1,AU2,AU12"},
            ["other AUs than the champion's (without AU12 and also AU12L, AU12R)"],
        ),
        (tags() | {"aus": "AU1,AU2"}, tags() | {"aus": "AU1"}, ["other AUs than the champion's (also AU2)"]),
        (
            tags() | {"aus": "AU1", "f1.AU1": "0.2"},
            tags() | {"aus": "AU1,AU4"},
            ["other AUs than the champion's (without AU4)", "f1.AU1 0.200 against 0.500"],
        ),
    ],
    ids=["of before", "another order", "sides", "one more", "one less"],
)
def test_a_version_for_other_aus_is_refused_by_their_names(
    version: dict[str, str], champion: dict[str, str], refusals: list[str]
) -> None:
    assert list_refusals(Gate(), version, champion) == refusals


@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
def test_each_au_of_the_version_needs_its_choice(aus: tuple[str, ...]) -> None:
    version = {"aus": ",".join(aus)} | {f"selection.{au}": "P2" for au in aus}
    assert missing_selection_tags(version) == []
    del version[f"selection.{aus[-1]}"]
    assert missing_selection_tags(version) == [f"no selection tag (P1: with uncertainty, P2: without) for {aus[-1]}"]


def test_a_version_of_before_needs_the_choices_of_affwild2() -> None:
    assert missing_selection_tags(tags()) == []
    lacking = without("selection.AU12") | {"selection.AU26": "P3"}
    assert missing_selection_tags(lacking) == ["no selection tag (P1: with uncertainty, P2: without) for AU12, AU26"]


def test_the_repository_s_gate_is_valid_and_says_all() -> None:
    assert load_gate(REPOSITORY / "mlflow" / "registry.yaml") == Gate()
    text = (REPOSITORY / "mlflow" / "registry.yaml").read_text()
    assert all(f"\n{key}:" in text for key in Gate.model_fields)


def test_mlflow_s_folder_holds_no_python() -> None:
    files = [path for path in (REPOSITORY / "mlflow").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix == ".py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("f1_margin: -1", "f1_margin = -1"), ("marge: 1", "marge"), ("a: [", "not YAML"), ("- 1", "Gate")],
)
def test_a_wrong_gate_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "registry.yaml").write_text(text)
    with pytest.raises(RegistryError, match=message) as caught:
        load_gate(tmp_path / "registry.yaml")
    assert "\n" not in str(caught.value)


def test_without_a_gate_nothing_is_promoted(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no promotion gate"):
        load_gate(tmp_path / "registry.yaml")

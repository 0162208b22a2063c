"""Names of AUs: which are allowed, and what they are called in the Facial Action Coding System."""

import pytest

from aupair.aus import AFFWILD2, check_au_names, describe_au, is_one_sided, label_au
from aupair.errors import AupairError, DataError
from aupair.params import Params, parse_params


@pytest.mark.parametrize(
    "names", [AFFWILD2, ("AU9",), ("AU12L", "AU12R", "AU43"), ("smile", "Head-nod", "x" * 40), ("AU1", "AU10", "AU100")]
)
def test_allowed_names(names: tuple[str, ...]) -> None:
    check_au_names(names, "here")
    assert parse_params({"aus": list(names)}).aus == names
    assert parse_params({"aus": ",".join(names)}).aus == names, "as text, in which Kubeflow passes them"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no AU: in here, expected names such as AU1,AU2,AU12L"),
        (("AU1", "AU2", "AU1"), "an AU is named twice: in here, got AU1, expected each AU once"),
        (("AU1", "au1"), "an AU is named twice: in here, got AU1 and au1, expected each AU once"),
        (("frame",), "a reserved word as the name of an AU: in here, got frame, expected another name"),
        (("Video",), "a reserved word as the name of an AU: in here, got Video"),
        (("P1",), "a reserved word as the name of an AU: in here, got P1"),
        (("AU1_raw",), "not the name of an AU: in here, got AU1_raw, expected a letter, then letters"),
        (("1",), "not the name of an AU: in here, got 1"),
        (("",), "not the name of an AU: in here, got nothing"),
        (("a b",), "not the name of an AU: in here, got a b"),
        (("x" * 41,), "not the name of an AU"),
        (("b\x1b[31m",), r"not the name of an AU: in here, got 'b\x1b[31m'"),
    ],
)
def test_other_names_are_one_line(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_au_names(names, "here")
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()
    with pytest.raises(AupairError, match=r"parameter aus: in params, got .*, expected all, or different names"):
        parse_params({"aus": list(names)})


def test_all_is_the_default_and_a_list_is_written_as_text() -> None:
    assert Params().model_dump(mode="json")["aus"] == "all"
    chosen = parse_params({"aus": ["AU9", "smile"]})
    assert chosen.model_dump(mode="json")["aus"] == "AU9,smile"
    assert parse_params(chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AU12", "lip corner puller"), ("AU12L", "lip corner puller, left"), ("AU12R", "lip corner puller, right"),
        ("AU43", "eyes closed"), ("smile", ""), ("SMILER", ""), ("AU99", ""), ("L", ""),
    ],
)  # fmt: skip
def test_names_of_the_coding_system(name: str, text: str) -> None:
    assert describe_au(name) == text
    assert label_au(name) == f"{name} {text}".strip()


@pytest.mark.parametrize(
    ("name", "one_sided"),
    [
        ("AU12", False), ("AU12L", True), ("AU1R", True), ("smile", False), ("wink-left", True), ("Right-brow", True),
        ("browRight", True), ("upright", False), ("bright-eyes", False), ("CL", False), ("LEFT", True),
    ],
)  # fmt: skip
def test_one_sided_aus_are_known_by_their_names(name: str, one_sided: bool) -> None:
    assert is_one_sided(name) == one_sided

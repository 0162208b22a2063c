"""The bundle: what is in it, its hash, its card."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from aupair import store
from aupair.aus import AFFWILD2, describe_au, stored_aus
from aupair.errors import ArtifactError
from aupair.inference.bundle import Parts, write_bundle
from aupair.inference.integrity import bundle_hash
from aupair.inference.recognizer import BundleRecognizer
from aupair.params import Params, parse_params
from bundle_parts import AU_SETS, write_parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return write_parts(tmp_path / "work")


def test_equal_inputs_give_the_same_hash_and_any_change_another(parts: Parts, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", parts, Params())
    for path in (tmp_path / "work").rglob("*"):
        os.utime(path, (1, 1))
    assert write_bundle(tmp_path / "b", parts, Params()) == first
    assert write_bundle(tmp_path / "b", parts, parse_params({"seed": 1})) != first
    (parts.f[0] / "final.safetensors").write_bytes(b"g")
    assert write_bundle(tmp_path / "b", parts, Params()) != first


def test_the_hash_sees_names_and_where_one_file_ends(parts: Parts, tmp_path: Path) -> None:
    whole = write_bundle(tmp_path / "a", parts, Params())
    extra = tmp_path / "a" / "f" / "x"
    extra.write_bytes(b"")
    named = bundle_hash(tmp_path / "a")
    extra.rename(extra.with_name("y"))
    assert len({whole, named, bundle_hash(tmp_path / "a")}) == 3


def test_curves_and_scores_of_frames_stay_behind(parts: Parts, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", parts, Params())
    (parts.f[0] / "curves.jsonl").write_text("{}\n")
    (parts.f[0] / "y_hat.safetensors").write_bytes(b"scores of frames")
    (parts.h / "sigma.safetensors").write_bytes(b"scores of frames")
    (parts.features / "features.npy").write_bytes(b"features of frames")
    (parts.mapping / "constant.safetensors").write_bytes(b"a route that decides nothing")
    assert write_bundle(tmp_path / "b", parts, Params()) == first
    assert sorted(path.name for path in (tmp_path / "b" / "f" / "0").iterdir()) == ["about.json", "final.safetensors"]
    suffixes = {path.suffix for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".txt", ".md"}, "no pickle"


def test_the_card_says_data_scores_choices_and_limits(parts: Parts, tmp_path: Path) -> None:
    rows = [{"name": "P2", "split": "validation", "f1": 0.1234, "accuracy": 0.5, "score": None, "per_au": {}}]
    store.write_json(parts.metrics, {"rows": rows})
    write_bundle(tmp_path / "a", parts, Params())
    card = (tmp_path / "a" / "MODEL_CARD.md").read_text()
    for text in (
        "a.dir", "networks of f: final of trial 0", "| P2 | validation | 0.123 | 0.500 | undefined |",
        "| AU1 | inner brow raiser | with |", "| AU26 | jaw drop | without |", "iBUG 300-W", "ipazc/mtcnn", "(n, 224, 224, 3)",
    ):  # fmt: skip
        assert text in card
    assert "ImageNet's weights are" not in card, "the terms are the data set's"
    assert "torch==" in (tmp_path / "a" / "requirements.txt").read_text()


@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
def test_the_card_lists_the_aus_by_their_names(tmp_path: Path, aus: tuple[str, ...]) -> None:
    write_bundle(tmp_path / "a", write_parts(tmp_path / "work", aus=aus), Params())
    rows = [line for line in (tmp_path / "a" / "MODEL_CARD.md").read_text().splitlines() if line.endswith(" |")]
    table = rows[rows.index("| AU | name in FACS | mapping |") + 1 :]
    assert table == [f"| {au} | {describe_au(au)} | {'with' if k < 3 else 'without'} |" for k, au in enumerate(aus)]
    assert store.read_json(tmp_path / "a" / "selection.json")["aus"] == list(aus)


def test_a_bundle_of_before_has_the_aus_of_affwild2(parts: Parts, tmp_path: Path) -> None:
    tree = store.read_json(parts.selection)
    assert stored_aus(tree) == AFFWILD2
    del tree["aus"]
    store.write_json(parts.selection, tree)
    write_bundle(tmp_path / "a", parts, Params())
    card = (tmp_path / "a" / "MODEL_CARD.md").read_text()
    assert [au for au in AFFWILD2 if f"| {au} | {describe_au(au)} | with" not in card] == []
    store.write_json(parts.f[0] / "about.json", {"aus": AU_SETS["three"], "standardisation": {"final": {}}})
    with pytest.raises(ArtifactError, match="got without AU1, AU2, "):
        write_bundle(tmp_path / "b", parts, Params())


@pytest.mark.parametrize(
    ("aus", "got"),
    [
        (("AU12L", "AU9"), "without AU12R and also AU9"),
        (("AU12R", "AU12L"), "in another order"),
        (("AU12L", "AU12R", "AU9"), "also AU9"),
    ],
)
@pytest.mark.parametrize("part", ["f/0", "h", "mapping"])
def test_parts_of_other_aus_are_one_line_when_written_and_when_loaded(
    tmp_path: Path, part: str, aus: tuple[str, ...], got: str
) -> None:
    parts = write_parts(tmp_path / "work", aus=("AU12L", "AU12R"))
    write_bundle(tmp_path / "good", parts, Params())
    other = tmp_path / "work" / part / "about.json"
    store.write_json(other, {"aus": aus, "standardisation": {"final": {}}})
    with pytest.raises(ArtifactError) as caught:
        write_bundle(tmp_path / "bad", parts, Params())
    text = f", got {got}, expected AU12L, AU12R; run the flow again from check-data on"
    assert str(caught.value) == f"other AUs than the selection's: in {other}{text}"
    assert not (tmp_path / "bad").exists()
    loaded, about = tmp_path / "good" / part / "about.json", tmp_path / "good" / "about.json"
    store.write_json(loaded, {"aus": aus})
    tree = store.read_json(about)
    store.write_json(about, {"format": 2, "members": tree["members"], "files": list(tree["files"])})  # without hashes
    with pytest.raises(ArtifactError) as caught:
        BundleRecognizer.load(tmp_path / "good", "cpu")
    assert str(caught.value) == f"other AUs than the selection's: in {loaded}{text}"


def test_an_au_without_a_choice_is_one_line(tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "work", aus=("AU4", "AU9"))
    tree = store.read_json(parts.selection)
    del tree["AU9"]
    store.write_json(parts.selection, tree)
    with pytest.raises(ArtifactError, match=r"^a selection without some of its AUs: in \S+, got no AU9; run evaluate"):
        write_bundle(tmp_path / "a", parts, Params())
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["h", "features", "metrics"])
def test_a_missing_part_is_one_line_and_leaves_nothing(parts: Parts, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="nowhere") as caught:
        write_bundle(tmp_path / "out" / "a", replace(parts, **{name: tmp_path / "nowhere"}), Params())
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_incomplete_folder_has_no_hash(parts: Parts, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", parts, Params())
    (tmp_path / "a" / "h" / "final.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"no h/final\.safetensors"):
        bundle_hash(tmp_path / "a")

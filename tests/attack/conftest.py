"""Shared by the kills and the races: the folders in which they happen."""

from pathlib import Path

import pytest

from attack.kills import write_templates
from attack.sandbox import run


@pytest.fixture(scope="session")
def templates(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of which each command gets a copy, see `write_templates`."""
    base = tmp_path_factory.mktemp("templates")
    verdict = run(write_templates, base, finished)
    assert verdict.kind == "accepted", verdict.detail
    return base

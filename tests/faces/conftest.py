"""What the tests of preprocess share."""

from collections.abc import Callable, Iterator

import pytest

from aupair.faces import folder
from aupair.faces.folder import Job, VideoReport


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this process, which has loaded the models: others are tested with any number of workers and crashes."""

    def each(
        function: Callable[[Job], VideoReport], tasks: list[Job], workers: int
    ) -> Iterator[tuple[Job, VideoReport]]:
        yield from ((task, function(task)) for task in tasks)

    monkeypatch.setattr(folder.pool, "each", each)

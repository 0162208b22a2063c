"""What the tests of preprocess share."""

from collections.abc import Callable, Iterator

import pytest

from aupair.data.layout import VideoJob
from aupair.faces import folder
from aupair.faces.folder import VideoReport


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this process, which has loaded the models: others are tested with any number of workers and crashes."""

    def run_in_processes(
        function: Callable[[VideoJob], VideoReport], tasks: list[VideoJob], workers: int
    ) -> Iterator[tuple[VideoJob, VideoReport]]:
        yield from ((task, function(task)) for task in tasks)

    monkeypatch.setattr(folder.pool, "run_in_processes", run_in_processes)

"""The first task reports a volume that cannot be written; one that is only read is not checked."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aupair.errors import DataError
from aupair.kubeflow.local import _environment
from aupair.kubeflow.shards import write_shard_plan
from aupair.kubeflow.step import fetch_data_folder
from aupair.kubeflow.volumes import check_volumes
from kfp_artifact import Artifact


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a mounted folder in which nothing can be made, also by root: a file stands where the folder should be."""
    folder = tmp_path / "file" / "checkpoints"
    folder.parent.write_text("")
    monkeypatch.setenv("AUPAIR_VOLUMES", f"{tmp_path}:{folder}")
    return folder


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_volumes("s3://bucket/data")
    monkeypatch.setenv("AUPAIR_VOLUMES", f"{tmp_path}:{tmp_path / 'a/b'}")
    check_volumes("s3://bucket/data")
    assert not list((tmp_path / "a/b").iterdir())


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        (fetch_data_folder, ("s3://bucket/data", "", "")),
        (write_shard_plan, ("s3://bucket/videos", "models:/aupair/1", 2)),
    ],
)
def test_the_first_task_fails_in_one_line(
    locked: Path, tmp_path: Path, task: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    output = Artifact(tmp_path / "output")
    with pytest.raises(DataError, match=rf"the volume cannot be written: in {locked}, got .* for user .*run_as_user"):
        task(*arguments, output)
    assert not Path(output.path).exists()


def test_a_volume_with_the_source_is_only_read(locked: Path) -> None:
    check_volumes(f"{locked}/data", "models:/aupair/1")


def test_a_local_run_leaves_the_volumes_of_the_cluster_alone(
    locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _environment("run", {}, tmp_path / "out").items():  # which win over those of the compiled file
        monkeypatch.setenv(name, value)
    check_volumes("data")

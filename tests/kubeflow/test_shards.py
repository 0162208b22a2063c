"""The prediction pipeline's steps on a real bundle: videos are assigned to shards, predicted, and their tables merged."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupair import store
from aupair.errors import DataError, ParamsError
from aupair.inference.summary import Summary
from aupair.kubeflow.shards import (
    _assign_shards,
    _render_overview,
    merge_shard_tables,
    predict_shard_videos,
    write_shard_plan,
)
from kfp_artifact import Artifact


def test_videos_are_spread_over_shards_of_similar_total_size() -> None:
    sizes = [int(size) for size in np.random.default_rng(0).integers(1, 1000, 50)]
    assigned = _assign_shards(sizes, 4)
    sums = [sum(size for size, shard in zip(sizes, assigned) if shard == k) for k in range(4)]
    assert set(assigned) == {0, 1, 2, 3}
    assert max(sums) - min(sums) <= max(sizes)
    assert _assign_shards([5, 5], 7) == [0, 1], "no shard is empty"
    assert _assign_shards([0, 0, 0], 2) in ([0, 1, 0], [0, 1, 1]), "empty files are spread as well"


@pytest.mark.slow
def test_shards_give_what_one_predict_gives(
    home: Path, tmp_path: Path, aupair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow caches connections by URI: a relative URI would be another test's store in this process
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    assert aupair("run", "register-model").code == 0
    assert aupair("registry", "promote", "1").code == 0
    source = tmp_path / "recordings"
    (source / "x").mkdir(parents=True)
    for name, clip in (("a.mp4", "s000c0"), ("b.mp4", "s001c0"), ("x/a.mp4", "s002c0")):
        (source / name).write_bytes((home / "data/videos" / f"{clip}.mp4").read_bytes())
    (source / "broken.mp4").write_text("no video")
    (source / "notes.txt").write_text("no video either")

    plan = Artifact(tmp_path / "plan")
    shards = write_shard_plan(str(source), "models:/aupair@champion", 2, plan)
    assert shards == [0, 1]
    planned = store.read_json(Path(plan.path))
    assert planned["model"] == "models:/aupair/1", "all shards use one version, even if the alias moves meanwhile"
    assert len(planned["videos"]) == 4
    tables = [Artifact(tmp_path / f"tables{shard}") for shard in shards]
    for shard in shards:
        predict_shard_videos(shard, 0.2, plan, tables[shard])
    predictions, overview = Artifact(tmp_path / "predictions"), Artifact(tmp_path / "overview")
    merge_shard_tables(tables, predictions, overview)

    assert aupair("predict", source, "--out", tmp_path / "one", "--abstain", ".2").code == 0
    # a pipeline writes to a folder of its own, so that it has no settings to compare
    names = {path.name for path in (tmp_path / "one").iterdir()} - {"predict.json"}
    assert {path.name for path in Path(predictions.path).iterdir()} == names
    for name in names - {"summary.csv"}:
        assert (Path(predictions.path) / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    with open(Path(predictions.path) / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["status"]) for row in rows] == [
        ("a.mp4", "ok"), ("b.mp4", "ok"), ("broken.mp4", "unreadable"), ("x/a.mp4", "ok"),
    ]  # fmt: skip
    text = Path(overview.path).read_text()
    assert text.startswith("# 4 videos, 90 frames")
    assert "| broken.mp4 | unreadable |" in text


def test_without_a_readable_video_the_overview_is_there_and_the_task_fails(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    header = "video,status,frames,faces,message,output\n"
    (folder / "summary.csv").write_text(header + "a.mp4,unreadable,0,0,not a video,\n")
    predictions, overview = Artifact(tmp_path / "predictions"), Artifact(tmp_path / "overview")
    with pytest.raises(DataError, match="no video could be read, got not a video"):
        merge_shard_tables([Artifact(folder)], predictions, overview)
    assert not Path(predictions.path).exists()
    assert "a.mp4" in Path(overview.path).read_text()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    plan = Artifact(tmp_path / "plan")
    with pytest.raises(ParamsError, match="too few shards, got 0"):
        write_shard_plan(str(tmp_path), "x", 0, plan)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no video: in"):
        write_shard_plan(str(tmp_path), "x", 1, plan)
    with pytest.raises(ParamsError, match="abstain is not a share, got 2"):
        predict_shard_videos(0, 2.0, plan, Artifact(tmp_path / "tables"))


def test_an_overview_stays_short() -> None:
    text = _render_overview([Summary(f"v{k}.mp4", "unreadable", 0, 0, "cut | off") for k in range(60)])
    assert text.count(".mp4 |") == 50
    assert "and 10 more" in text
    assert "cut / off" in text

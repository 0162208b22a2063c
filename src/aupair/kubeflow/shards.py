"""The steps of pipelines/predict.py: assign videos to shards, predict the videos of one shard, and merge the tables."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aupair import store
from aupair.console import ConsoleLog
from aupair.data.fetch import fetch, list_source
from aupair.data.s3 import Item
from aupair.errors import DataError, ParamsError
from aupair.inference.predict import write_predictions
from aupair.inference.summary import SUMMARY, Summary, read_summary, write_summary
from aupair.inference.videos import SUFFIXES, output_names
from aupair.kubeflow.limits import check_shards
from aupair.kubeflow.step import KfpArtifact
from aupair.kubeflow.volumes import check_volumes
from aupair.registry.versions import pin_version

_SHOWN_VIDEOS = 50
"""Maximum number of videos in the overview; summary.csv has all."""


def write_shard_plan(source: str, model: str, shards: int, plan: KfpArtifact) -> list[int]:
    """Write the assignment of videos to shards, and the version of the model.

    Args:
        source: `s3://bucket/prefix`, or a folder.
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a bundle's folder.
        shards: the maximum number of shards.
        plan: the file to write: the source, the model, and the videos with their shards.

    Returns:
        The numbers of the shards.

    Raises:
        ParamsError: `shards` is not positive, or too large for Kubeflow.
        DataError: there is no video, or a volume cannot be written.
        RegistryError: the model is missing.
    """
    if shards < 1:
        raise ParamsError("too few shards", got=shards, expected="at least 1")
    check_shards(shards)
    check_volumes(source, model)
    items = [item for item in list_source(source) if Path(item.name).suffix.lower() in SUFFIXES]
    if not items:
        raise DataError("no video", where=source, expected=f"files such as *{SUFFIXES[0]}")
    top = Path("/", Path(source).name or "videos")
    names = output_names([top / item.name for item in items])
    shard_of = _assign_shards([item.size for item in items], shards)
    videos = [{**asdict(item), "output": name, "shard": k} for item, name, k in zip(items, names, shard_of)]
    store.write_json(Path(plan.path), {"source": source, "model": pin_version(model), "videos": videos})
    return sorted(set(shard_of))


def _assign_shards(sizes: Sequence[int], shards: int) -> list[int]:
    """Return a shard for each size; greedily balanced: each size, the largest first, is added to the smallest sum."""
    sums = [0] * min(shards, len(sizes))
    assigned = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        assigned[index] = sums.index(min(sums))
        sums[assigned[index]] += max(sizes[index], 1)
    return assigned


def predict_shard_videos(shard: int, abstain: float, plan: KfpArtifact, tables: KfpArtifact) -> None:
    """Fetch and predict the videos of one shard; an unreadable video only gets a row in the summary.

    Args:
        abstain: the share of decisions to abstain from, 0..1; 0: none.

    Raises:
        ParamsError: `abstain` is not a share.
        AupairError: the videos cannot be fetched, or the model cannot be loaded.
    """
    from aupair.api import Recognizer

    if not 0 <= abstain <= 1:
        raise ParamsError("abstain is not a share", got=abstain, expected="a number from 0 to 1")
    planned = store.read_json(Path(plan.path))
    with store.fitting(Path(plan.path)):
        assigned: list[dict[str, Any]] = [video for video in planned["videos"] if video["shard"] == shard]
        items = [Item(video["name"], video["size"], video["etag"]) for video in assigned]
    recognizer, log = Recognizer.load(planned["model"]), ConsoleLog()
    with tempfile.TemporaryDirectory() as folder, store.atomic(Path(tables.path)) as out:
        fetch(planned["source"], Path(folder, "videos"), items=items, log=log)
        videos = [(Path(folder, "videos", video["name"]), video["output"]) for video in assigned]
        rows = write_predictions(videos, recognizer, out, abstain or None, log)
        # the videos are named as in the source, not as in the temporary folder
        write_summary(out / f"{SUMMARY}.csv", [replace(row, video=item.name) for row, item in zip(rows, items)])


def merge_shard_tables(tables: Sequence[KfpArtifact], predictions: KfpArtifact, overview: KfpArtifact) -> None:
    """Copy the tables of all shards into one folder with one summary, and write an overview of the videos.

    Raises:
        DataError: no video could be read.
    """
    rows: list[Summary] = []
    with store.atomic(Path(predictions.path)) as out:
        out.mkdir()
        for artifact in tables:
            for path in sorted(Path(artifact.path).iterdir()):
                if path.name == f"{SUMMARY}.csv":
                    rows += read_summary(path)
                else:
                    shutil.copyfile(path, out / path.name)
        rows.sort(key=lambda row: row.video)
        write_summary(out / f"{SUMMARY}.csv", rows)
        store.write_text(Path(overview.path), _render_overview(rows))
        if not any(row.frames for row in rows):
            raise DataError("no video could be read", got=rows[0].message, todo="see the overview for each")


def _render_overview(rows: Sequence[Summary]) -> str:
    """Return Markdown with the number of videos of each status, and a list of those that are not ok."""
    counts = Counter(row.status for row in rows)
    lines = [f"# {len(rows)} videos, {sum(row.frames for row in rows)} frames", ""]
    lines += [f"* {status}: {number}" for status, number in counts.most_common()]
    listed = [row for row in rows if row.status != "ok" or row.message]
    if listed:
        lines += ["", "| video | status | why |", "| --- | --- | --- |"]
        lines += [f"| {row.video} | {row.status} | {row.message.replace('|', '/')} |" for row in listed[:_SHOWN_VIDEOS]]
    if len(listed) > _SHOWN_VIDEOS:
        lines.append(f"\n... and {len(listed) - _SHOWN_VIDEOS} more, in summary.csv")
    return "\n".join(lines) + "\n"

"""The prediction pipeline's steps: list and deal out the videos, predict a share of them, put the shares together."""

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aupair import store
from aupair.console import ConsoleLog
from aupair.data.fetch import fetch_items, list_source
from aupair.data.s3 import Item
from aupair.errors import DataError, ParamsError
from aupair.inference.predict import SUFFIXES, SUMMARY, Summary, output_names, write_predictions, write_summary
from aupair.kubeflow.step import Artifact
from aupair.registry.versions import pin_version

SHOWN = 50
"""Videos that the overview names; summary.csv has all."""


def plan_shards(source: str, model: str, shards: int, plan: Artifact) -> list[int]:
    """List the videos of a source, pin the model's version, and deal the videos out.

    Args:
        source: `s3://bucket/prefix`, or a folder.
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a bundle's folder.
        shards: at most how many shares.
        plan: what each shard needs: the source, the model, its videos.

    Returns:
        the numbers of the shards.

    Raises:
        ParamsError: `shards` is not positive.
        DataError: there is no video.
        RegistryError: the model is missing.
    """
    if shards < 1:
        raise ParamsError("parameter shards", got=shards, expected="at least 1")
    items = [item for item in list_source(source) if Path(item.name).suffix.lower() in SUFFIXES]
    if not items:
        raise DataError("no video", where=source, expected=f"files such as *{SUFFIXES[0]}")
    top = Path("/", Path(source).name or "videos")
    names = output_names([top / item.name for item in items])
    shard_of = deal([item.size for item in items], shards)
    videos = [{**asdict(item), "output": name, "shard": k} for item, name, k in zip(items, names, shard_of)]
    store.write_json(Path(plan.path), {"source": source, "model": pin_version(model), "videos": videos})
    return sorted(set(shard_of))


def deal(sizes: Sequence[int], shards: int) -> list[int]:
    """Give each size a shard, so that the sums are near each other: the largest first, always to the smallest sum."""
    sums = [0] * min(shards, len(sizes))
    found = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        found[index] = sums.index(min(sums))
        sums[found[index]] += max(sizes[index], 1)
    return found


def predict_shard(shard: int, abstain: float, plan: Artifact, tables: Artifact) -> None:
    """Fetch a shard's videos and predict them; one that cannot be read is a row of the summary.

    Args:
        abstain: the share of decisions to leave out, 0..1; 0: none.

    Raises:
        ParamsError: `abstain` is not a share.
        AupairError: the videos cannot be fetched, or the model cannot be loaded.
    """
    from aupair.api import Recognizer

    if not 0 <= abstain <= 1:
        raise ParamsError("parameter abstain", got=abstain, expected="a share from 0 to 1")
    planned = store.read_json(Path(plan.path))
    mine: list[dict[str, Any]] = [video for video in planned["videos"] if video["shard"] == shard]
    items = [Item(video["name"], video["size"], video["etag"]) for video in mine]
    recognizer, log = Recognizer.load(planned["model"]), ConsoleLog()
    with tempfile.TemporaryDirectory() as folder, store.atomic(Path(tables.path)) as out:
        fetch_items(planned["source"], items, Path(folder, "videos"), log)
        videos = [(Path(folder, "videos", video["name"]), video["output"]) for video in mine]
        rows = write_predictions(videos, recognizer, out, abstain or None, log)
        # by their names in the source: where they lay here means nothing to anyone
        write_summary(out / f"{SUMMARY}.csv", [replace(row, video=item.name) for row, item in zip(rows, items)])


def gather_predictions(tables: Sequence[Artifact], predictions: Artifact, overview: Artifact) -> None:
    """Put the shards' tables into one folder with one summary, and say what became of the videos.

    Raises:
        DataError: no video at all could be read.
    """
    rows: list[Summary] = []
    with store.atomic(Path(predictions.path)) as out:
        out.mkdir()
        for artifact in tables:
            for path in sorted(Path(artifact.path).iterdir()):
                if path.name == f"{SUMMARY}.csv":
                    rows += _read_summary(path)
                else:
                    shutil.copyfile(path, out / path.name)
        rows.sort(key=lambda row: row.video)
        write_summary(out / f"{SUMMARY}.csv", rows)
        store.write_text(Path(overview.path), overview_of(rows))
        if not any(row.frames for row in rows):
            raise DataError("no video could be read", got=rows[0].message, todo="the overview names each")


def overview_of(rows: Sequence[Summary]) -> str:
    """Say how many videos became what, and name those that are not ok."""
    counts = Counter(row.status for row in rows)
    lines = [f"# {len(rows)} videos, {sum(row.frames for row in rows)} frames", ""]
    lines += [f"* {status}: {number}" for status, number in counts.most_common()]
    told = [row for row in rows if row.status != "ok" or row.message]
    if told:
        lines += ["", "| video | status | why |", "| --- | --- | --- |"]
        lines += [f"| {row.video} | {row.status} | {row.message.replace('|', '/')} |" for row in told[:SHOWN]]
    if len(told) > SHOWN:
        lines.append(f"\n... and {len(told) - SHOWN} more, in summary.csv")
    return "\n".join(lines) + "\n"


def _read_summary(path: Path) -> list[Summary]:
    with open(path, newline="") as file:
        return [
            Summary(row["video"], row["status"], int(row["frames"]), int(row["faces"]), row["message"], row["output"])
            for row in csv.DictReader(file)
        ]

"""The output folder of `aupair predict`: predict.json has the model and the settings of its results.

A run with the same model and settings continues there, without predicting finished videos again. A run with another model or
other settings is rejected.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aupair import store
from aupair.errors import ArtifactError
from aupair.inference.summary import SUMMARY, Summary, read_summary
from aupair.inference.videos import output_names

SETTINGS = "predict.json"
_TODO = "name another folder for --out, or replace them by --overwrite"


def describe_settings(
    model: str, sha256: str, aus: Sequence[str], abstain: float | None, subjects: Path | None
) -> dict[str, Any]:
    """Return the settings on which the results of a video depend.

    Args:
        model: its name as given.
        sha256: the SHA-256 that identifies the model.
    """
    people = None if subjects is None or not subjects.is_file() else store.sha256(subjects)
    return {"model": model, "model_sha256": sha256, "aus": ",".join(aus), "abstain": abstain, "subjects": people}


def check_output(videos: Sequence[Path], out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Check that `claim_output` and `find_finished` will not refuse a folder; nothing is written.

    Args:
        settings: those that are known before the model is loaded.

    Raises:
        ArtifactError: the folder has results of another model, of other settings, or of another video of the same name.
        AupairError: the folder cannot be written.
    """
    store.check_writable(out / SETTINGS)
    find_finished(list(zip(videos, output_names(videos))), out, _read_earlier(out, settings, overwrite))


def claim_output(out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> list[Summary]:
    """Write the settings to a folder, and return the rows of summary.csv of earlier runs with the same settings.

    Args:
        overwrite: replace existing results instead of continuing.

    Raises:
        ArtifactError: the folder has results of another model or of other settings.
        AupairError: the folder cannot be written.
    """
    summary, path = out / f"{SUMMARY}.csv", out / SETTINGS
    store.check_writable(path)
    earlier = _read_earlier(out, settings, overwrite)
    if overwrite:
        with store.writing(summary):
            # otherwise, if this run is stopped, the next one would count these results as finished
            summary.unlink(missing_ok=True)
    store.write_json(path, settings)
    return earlier


def _read_earlier(out: Path, settings: Mapping[str, Any], overwrite: bool) -> list[Summary]:
    """Return the rows of summary.csv of earlier runs with the same settings; none if they are to be overwritten.

    Raises:
        ArtifactError: the folder has results of another model or of other settings.
    """
    summary, path = out / f"{SUMMARY}.csv", out / SETTINGS
    if overwrite or not summary.is_file():
        return []
    known = _read_settings(path) if path.is_file() else {}
    differing = [key for key in settings if key != "model" and _differs(key, known.get(key), settings[key])]
    if not known or differing:
        got = _describe(known, differing) if known else f"no {SETTINGS}"
        expected = _describe(settings, differing) if known else ""
        raise ArtifactError("other results are in the folder", where=out, got=got, expected=expected, todo=_TODO)
    return read_summary(summary)


def _differs(key: str, known: object, value: object) -> bool:
    """Return whether a setting differs; the order of the AUs is always the model's, whatever that of `--aus`."""
    if key == "aus" and isinstance(known, str) and isinstance(value, str):
        return set(known.split(",")) != set(value.split(","))
    return known != value


def _read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of earlier results.

    Raises:
        ArtifactError: the file was not written by `claim_output`.
    """
    settings = store.read_json(path)
    if not isinstance(settings, dict):
        got = type(settings).__name__
        raise ArtifactError("not the settings of results", where=path, got=got, expected="an object", todo=_TODO)
    return settings


def _describe(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return some of the settings as text."""
    values = {key: settings.get(key) for key in keys}
    if "model_sha256" in values:
        values = {"model": f"{settings.get('model')} ({str(values.pop('model_sha256'))[:8]})"} | values
    return ", ".join(f"{key} {value}" for key, value in values.items())


def find_finished(
    videos: Sequence[tuple[Path, str]], out: Path, earlier: Sequence[Summary]
) -> tuple[set[int], list[Summary]]:
    """Return the indices of finished videos, and the rows of videos that are not in this run.

    A video is finished if it has a row, a table and a picture, and has not changed since.

    Args:
        videos: the path of each video and the name of its output.
        earlier: the rows of earlier runs.

    Raises:
        ArtifactError: the output of one of the videos would replace that of another video.
    """
    rows = {Path(row.video).resolve(): row for row in earlier}
    owners = {row.output.lower(): video for video, row in rows.items() if row.output}
    finished = set()
    for k, (video, name) in enumerate(videos):
        owner = owners.get(name.lower())
        if owner not in (None, video.resolve()):
            raise ArtifactError("the results of another video", where=out / f"{name}.csv", got=owner, todo=_TODO)
        files = [out / f"{name}.csv", out / f"{name}.png"]
        complete = owner is not None and video.exists() and all(file.is_file() for file in files)
        if complete and video.stat().st_mtime <= min(file.stat().st_mtime for file in files):
            finished.add(k)
    given = {video.resolve() for video, _ in videos}
    return finished, [row for video, row in rows.items() if video not in given]

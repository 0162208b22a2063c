"""The file formats of artifacts: tables, faces, weights and JSON. Files are written atomically, see `aupair.disk`."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from aupair import checksums, documents
from aupair.disk import atomic as atomic
from aupair.disk import check_writable as check_writable
from aupair.disk import writing as writing
from aupair.errors import ArtifactError

FACES_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),  # 0-based: the k-th frame that the decoder yielded
        ("time", pa.float64()),  # seconds from the start of the video
        ("status", pa.string()),  # one of STATUSES
        ("jpeg", pa.binary()),  # the aligned face, RGB order once decoded by `decode_jpeg`; empty unless ok
        ("landmarks", pa.list_(pa.float32(), 136)),  # (68, 2) x, y in pixels of the source frame; NaN unless ok
        ("transform", pa.list_(pa.float32(), 6)),  # (2, 3) source pixels -> aligned pixels; NaN unless ok
        ("detector_score", pa.float32()),  # O-Net's probability of a face, 0..1
        ("tracked", pa.bool_()),  # O-Net found the face at or near its place in the previous frame
        ("pass_disagreement", pa.float32()),  # mean distance of the two landmark passes, in inter-ocular distances
        ("procrustes_residual", pa.float32()),  # RMS distance to the template after alignment, in aligned IODs
    ]
)
"""A video's faces: a row for every frame. Quality signals are NaN where there is no face."""


class Artifact(BaseModel):
    """The content of a JSON file that a stage writes, with the keys that its readers use; other keys are not checked."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=False)


A = TypeVar("A", bound=Artifact)

STATUSES = ("ok", "no_face", "unreadable")


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, lists of numbers on one line; NaN becomes null, since JSON has none."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False)
    # a list of numbers takes one line; a string never contains the line feed that the pattern begins with
    text = re.sub(r"\[\n([-+.\deEnul,\s]*)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    write_text(path, text + "\n")


def _rerun_hint(stage: str = "the stage") -> str:
    return f"delete it and run {stage} again"


@contextmanager
def _reading(path: Path, what: str, *wrong: type[Exception], stage: str = "the stage") -> Iterator[None]:
    """Translate the exceptions `wrong`, raised for a missing or corrupt file, into an ArtifactError."""
    try:
        yield
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except wrong as error:
        raise ArtifactError(what, where=path, got=error, todo=_rerun_hint(stage)) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    with _reading(path, "not JSON"):
        return documents.read_json(path, ArtifactError, todo=_rerun_hint())


def read_record(path: Path, record: type[A]) -> A:
    """Read a JSON file and check it against a record.

    Raises:
        ArtifactError: the file is missing, is not JSON, or lacks a key or has a wrong value.
    """
    tree = read_json(path)
    try:
        return record.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the content"
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        got = f"{key} = {first['input']!r:.80}"
        if first["type"] in ("missing", "value_error"):
            got, expected = (f"no {key}", "") if first["type"] == "missing" else ("", expected)
        raise ArtifactError(
            "not what its stage writes", where=path, got=got, expected=expected, todo=_rerun_hint()
        ) from error


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Translate the exceptions of the block for missing or wrong entries of a file into an ArtifactError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ArtifactError("not what its stage writes", where=path, got=got, todo=_rerun_hint()) from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file with a line of JSON for each row."""
    write_text(path, "".join(json.dumps(_plain(row), allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file with a JSON object on each line.

    Raises:
        ArtifactError: the file is missing, or a line is not a JSON object of numbers and strings.
    """
    with _reading(path, "not JSON"):
        rows = documents.read_json_lines(path, ArtifactError, todo=_rerun_hint())
    for line, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or any(isinstance(value, dict | list) for value in row.values()):
            what, expected = "not what its stage writes", "an object of numbers and strings"
            raise ArtifactError(what, where=f"{path} line {line}", expected=expected, todo=_rerun_hint())
    return rows


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as parquet."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet table.

    Raises:
        ArtifactError: the file is missing, corrupt (its pages have checksums), or lacks a column.
    """
    with _reading(path, "not a readable parquet table", ValueError, pa.ArrowException, OSError):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def write_faces(path: Path, batches: Iterable[Mapping[str, Any]], metadata: Mapping[str, str]) -> None:
    """Write one video's faces as an Arrow IPC file, batch by batch, so that memory does not grow with the video's length.

    Args:
        batches: columns of FACES_SCHEMA, in equal lengths.
        metadata: strings to store in the schema, such as the options and the source.
    """
    schema = FACES_SCHEMA.with_metadata({checksums.DECLARATION: "CRC-32", **metadata})
    with atomic(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for columns in batches:
                writer.write_table(pa.table(dict(columns), schema=schema), max_chunksize=4096)
        checksums.add_checksum(temporary)


def read_faces(path: Path) -> pa.Table:
    """Verify one video's faces by their checksum, and open them as a memory map, so that only rows in use stay in memory.

    A file of an earlier version has no checksum, and is validated by Arrow.

    Raises:
        ArtifactError: the file is missing, was altered, or has another schema.
    """
    todo = "run `aupair run preprocess-faces`, which processes this video again, and no other"
    try:
        has_checksum = checksums.verify_checksum(Path(path))
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if not table.schema.equals(FACES_SCHEMA):
            got, expected = table.schema.names, FACES_SCHEMA.names
            raise ArtifactError("not a table of faces", where=path, got=got, expected=expected, todo=todo)
        if not has_checksum:
            table.validate(full=True)
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except (ValueError, pa.ArrowException, OSError) as error:
        raise ArtifactError("the faces of a video are damaged", where=path, got=error, todo=todo) from error
    return table


def add_faces_checksum(path: Path) -> None:
    """Add the checksum to one video's faces if an earlier version wrote them; hard links to the old file stay as they are."""
    if not checksums.verify_checksum(path):
        with atomic(path) as temporary:
            shutil.copyfile(path, temporary)
            checksums.add_checksum(temporary)


def faces_metadata(table: pa.Table) -> dict[str, str]:
    """Return the metadata that `write_faces` stored."""
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}


def decode_jpeg(data: bytes, where: object = "") -> np.ndarray:
    """Decode an aligned face: (S, S, 3) uint8, RGB.

    Raises:
        ArtifactError: the face cannot be decoded; the message names `where` it is.
    """
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        got, todo = f"{len(data)} bytes", "run preprocess-faces again"
        raise ArtifactError("a JPEG cannot be decoded", where=where, got=got, todo=todo)
    return image


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encode an aligned face, (S, S, 3) uint8 RGB, as JPEG."""
    import cv2

    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ArtifactError("an image cannot be encoded", got=image.shape)
    return bytes(data)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors; equal arrays result in equal files."""
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays from safetensors.

    Raises:
        ArtifactError: the file is missing or corrupt.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    with _reading(
        path, "not a readable safetensors file", SafetensorError, LookupError, TypeError, ValueError, OSError
    ):
        return load_file(path)


Shape = tuple[int | None, ...]
"""The shape that an array should have; None is any length."""


def check_array(values: np.ndarray | None, name: str, shape: Shape, kinds: str, path: Path) -> np.ndarray:
    """Return an array that was read from a file, after a check of its shape and dtype.

    Args:
        values: the array; None if the file does not have it.
        kinds: the kinds of dtype that are allowed: "f" for floating point, "i" for integers.

    Raises:
        ArtifactError: the array is missing, or has another shape or dtype.
    """
    if values is not None and values.dtype.kind in kinds and len(values.shape) == len(shape):
        fits = [length in (None, own) for own, length in zip(values.shape, shape)]
        if all(fits):
            return values
    lengths = ", ".join("any" if length is None else str(length) for length in shape)
    got = f"no {name}" if values is None else f"{name} {values.dtype} {values.shape}"
    expected = f"{'floating point' if kinds == 'f' else 'integers'} of shape ({lengths})"
    raise ArtifactError("not the array that belongs here", where=path, got=got, expected=expected, todo=_rerun_hint())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing_file_error(path: Path) -> ArtifactError:
    """Return the error for a file that an earlier stage should have written."""
    return ArtifactError(
        "missing file", where=os.fspath(path), todo="run the stage that writes it (`aupair flow` lists them)"
    )


def _plain(value: Any) -> Any:
    """Convert numpy values to Python values, and NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

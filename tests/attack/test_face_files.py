"""Damaged files of faces: one line that names the video, never a crash; files without a checksum included."""

import multiprocessing
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attack.budget import Tally, cases
from attack.mutators import mutate
from attack.sandbox import Verdict, judge
from aupair import checksums, store
from aupair.errors import ArtifactError
from face_files import write_faces


def write_faces_without_checksum(path: Path, jpegs: list[bytes]) -> None:
    """Write faces as versions before checksums did."""
    write_faces(path, jpegs)
    table = store.read_faces(path).replace_schema_metadata({"version": "2"})
    path.unlink()  # the table is a map of the file
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def make_jpegs(count: int = 12) -> list[bytes]:
    """Return the faces of a video, some frames of which have none."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return [store.encode_jpeg(image) if k % 5 else b"" for k, image in enumerate(images)]


@dataclass(frozen=True)
class Attempt:
    """The reading of a damaged file of faces, every column of it."""

    path: Path
    data: bytes
    strict: bool

    def __call__(self, seed: int) -> Verdict:
        rng = random.Random(f"faces {seed}")
        damaged = mutate(self.data, ".arrow", rng)
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(damaged)
        verdict = judge(self._read)
        if self.strict and damaged != self.data and verdict.kind == "accepted":
            return Verdict("accepted a change")
        return verdict

    def _read(self) -> None:
        table = store.read_faces(self.path)
        store.faces_metadata(table)
        for name in table.column_names:
            table[name].to_pylist()


@pytest.mark.parametrize("signed", [True, False], ids=["with a checksum", "without a checksum"])
def test_damaged_faces_are_refused_in_a_line(tmp_path: Path, signed: bool) -> None:
    path = tmp_path / "v.arrow"
    (write_faces if signed else write_faces_without_checksum)(path, make_jpegs())
    assert checksums.verify_checksum(path) == signed
    attempt = Attempt(tmp_path / "damaged" / "v.arrow", path.read_bytes(), strict=signed)
    attempt.path.parent.mkdir()
    name = f"faces {'with' if signed else 'without'} a checksum"
    tally = Tally("inputs", name, "test_face_files.py")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_try_all, args=(attempt, tally))  # in which a crash ends no other test
    process.start()
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}"


def _try_all(attempt: Attempt, tally: Tally) -> None:
    for case in cases(200):
        verdict = attempt(case)
        tally.add(case, f"{verdict.kind}: {verdict.detail}" if verdict.failed else "")
    tally.close()


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_faces(path, make_jpegs(2))
    whole = path.read_bytes()
    for k in range(0, len(whole), 7):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        with pytest.raises(
            ArtifactError, match=r"the faces of a video are damaged: in .*v\.arrow.*run preprocess-faces"
        ):
            store.read_faces(path)
    path.write_bytes(whole)
    assert len(store.read_faces(path)) == 2, "a file that is whole again is read again"


def test_arrow_reads_a_file_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_faces(path, make_jpegs())
    by_arrow, by_store = pa.ipc.open_file(str(path)).read_all(), store.read_faces(path)
    assert all(by_arrow[name].equals(by_store[name]) for name in ("frame", "time", "status", "jpeg", "landmarks"))


def test_a_checksum_is_added_to_a_copy_once(tmp_path: Path) -> None:
    path, linked = tmp_path / "v.arrow", tmp_path / "cache"
    write_faces_without_checksum(path, make_jpegs())
    table, before = store.read_faces(path), path.read_bytes()
    linked.hardlink_to(path)
    store.add_faces_checksum(path)
    signed = path.read_bytes()
    assert (linked.read_bytes(), checksums.verify_checksum(path)) == (before, True)
    assert store.read_faces(path)["jpeg"].equals(table["jpeg"])
    store.add_faces_checksum(path)
    assert path.read_bytes() == signed
    shutil.copyfile(path, tmp_path / "copy.arrow")
    assert checksums.verify_checksum(tmp_path / "copy.arrow")

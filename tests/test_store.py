"""File formats: what hashes rely on."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.errors import AupairError


def test_the_same_arrays_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    """Strings beside the arrays would be written in another order each time, so that there are none."""
    arrays = {f"layer{k}.weight": np.full((2, 3), k, np.float32) for k in range(9)} | {"count": np.array([7])}
    store.write_arrays(tmp_path / "a", arrays)
    store.write_arrays(tmp_path / "b", dict(reversed(arrays.items())))
    written = (tmp_path / "a").read_bytes()
    assert written == (tmp_path / "b").read_bytes()
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert set(header) == set(arrays)
    assert all((values == arrays[name]).all() for name, values in store.read_arrays(tmp_path / "a").items())


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.EACCES, "check its permissions"),
        (errno.ENOTDIR, "name another folder"),
        (errno.EEXIST, "name another folder"),
        (errno.ENOSPC, "make room"),
    ],
)
def test_what_to_do_follows_from_why_it_cannot_be_written(number: int, todo: str) -> None:
    with pytest.raises(AupairError, match=f"^cannot write: in p, got so, expected a writable folder; {todo}$"):
        with store.writing(Path("p")):
            raise OSError(number, "so")


def test_a_file_in_the_way_is_found_and_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    for write in (store.check_writable, lambda path: store.write_text(path, "")):
        for below in ("a", "deep/a"):
            with pytest.raises(AupairError, match=r"cannot write: in .*; name another folder"):
                write(tmp_path / "file" / below)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_has_lists_of_numbers_on_one_line_and_everything_else_as_before(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, 1e-9], "b": [[1], []], "c": ["[\n  1\n]", "x"], "d": [True], "e": [{"f": [3]}]}
    store.write_json(tmp_path / "a.json", value)
    assert store.read_json(tmp_path / "a.json") == value
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert '  "a": [1, -2.5, null, 1e-09],' in lines
    assert '      "f": [3]' in lines

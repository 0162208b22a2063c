"""File formats: what hashes rely on."""

import json
from pathlib import Path

import numpy as np

from aupair import store


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

"""The heap moves to huge pages where Linux can do it, and its content stays the same."""

import subprocess
import sys
from pathlib import Path

from aupair.faces.memory import HUGE, collapse_heap

SCRIPT = """
from pathlib import Path
from aupair.faces.memory import HUGE, collapse_heap

def huge():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages"))

pieces = [bytes([k % 251]) * 600 for k in range(50000)]  # small pieces: the heap, 30 MB
collapsed = collapse_heap()
assert collapsed % HUGE == 0
assert huge() >= collapsed
assert all(piece == bytes([k % 251]) * 600 for k, piece in enumerate(pieces))
"""


def test_the_heap_is_in_huge_pages_and_unchanged() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_nothing_happens_elsewhere(tmp_path: Path) -> None:
    assert collapse_heap(tmp_path / "no-proc") == 0
    maps = tmp_path / "maps"
    maps.write_text(
        "7f0000000000-7f0040000000 rw-p 00000000 00:00 0\n7fff0000-7fff8000 rw-p 00000000 00:00 0 [stack]\n"
    )
    assert collapse_heap(maps) == 0
    maps.write_text(f"{HUGE + 4096:x}-{2 * HUGE + 4096:x} rw-p 00000000 00:00 0   [heap]\n")  # not one whole page
    assert collapse_heap(maps) == 0

"""Progress where there is no terminal."""

from itertools import count

import pytest

from aupair import console


def test_progress_counts_on_from_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = count(0, 90)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    assert list(console.ConsoleLog().progress(range(5, 8), 8, "training f", 5)) == [5, 6, 7]
    assert capsys.readouterr().err.splitlines() == [
        "  training f: 5 of 8", "  training f: 6 of 8, about 6 min left", "  training f: 7 of 8, about 2 min left",
    ]  # fmt: skip

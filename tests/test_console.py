"""Progress where there is no terminal."""

import pytest

from aupair import console


def test_progress_counts_on_from_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.0)
    assert list(console.ConsoleLog().progress(range(5, 8), 8, "training f", 5)) == [5, 6, 7]
    assert capsys.readouterr().err.splitlines() == [f"  training f: {k} of 8" for k in (5, 6, 7)]

"""Shared by the tests of inference."""

import pytest

from aupair.inference import writer


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict without a picture, which takes half a second for each video and has tests of its own."""
    monkeypatch.setattr(writer, "save_timeline", lambda path, *_: path.write_bytes(b"a picture"))

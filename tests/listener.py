"""A log whose lines a test reads."""

from aupair.log import Log


class Listener(Log):
    """Collects the lines of a stage."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

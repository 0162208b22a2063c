"""A log that tests read."""

from aupair.log import Log


class Listener(Log):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

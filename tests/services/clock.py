"""A clock for tests of `aupair.retry`: time passes by sleeping alone."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class FakeClock:
    """Stands for the module `time` in aupair.retry.

    Attributes:
        now: seconds.
        sleeps: how long each sleep was.
        on_sleep: what happens meanwhile.
    """

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)
    on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)
        self.on_sleep()

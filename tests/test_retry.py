"""Tests of what is tried again, and for how long, on a clock that only sleeping moves."""

from collections.abc import Callable

import pytest

from aupair import retry
from services.clock import FakeClock


class Service:
    """A service that fails as many times as it is told to, and counts its calls."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def call(service: Callable[[], str], longest: float = retry.LONGEST) -> str:
    return retry.retry(service, "reading", "the store", lambda error: isinstance(error, OSError), longest)


@pytest.fixture
def answered(clock: FakeClock) -> FakeClock:
    assert call(Service(0, OSError())) == "done"
    return clock


def test_the_first_contact_is_tried_once(clock: FakeClock) -> None:
    service = Service(1, OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        call(service)
    assert (service.calls, clock.sleeps, retry.has_answered("the store")) == (1, [], False)


def test_a_fault_passes(answered: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(4, OSError("http://user:hush@host\nis lost"))
    assert call(service) == "done"
    assert service.calls == 5
    for pause, longest in zip(answered.sleeps, (1, 2, 4, 8), strict=True):
        assert longest / 2 <= pause <= longest
    assert caplog.messages[0] == (
        "the store: reading failed (http://host is lost); retrying in 1 s, giving up in 600 s"
    )


def test_non_transient_error_is_not_retried(answered: FakeClock) -> None:
    service = Service(1, ValueError("no such key"))
    with pytest.raises(ValueError, match="no such key"):
        call(service)
    assert (service.calls, answered.sleeps) == (1, [])


@pytest.mark.parametrize("longest", [0, 5, 600])
def test_no_try_begins_after_the_limit(answered: FakeClock, longest: float) -> None:
    service = Service(10**6, OSError("down"))
    with pytest.raises(OSError, match="down"):
        call(service, longest)
    assert sum(answered.sleeps) <= longest
    assert service.calls == len(answered.sleeps) + 1
    assert sum(answered.sleeps) >= longest - 60


def test_a_call_inside_another_does_not_multiply_the_time(answered: FakeClock) -> None:
    service = Service(10**6, OSError("down"))
    with pytest.raises(OSError, match="down"):
        call(lambda: call(service))
    assert 500 < sum(answered.sleeps) <= 600
    assert service.calls == len(answered.sleeps) + 1


def test_a_caller_that_cannot_wait_gets_the_failure_at_once(answered: FakeClock) -> None:
    service = Service(1, OSError("down"))
    with retry.no_retries(), pytest.raises(OSError, match="down"):
        call(service)
    assert (service.calls, answered.sleeps) == (1, [])
    assert call(Service(1, OSError())) == "done"


def test_a_user_can_wait_for_the_first_contact_until_the_very_end(clock: FakeClock) -> None:
    service = Service(99, OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        retry.retry(service, "opening", "the store", lambda error: True, first=30)
    assert sum(clock.sleeps) == pytest.approx(30)
    service = Service(3, OSError("refused"))
    assert retry.retry(service, "opening", "the store", lambda error: True, first=30) == "done"
    assert retry.has_answered("the store")

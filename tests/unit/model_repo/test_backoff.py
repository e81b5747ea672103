"""How long a download waits between tries: longer each time, or as long as the hub asks, within limits."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from libs.errors import HubUnavailableError
from libs.model_repo.hubs.hub import DownloadCancelledError
from libs.model_repo.hubs.huggingface import retry_after_seconds
from libs.model_repo.hubs.transfer import BackoffTimer, HubBackoff

AWAY = HubUnavailableError("the hub answered 503")


class Pauses(threading.Event):
    """Notes how long a timer would wait, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return self.is_set()


def test_pauses_double_up_to_a_limit_and_the_last_try_raises() -> None:
    pauses = Pauses()
    timer = BackoffTimer(HubBackoff(attempts=6, first_pause_seconds=0.25, longest_pause_seconds=1.5), pauses)
    for _ in range(5):
        timer.wait_after(AWAY)
    assert pauses.seconds == [0.25, 0.5, 1.0, 1.5, 1.5]
    with pytest.raises(HubUnavailableError) as caught:
        timer.wait_after(AWAY)
    assert caught.value is AWAY
    assert len(pauses.seconds) == 5


def test_progress_starts_the_count_again() -> None:
    pauses = Pauses()
    timer = BackoffTimer(HubBackoff(attempts=3), pauses)
    for progressed in (False, False, True, False):
        timer.wait_after(AWAY, progressed=progressed)
    assert pauses.seconds == [1.0, 2.0, 1.0, 2.0]
    with pytest.raises(HubUnavailableError):
        timer.wait_after(AWAY)


def test_a_hub_that_asks_for_longer_gets_it_up_to_the_limit() -> None:
    pauses = Pauses()
    timer = BackoffTimer(HubBackoff(), pauses)
    timer.wait_after(HubUnavailableError("busy", 900.0))
    timer.wait_after(HubUnavailableError("busy", 0.5))
    assert pauses.seconds == [900.0, 2.0]
    with pytest.raises(HubUnavailableError, match="it asks to wait 15 minutes"):
        timer.wait_after(HubUnavailableError("busy", 900.5))


def test_a_canceled_download_does_not_wait() -> None:
    pauses = Pauses()
    pauses.set()
    with pytest.raises(DownloadCancelledError):
        BackoffTimer(HubBackoff(), pauses).wait_after(AWAY)


def test_hours_are_not_waited_out_in_silence() -> None:
    with pytest.raises(HubUnavailableError, match=r"answered 429 \(it asks to wait 1,440 minutes\)") as caught:
        BackoffTimer(HubBackoff()).wait_after(HubUnavailableError("the hub answered 429", 86_400.0))
    assert caught.value.retryable
    BackoffTimer(HubBackoff(first_pause_seconds=0)).wait_after(HubUnavailableError("the hub answered 429", 0.01))


def test_a_hub_may_name_seconds_or_a_date() -> None:
    assert retry_after_seconds("120") == 120
    soon = retry_after_seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert soon is not None
    assert 20 < soon <= 90
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry_after_seconds(value) for value in (None, "", "soon", "-5", "²")] == [None] * 5

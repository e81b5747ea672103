"""How long a download waits when a hub asks for patience: as asked, within limits."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from libs.errors import HubUnavailableError
from libs.model_repo.hubs.huggingface import retry_after_seconds
from libs.model_repo.hubs.transfer import BackoffTimer, HubBackoff


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

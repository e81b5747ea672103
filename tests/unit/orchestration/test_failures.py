"""Errors of libs become Dagster failures: final ones final, passing ones retryable."""

import dagster as dg
import pytest

from libs.errors import InputError, StorageUnavailableError
from orchestration.failures import failures_explained


@pytest.mark.parametrize(
    ("error", "retried"), [(InputError("steps: wrong"), False), (StorageUnavailableError("away"), True)]
)
def test_only_what_may_pass_is_retried(error: Exception, retried: bool) -> None:
    with pytest.raises(dg.Failure) as caught, failures_explained():
        raise error
    assert caught.value.description == str(error)
    assert caught.value.allow_retries is retried
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError), failures_explained():
        raise ZeroDivisionError

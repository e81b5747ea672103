"""Errors of libs become Dagster failures: final ones final, passing ones retryable."""

import errno

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


def test_a_full_disk_is_named_and_tried_again() -> None:
    with pytest.raises(dg.Failure) as caught, failures_explained():
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/clip.mp4")
    advice = "No space left on device (/scratch/clip.mp4); free space or check the disk"
    assert (caught.value.description, caught.value.allow_retries) == (advice, True)


@pytest.mark.parametrize("error", [ZeroDivisionError(), PermissionError(errno.EACCES, "Permission denied", "/scratch")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)), failures_explained():
        raise error

"""The ``record_case`` fixture; what a golden run says at its end is in ``golden_summary``."""

from collections.abc import Callable

import pytest
from golden_folders import RECORD


@pytest.fixture
def record_case() -> Callable[..., None]:
    """``record_case(kind, error)``: call it once per case, before asserting, with the case's largest error or None."""
    return RECORD.add

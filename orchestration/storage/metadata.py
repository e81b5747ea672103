"""Values as the UI shows them: numbers that a person reads, nothing where there is nothing.

Files keep every digit. Files keep every digit.
"""

from collections.abc import Mapping
from typing import Any

_DECIMALS = 3


def to_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without what is None, floats rounded to three decimals, or to three digits where they are below 1."""
    return {name: _rounded(value) for name, value in values.items() if value is not None}


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, _DECIMALS) if abs(value) >= 1 else float(f"{value:.{_DECIMALS}g}")

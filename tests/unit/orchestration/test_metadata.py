"""What the UI shows of numbers."""

import dagster as dg
import pytest

from orchestration.storage.metadata import to_metadata


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (88.0548042800001, 88.055),
        (12345.67891, 12345.679),
        (0.12585034013605442, 0.126),
        (-0.000123456, -0.000123),
        (0.0, 0.0),
        (7, 7),
        (123456789, 123456789),
        (True, True),
        ("0.12585034013605442", "0.12585034013605442"),
    ],
)
def test_floats_are_rounded_and_nothing_else(value: object, shown: object) -> None:
    found = to_metadata({"value": value})["value"]
    assert found == shown
    assert type(found) is type(value)


def test_missing_values_are_left_out() -> None:
    table = dg.MetadataValue.json({"seconds": 0.12585034013605442})
    assert to_metadata({"out_of_memory": None, "table": table}) == {"table": table}

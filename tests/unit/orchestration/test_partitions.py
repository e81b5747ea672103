"""The index from variants to the requests that use them."""

from collections.abc import Iterator

import dagster as dg
import pytest

from libs.errors import InputError
from orchestration.partitions import (
    remember_variant_of_request,
    remember_variants_of_requests,
    requests_of_variant,
    variant_of_request,
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_a_request_uses_one_variant_at_a_time(instance: dg.DagsterInstance) -> None:
    remember_variant_of_request(instance, "dance", "14b")
    remember_variant_of_request(instance, "walk", "14b")
    remember_variant_of_request(instance, "dance", "1.3b_1")
    remember_variant_of_request(instance, "dance", "1.3b_1")
    assert requests_of_variant(instance, "14b") == ["walk"]
    assert requests_of_variant(instance, "1.3b_1") == ["dance"]
    assert variant_of_request(instance, "dance") == "1.3b_1"


def test_many_requests_are_remembered_as_one_by_one(instance: dg.DagsterInstance) -> None:
    remember_variants_of_requests(instance, {"dance": "14b", "walk": "14b", "run": "1.3b_1"})
    remember_variants_of_requests(instance, {"dance": "1.3b_1", "run": "1.3b_1"})
    assert requests_of_variant(instance, "14b") == ["walk"]
    assert sorted(requests_of_variant(instance, "1.3b_1")) == ["dance", "run"]


def test_an_unknown_request_says_what_to_materialize(instance: dg.DagsterInstance) -> None:
    with pytest.raises(InputError, match="materialize animation_request"):
        variant_of_request(instance, "never-seen")

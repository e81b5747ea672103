"""The two partition sets of the graph: model variants (static) and animation requests (dynamic).

Also the index from a variant to the requests that use it.
"""

from collections.abc import Mapping

import dagster as dg

from libs.errors import InputError
from libs.model_repo.variants import VARIANTS

MODEL_VARIANTS = dg.StaticPartitionsDefinition(list(VARIANTS))
"""One partition per model variant: every model-file asset is one repository's."""

ANIMATION_REQUESTS = dg.DynamicPartitionsDefinition(name="animation_requests")
"""One partition per request id: every animation asset is one request's."""


def remember_variant_of_request(instance: dg.DagsterInstance, request_id: str, variant: str) -> None:
    """Note that ``request_id`` is made with ``variant``, and with no other.

    The instance's dynamic partitions serve as the index: it is shared by all processes and transactional.
    """
    for other in VARIANTS:
        if other != variant and instance.has_dynamic_partition(_index_name(other), request_id):
            instance.delete_dynamic_partition(_index_name(other), request_id)
    instance.add_dynamic_partitions(_index_name(variant), [request_id])


def remember_variants_of_requests(instance: dg.DagsterInstance, variants: Mapping[str, str]) -> None:
    """Remember the variants of many requests (id -> variant) with few queries per variant."""
    for variant in VARIANTS:
        known = set(requests_of_variant(instance, variant))
        named = {request_id for request_id, name in variants.items() if name == variant}
        for request_id in sorted(known & (variants.keys() - named)):
            instance.delete_dynamic_partition(_index_name(variant), request_id)
        if new := sorted(named - known):
            instance.add_dynamic_partitions(_index_name(variant), new)


def variant_of_request(instance: dg.DagsterInstance, request_id: str) -> str:
    """The variant that the last validated document of ``request_id`` names.

    Raises:
        InputError: the request was never validated, or its model files were not complete.
    """
    for variant in VARIANTS:
        if instance.has_dynamic_partition(_index_name(variant), request_id):
            return variant
    raise InputError(f"request {request_id!r} was not validated yet: materialize animation_request for this partition")


def requests_of_variant(instance: dg.DagsterInstance, variant: str) -> list[str]:
    """The ids of all requests whose last validated document names ``variant``."""
    return list(instance.get_dynamic_partitions(_index_name(variant)))


def forget_request(instance: dg.DagsterInstance, request_id: str) -> None:
    """Take ``request_id`` out of the partition set, and before that out of the index."""
    for name in [*map(_index_name, VARIANTS), str(ANIMATION_REQUESTS.name)]:
        if instance.has_dynamic_partition(name, request_id):
            instance.delete_dynamic_partition(name, request_id)


def _index_name(variant: str) -> str:
    return f"animation_requests_with_{variant}"

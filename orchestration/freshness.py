"""What of a partition is missing or stale, asked of Dagster itself.

Data versions and code versions decide.
"""

from collections.abc import Iterable

import dagster as dg

from orchestration.dagster_internals import CachingStaleStatusResolver, LoadingContextForTest, StaleStatus


def unfinished_assets(
    definitions: dg.Definitions, instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey], partition: str
) -> list[dg.AssetKey]:
    """Those of ``keys`` that are missing or stale for ``partition``, and everything downstream of them among ``keys``.

    The resolver is Dagster's own, which also answers the UI; it has no public name in the pinned version.
    """
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    candidates = [key for key in graph.toposorted_asset_keys if key in set(keys)]
    unfinished: list[dg.AssetKey] = []
    for key in candidates:
        parents_unfinished = any(parent in unfinished for parent in graph.get(key).parent_keys)
        if parents_unfinished or resolver.get_status(key, partition) != StaleStatus.FRESH:
            unfinished.append(key)
    return unfinished

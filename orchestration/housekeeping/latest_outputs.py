"""Older contents of artifacts that Dagster still shows as the latest output: these stay.

It shows an older content where a run was killed between publishing and saying so. See ``libs.housekeeping.prunable``
for age, and what stored clips refer to.
"""

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.storage.io_manager import DIGEST_METADATA

if TYPE_CHECKING:
    from libs.storage.manifest import Manifest


def is_latest_in_catalogue(instance: dg.DagsterInstance, manifest: "Manifest") -> bool:
    """True where the latest materialization of the asset and partition stored the content of ``manifest``."""
    partitions = None if manifest.partition is None else [manifest.partition]
    records_filter = dg.AssetRecordsFilter(dg.AssetKey(manifest.asset), asset_partitions=partitions)
    records = instance.fetch_materializations(records_filter, limit=1).records
    event = records[0].asset_materialization if records else None
    digest = event.metadata.get(DIGEST_METADATA) if event else None
    return digest is not None and digest.value == manifest.digest

"""Artifacts that are stored, and that Dagster's catalogue does not know: their materialization is written again.

That happens when the database is away at the moment after a clip was stored, and when a database is restored from an
older backup than the bucket. See ``lineage`` for what of a materialization can be known.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.archive import REQUEST_ASSETS, REVIEW_ASSET
from libs.requests.lifecycle.states import CLIP_ASSET, stored_partitions
from libs.stages.model_verification import stored_verification
from libs.storage.artifacts import ArtifactStore
from libs.storage.manifest import Manifest
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.models.models_in_use import observe_models_of_variant
from orchestration.policies import MODEL_ASSETS, WHEEL_ASSETS
from orchestration.recovery.lineage import lineage_tags
from orchestration.requests.runs import UNFINISHED, all_runs
from orchestration.storage.io_manager import DIGEST_METADATA, storage_metadata
from orchestration.storage.observed import DATA_VERSION_TAG, observed_versions

_PARTITIONS_PER_QUESTION = 500


@dataclass(frozen=True)
class StoredArtifact:
    """The newest content of an asset and partition in the store."""

    asset: str
    partition: str


def unrecorded_artifacts(
    instance: dg.DagsterInstance, store: ArtifactStore, request_ids: Collection[str]
) -> Iterator[Manifest]:
    """Manifests of ``request_ids`` whose content is not the latest in the catalogue; upstream assets first.

    Damaged manifests are left out; ``storage check`` names them.
    """
    yield from _unrecorded(instance, store, REQUEST_ASSETS, request_ids)


def unrecorded_model_files(instance: dg.DagsterInstance, store: ArtifactStore) -> Iterator[Manifest]:
    """The artifacts of variants and wheels that the catalogue lacks, if no run is busy with them."""
    busy = {run.tags.get(PARTITION_NAME_TAG) for run in all_runs(instance, dg.RunsFilter(statuses=UNFINISHED))}
    for assets in (MODEL_ASSETS, WHEEL_ASSETS):
        stored = {partition for asset in assets for partition in stored_partitions(store.objects, asset)}
        yield from _unrecorded(instance, store, assets, sorted(stored - busy))


def _unrecorded(
    instance: dg.DagsterInstance, store: ArtifactStore, assets: Sequence[str], partitions: Collection[str]
) -> Iterator[Manifest]:
    for asset in assets:
        stored = list(_readable_manifests(store, asset, partitions))
        catalogued = catalogued_digests(instance, asset, [str(manifest.partition) for manifest in stored])
        yield from (found for found in stored if catalogued.get(str(found.partition)) != found.digest)


def _readable_manifests(store: ArtifactStore, asset: str, partitions: Iterable[str]) -> Iterator[Manifest]:
    for partition in partitions:
        try:
            manifest = store.manifest(asset, partition)
        except StorageUnavailableError:
            raise
        except StorageError:
            continue
        if manifest is not None:
            yield manifest


def catalogued_digests(instance: dg.DagsterInstance, asset: str, partitions: Sequence[str]) -> dict[str, str]:
    """Partition -> the content of its latest materialization, in two questions for many partitions.

    A partition is missing where there is none, or where it was not stored by the IO manager.
    """
    digests = {}
    key = dg.AssetKey(asset)
    for first in range(0, len(partitions), _PARTITIONS_PER_QUESTION):
        latest = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, {*partitions[first : first + _PARTITIONS_PER_QUESTION]}
        )
        if not latest:
            continue
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(latest.values()))
        for record in instance.fetch_materializations(wanted, limit=len(latest)).records:
            event = record.asset_materialization
            digest = event.metadata.get(DIGEST_METADATA) if event else None
            if digest is not None:
                digests[str(record.partition_key)] = str(digest.value)
    return digests


def adopt(instance: dg.DagsterInstance, store: ArtifactStore, manifests: Iterable[Manifest]) -> list[StoredArtifact]:
    """Write a materialization for each of ``manifests``, with the data versions they were stored with.

    A manifest from before data versions were kept becomes a materialization whose data version is its digest, so that
    what lies downstream of it counts as stale, never as fresh without proof.
    """
    adopted = []
    for manifest in manifests:
        assert manifest.partition is not None, "all assets are partitioned"
        stored_by = manifest.attributes.get("run_id")
        note = f"stored by run {stored_by} at {manifest.created:%Y-%m-%d %H:%M:%S} UTC; its event was lost"
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=manifest.asset,
                partition=manifest.partition,
                metadata={**storage_metadata(manifest, store.objects.uri), "adopted": dg.MetadataValue.text(note)},
                tags=lineage_tags(instance, manifest) or {"dagster/data_version": manifest.digest},
            )
        )
        if manifest.asset == "model_verification":
            _observe_verified_models(instance, store, manifest.partition)
        adopted.append(StoredArtifact(manifest.asset, manifest.partition))
    return adopted


def _observe_verified_models(instance: dg.DagsterInstance, store: ArtifactStore, variant: str) -> None:
    """What the lost verification would have observed: that requests were made with other model files than there are.

    The next verification compares with the stored one, finds nothing new, and would never say it. Requests of which
    nothing was observed yet are made with whatever is there then.
    """
    try:
        verified = stored_verification(store, variant)
    except StorageUnavailableError:
        raise
    except StorageError:  # damaged: named by `storage check`
        return
    if verified is None or verified.report.state != "complete":
        return
    known = {asset: observed_versions(instance, asset) for asset in verified.versions}
    for found in observe_models_of_variant(instance, variant, verified.versions, {}):
        before = known[found.asset_key.to_user_string()].get(str(found.partition))
        if before not in {None, (found.tags or {})[DATA_VERSION_TAG]}:
            instance.report_runless_asset_event(found)


def lacks_review(store: ArtifactStore, request_id: str) -> bool:
    """True when the newest clip of ``request_id`` is stored and no review was made after it."""
    clip, review = store.manifest(CLIP_ASSET, request_id), store.manifest(REVIEW_ASSET, request_id)
    return clip is not None and (review is None or review.created < clip.created)

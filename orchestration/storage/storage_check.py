"""The job that compares the store with its manifests and with the asset catalogue, from the UI.

``one-to-all storage check`` does the first half in a terminal. Removes nothing: `one-to-all storage check
--delete-orphans` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from libs.storage.artifacts import ArtifactStore, materialize_command
from orchestration.dagster_internals import InstigatorStatus, InstigatorType
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.recovery.restore import Mended, mend
from orchestration.storage.io_manager import DIGEST_METADATA
from orchestration.storage.resources import ProgressResource, StorageResource

_PAGE = 500


class StorageCheckConfig(dg.Config):
    """How closely to look."""

    full: bool = False
    """read and hash every stored file"""
    adopt: bool = True
    """record what is stored and the catalogue does not know, and ask for reviews that clips lack"""


@dataclass(frozen=True)
class CataloguedArtifact:
    """What Dagster shows as the latest output of an asset and partition."""

    asset: str
    partition: str | None
    digest: str


def catalogued_artifacts(instance: dg.DagsterInstance) -> Iterator[CataloguedArtifact]:
    """The latest materialization of each asset and partition, where it was stored by the IO manager."""
    for key in instance.all_asset_keys():
        seen: set[str | None] = set()
        cursor: str | None = None
        while True:
            page = instance.fetch_materializations(key, limit=_PAGE, cursor=cursor)
            for record in page.records:
                event = record.asset_materialization
                if event is None or event.partition in seen:
                    continue
                seen.add(event.partition)
                digest = event.metadata.get(DIGEST_METADATA)
                if digest is not None:
                    yield CataloguedArtifact(key.to_user_string(), event.partition, str(digest.value))
            if not page.has_more:
                break
            cursor = page.cursor


def lost_artifacts(instance: dg.DagsterInstance, store: ArtifactStore) -> list[CataloguedArtifact]:
    """Those whose manifest is not in the store: Dagster shows an output that cannot be loaded."""
    return [
        artifact
        for artifact in catalogued_artifacts(instance)
        if store.manifest(artifact.asset, artifact.partition, artifact.digest) is None
    ]


def _say_who_makes_reviews(context: dg.OpExecutionContext, count: int) -> None:
    """This job only asks for reviews: another one launches their runs, unless somebody switched it off."""
    sensor = "the sensor unrecorded_clips"
    states = context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    if any(state.name == "unrecorded_clips" and state.status == InstigatorStatus.STOPPED for state in states):
        context.log.warning(f"{count} clips lack a review, and {sensor} is off: switch it on, and it launches them")
    else:
        context.log.info(f"{count} clips lack a review: {sensor} launches them within about a minute")


@dg.op(retry_policy=STEP_RETRIES)
def compare_store_with_catalogue(
    context: dg.OpExecutionContext, config: StorageCheckConfig, storage: StorageResource, progress: ProgressResource
) -> None:
    """Record what the catalogue lacks, then fail when something is missing or corrupt.

    The table names asset, partition and the command that makes it.
    """
    from libs.housekeeping.inspection import inspect  # noqa: PLC0415 - only this job needs it

    report = progress.of_bytes(context)
    with failures_explained():
        found = inspect(
            storage.objects(), full=config.full, report=lambda done, total: report("reading", done, total, "")
        )
        store = storage.artifacts()
        mended = mend(context.instance, store) if config.adopt else Mended()
        for artifact in mended.adopted:
            context.log.info(f"{artifact.asset} of {artifact.partition}: stored, and recorded now")
        if mended.without_review:
            _say_who_makes_reviews(context, len(mended.without_review))
        lost = lost_artifacts(context.instance, store)
    rows = [
        dg.TableRecord({"what": problem.kind.value, "where": str(problem), "run": problem.command})
        for problem in found.problems
    ] + [
        dg.TableRecord(
            {
                "what": "no manifest",
                "where": f"{artifact.asset}, partition {artifact.partition}: content {artifact.digest[:16]}…",
                "run": materialize_command(artifact.asset, artifact.partition),
            }
        )
        for artifact in lost
    ]
    context.add_output_metadata(
        {
            "objects": found.objects,
            "bytes": found.bytes,
            "manifests": found.manifests,
            "problems": len(rows),
            "recorded": len(mended.adopted),
            "reviews asked for": len(mended.without_review),
            "orphans": len(found.orphans),
            "bytes of orphans": sum(info.size for info in found.orphans),
        }
    )
    if rows:
        raise dg.Failure(
            description=f"{len(rows)} stored artifacts are missing or damaged; first: {rows[0].data['where']}",
            metadata={"problems": dg.MetadataValue.table(rows[:100])},
            allow_retries=False,
        )


@dg.job(description="Is everything in the store that manifests and the asset catalogue name?")
def check_storage() -> None:
    """Check that everything in the store is complete, as one op."""
    compare_store_with_catalogue()

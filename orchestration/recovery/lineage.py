"""What Dagster must know of an artifact beside its files, kept in the manifest: a lost event can be written again.

Uses private interfaces of Dagster 1.13, in which it builds the same tags for a materialization of its own.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from libs.requests.lifecycle.archive import REQUEST_ASSETS
from orchestration.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_code_version,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
    get_input_provenance_data,
)
from orchestration.policies import MODEL_ASSETS, WHEEL_ASSETS

if TYPE_CHECKING:
    from libs.storage.manifest import Manifest

DATA_VERSION_ATTRIBUTE = "data_version"
_CODE_VERSION_ATTRIBUTE = "code_version"
_INPUTS_ATTRIBUTE = "input_data_versions"

_MADE_HERE = frozenset({*REQUEST_ASSETS, *MODEL_ASSETS, *WHEEL_ASSETS})
"""Assets with materializations; the others are observed."""

_EVENTS_READ = 100

_BEFORE_EVERY_EVENT = "1"
"""An event pointer that no input has: the current input counts as newer, so the output is stale."""


def lineage_attributes(context: dg.OutputContext) -> dict[str, Any]:
    """Code version and data versions of the inputs of an output that is about to be stored; empty outside of runs."""
    if not context.has_asset_key:
        return {}
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:  # a context made by hand
        return {}
    inputs = get_input_provenance_data(context.asset_key, step)
    partition = context.asset_partition_key if context.has_asset_partitions else None
    return {
        _CODE_VERSION_ATTRIBUTE: get_code_version(context.asset_key, step),
        _INPUTS_ATTRIBUTE: {
            key.to_user_string(): _version_of_event(step, key, partition, data["storage_id"])
            for key, data in inputs.items()
        },
    }


def _version_of_event(step: Any, key: dg.AssetKey, partition: str | None, storage_id: int | None) -> str | None:
    """The data version that the event with this id gave the input; None where it has no event.

    What Dagster itself notes of an input with partitions is a digest over them.
    """
    if storage_id is None:
        return None
    is_external = step.job_def.asset_layer.get(key).is_external
    record = step.instance.get_latest_data_version_record(key, is_external, partition, before_cursor=storage_id + 1)
    version = extract_data_version_from_entry(record.event_log_entry) if record else None
    return version.value if version else None


def lineage_tags(instance: dg.DagsterInstance, manifest: "Manifest") -> Mapping[str, str] | None:
    """The tags of the materialization that stored ``manifest``; None for one from before they were kept.

    Dagster finds out what changed since by the event of each input. An input that is observed, and of which the
    catalogue knows nothing, is observed again as what it was; of other inputs whose event is gone, the output counts as
    stale.
    """
    attributes = manifest.attributes
    if not {DATA_VERSION_ATTRIBUTE, _CODE_VERSION_ATTRIBUTE, _INPUTS_ATTRIBUTE} <= attributes.keys():
        return None
    tags = {
        DATA_VERSION_TAG: str(attributes[DATA_VERSION_ATTRIBUTE]),
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        CODE_VERSION_TAG: str(attributes[_CODE_VERSION_ATTRIBUTE]),
    }
    for name, version in attributes[_INPUTS_ATTRIBUTE].items():
        key = dg.AssetKey.from_user_string(name)
        tags[get_input_data_version_tag(key)] = version or DEFAULT_DATA_VERSION.value
        tags[get_input_event_pointer_tag(key)] = _event_pointer(instance, key, manifest.partition, version)
    return tags


def _event_pointer(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, version: str | None) -> str:
    """The storage id of the input's newest event with this data version."""
    if version is None:
        return NULL_EVENT_POINTER
    records = _events(instance, key, partition)
    if not records and key.to_user_string() not in _MADE_HERE:
        observed = dg.AssetObservation(key, partition=partition, tags={DATA_VERSION_TAG: version})
        instance.report_runless_asset_event(observed)
        records = _events(instance, key, partition)
    for record in records:
        found = extract_data_version_from_entry(record.event_log_entry)
        if found is not None and found.value == version:
            return str(record.storage_id)
    return _BEFORE_EVERY_EVENT


def _events(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> list[dg.EventLogRecord]:
    """The newest events that tell the data version of an asset, the newest first."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    is_made_here = key.to_user_string() in _MADE_HERE
    fetch = instance.fetch_materializations if is_made_here else instance.fetch_observations
    return list(fetch(wanted, limit=_EVENTS_READ).records)

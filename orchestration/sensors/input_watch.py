"""The sensor that sees when a picture or video that clips were made from is replaced in the inbox.

It observes the new content for every request that was made with the old one; Dagster then shows what is out of date.
No run is launched: whether a clip is to be made again is a person's decision. What does not belong here: new requests
(``inbox``).
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice

import dagster as dg

from libs.inbox import Inbox
from libs.media_watch import SeenMedia
from orchestration.assets.request_inputs import MEDIA_FIELDS, MediaVersion, observe_media_file
from orchestration.observed import observed_versions
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.resources import StorageResource

SECONDS_PER_TICK = 20.0
"""What is left is looked at in the next tick; Dagster ends a tick after 60 s."""

OBSERVATIONS_PER_TICK = 500
"""A video that thousands of requests share must not keep the daemon from its other work."""

HASHED_UP_TO = 1 << 30
"""Bytes. A larger file that another program put into a bucket is not read through in a tick: its size and time stand
for its content, until a run copies and hashes it."""

_Users = Mapping[str, list[tuple[str, str, str]]]


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes pictures and videos that were replaced in the inbox after a clip was made from them.",
)
def input_watch(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
    """One look at the inbox; the cursor holds what was looked at, so an unchanged inbox costs one listing."""
    inbox = Inbox(storage.objects())
    seen = SeenMedia.load(context.cursor)
    unseen = seen.unseen(inbox.all_media())
    users = _users(context.instance) if unseen else {}
    deadline = time.monotonic() + SECONDS_PER_TICK
    observations: list[dg.AssetObservation] = []
    looked_at = 0
    for path, info in unseen.items():
        if time.monotonic() > deadline:
            break
        if path in users:
            room = OBSERVATIONS_PER_TICK - len(observations)
            replaced = list(islice(_replaced(path, users[path], inbox), room + 1))
            observations.extend(replaced[:room])
            if len(replaced) > room:
                break  # the next look finds the others: what was observed by then counts as seen
        seen.add(path, info)
        looked_at += 1
    left = f", {len(unseen) - looked_at} wait for the next look" if looked_at < len(unseen) else ""
    found = f"{len(observations)} replaced inputs" if observations else "nothing replaced"
    return dg.SensorResult(
        asset_events=observations,
        skip_reason=f"{looked_at} new or changed files in the inbox, {found}{left}",
        cursor=seen.dump(),
    )


def _users(instance: dg.DagsterInstance) -> _Users:
    """Path of a file -> (asset, request, digest) of what was made from it, as observed last."""
    registered = set(instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)))
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for asset in MEDIA_FIELDS:
        for request_id, text in observed_versions(instance, asset).items():
            version = MediaVersion.parse(text)
            if request_id in registered:
                found[version.path].append((asset, request_id, version.sha256))
    return found


def _replaced(path: str, users: list[tuple[str, str, str]], inbox: Inbox) -> Iterator[dg.AssetObservation]:
    digest = inbox.media_digest(path, HASHED_UP_TO)
    for asset, request_id, before in users:
        if digest is not None and digest != before:  # a file that was taken away puts no clip out of date
            yield observe_media_file(asset, request_id, MediaVersion(digest, path), inbox)

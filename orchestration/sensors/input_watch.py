"""The sensor that sees when a picture or video that clips were made from is replaced in the inbox.

What does not belong here: what follows from it (``watched_files``), new requests (``inbox``).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import dagster as dg

from libs.requests.inbox import Inbox
from libs.storage.objects import ObjectInfo
from orchestration.assets.request_inputs import MEDIA_FIELDS, observe_media_file
from orchestration.observed import FileVersion, observed_versions
from orchestration.resources import StorageResource
from orchestration.sensors.watched_files import FileUse, look

HASHED_UP_TO = 1 << 30
"""Bytes. A larger file that another program put into a bucket is not read through in a tick: its size and time stand
for its content, until a run copies and hashes it."""


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes pictures and videos that were replaced in the inbox after a clip was made from them.",
)
def input_watch(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
    """One look at the inbox."""
    return look(context.instance, _Media(Inbox(storage.objects())), context.cursor)


class _Media:
    """The pictures and videos of the inbox, by their path below it."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def listing(self) -> Iterable[tuple[str, ObjectInfo]]:
        return self._inbox.all_media()

    def uses(self, instance: dg.DagsterInstance) -> Mapping[str, list[FileUse]]:
        found: dict[str, list[FileUse]] = defaultdict(list)
        for asset in MEDIA_FIELDS:
            for request_id, text in observed_versions(instance, asset).items():
                version = FileVersion.parse(text)
                found[version.path].append(FileUse(asset, request_id, version.sha256, text))
        return found

    def digest(self, path: str) -> str | None:
        return self._inbox.media_digest(path, HASHED_UP_TO)

    def observation(self, use: FileUse, path: str, digest: str) -> dg.AssetObservation:
        return observe_media_file(use.asset, use.request_id, FileVersion(digest, path), self._inbox)

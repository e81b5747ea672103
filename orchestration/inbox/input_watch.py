"""The sensor that sees when a picture or video that clips were made from is replaced in the inbox.

See ``watched_files`` for what follows from it, ``sensor`` for new requests.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import dagster as dg

from libs.requests.inbox.inbox import Inbox, spellings
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.storage.backends.store import ObjectInfo
from orchestration.inbox.watched_files import FileUse, scan_files
from orchestration.requests.request_inputs import MEDIA_FIELDS, observe_media_file
from orchestration.storage.observed import FileVersion, observed_versions
from orchestration.storage.resources import StorageResource

HASHED_UP_TO = 1 << 30
"""Bytes. A larger file without a recorded digest is not hashed in a tick: whether the store still has the
version that a request was accepted with stands for its content."""


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes pictures and videos that were replaced in the inbox after a clip was made from them.",
)
def input_watch(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
    """Scan the inbox once."""
    objects = storage.objects()
    return scan_files(context.instance, _Media(Inbox(objects), AcceptedRequests(objects)), context.cursor)


class _Media:
    """The pictures and videos of the inbox, by their path below it."""

    def __init__(self, inbox: Inbox, requests: AcceptedRequests) -> None:
        self._inbox = inbox
        self._requests = requests
        self._uses: dict[str, list[FileUse]] = {}

    def listing(self) -> Iterable[tuple[str, ObjectInfo]]:
        return self._inbox.all_media()

    def uses(self, instance: dg.DagsterInstance) -> Mapping[str, list[FileUse]]:
        found: dict[str, list[FileUse]] = defaultdict(list)
        for asset in MEDIA_FIELDS:
            for request_id, text in observed_versions(instance, asset).items():
                version = FileVersion.parse(text)
                for spelling in spellings(version.path):
                    found[spelling].append(FileUse(asset, request_id, version.sha256, text))
        self._uses = found
        return found

    def digest(self, path: str) -> str | None:
        info = self._inbox.media([path]).get(path)
        if info is None or info.sha256 is not None or info.size <= HASHED_UP_TO:
            return self._inbox.media_digest(path)
        return self._digest_of_large(path, info)

    def _digest_of_large(self, path: str, info: ObjectInfo) -> str | None:
        """That of a request which was accepted with this very file; None where no request says what it was."""
        was_accepted = False
        for use in self._uses.get(path, []):
            accepted = self._requests.find(use.request_id)
            media = [accepted.media[name] for name in spellings(path) if name in accepted.media] if accepted else []
            if any((medium.size, medium.version) == (info.size, info.version) for medium in media):
                return use.sha256
            was_accepted = was_accepted or bool(media)
        return self._inbox.media_digest(path, HASHED_UP_TO) if was_accepted else None

    def observation(self, use: FileUse, path: str, digest: str) -> dg.AssetObservation:
        return observe_media_file(use.asset, use.request_id, FileVersion(digest, path), self._inbox)

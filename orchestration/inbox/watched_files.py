"""Scan of the files that clips were made from: a replaced file is observed for every request that used it.

Dagster then shows what is out of date. No run is launched: whether a clip is to be made again is a person's decision.
See ``input_watch`` and ``orchestration.models.lora_watch`` for which files, and who uses them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import dagster as dg

from libs.errors import OneToAllError, StorageUnavailableError
from libs.files.seen_files import SeenFiles
from libs.storage.backends.store import ObjectInfo
from orchestration.partitions import ANIMATION_REQUESTS

SECONDS_PER_TICK = 20.0
"""What is left is looked at in the next tick; Dagster ends a tick after 60 s."""

OBSERVATIONS_PER_TICK = 500
"""A file that thousands of requests share must not keep the daemon from its other work."""

_SHOWN = 3


@dataclass(frozen=True)
class FileUse:
    """A request was made with a file that had this digest: ``version`` of the external ``asset`` says so."""

    asset: str
    request_id: str
    sha256: str
    version: str


class WatchedFiles(Protocol):
    """Files of one kind."""

    def listing(self) -> Iterable[tuple[str, ObjectInfo]]:
        """Path and description of all of them."""

    def uses(self, instance: dg.DagsterInstance) -> Mapping[str, list[FileUse]]:
        """Path -> what was made from the file, as observed last."""

    def digest(self, path: str) -> str | None:
        """The digest of the file as it is now; None if it does not exist."""

    def observation(self, use: FileUse, path: str, digest: str) -> dg.AssetObservation:
        """``use`` would have this digest now."""


def scan_files(instance: dg.DagsterInstance, watched: WatchedFiles, cursor: str | None) -> dg.SensorResult:
    """One scan; the cursor holds what was looked at, so that files left alone cost one listing.

    A file that cannot be read is named, and looked at again the next time.

    Raises:
        StorageUnavailableError: the store did not answer; the next scan starts where this one did.
    """
    seen = SeenFiles.load(cursor)
    unseen = seen.unseen(watched.listing())
    uses = watched.uses(instance) if unseen else {}
    registered = set(instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name))) if unseen else set()
    deadline = time.monotonic() + SECONDS_PER_TICK
    observations: list[dg.AssetObservation] = []
    unreadable: list[str] = []
    scanned = 0
    for path, info in unseen.items():
        if time.monotonic() > deadline:
            break
        if of_requests := [use for use in uses.get(path, []) if use.request_id in registered]:
            room = OBSERVATIONS_PER_TICK - len(observations)
            try:
                replaced = list(islice(_replaced(watched, path, of_requests), room + 1))
            except StorageUnavailableError:
                raise
            except (OneToAllError, OSError) as error:  # no permission, still being written: the others go on
                unreadable.append(f"{path}: {error}")
                continue
            observations.extend(replaced[:room])
            if len(replaced) > room:
                break  # the next scan finds the others: what was observed by then counts as seen
        seen.add(path, info)
        scanned += 1
    left = f", {len(unseen) - scanned} wait for the next scan" if scanned < len(unseen) else ""
    left += f"; not readable: {'; '.join(unreadable[:_SHOWN])}" if unreadable else ""
    found = f"{len(observations)} replaced inputs" if observations else "nothing replaced"
    return dg.SensorResult(
        asset_events=observations,
        skip_reason=f"{scanned} new or changed files, {found}{left}",
        cursor=seen.dump(),
    )


def _replaced(watched: WatchedFiles, path: str, uses: list[FileUse]) -> Iterator[dg.AssetObservation]:
    digest = watched.digest(path)
    for use in uses:
        if digest is not None and digest != use.sha256:  # a file that was taken away puts no clip out of date
            yield watched.observation(use, path, digest)

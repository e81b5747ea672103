"""Requests that a person canceled, and requests to be tried again: remembered in the store.

    requests/canceled/<id>.json      who canceled the request and when; it holds until the request is submitted again
    requests/retries/<id>            `one-to-all retry` was called: the next scan of the inbox asks for a run

See ``orchestration.requests.control`` for ending runs.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.errors import ArtifactMissingError
from libs.requests.lifecycle.accepted import AcceptedRequest
from libs.storage.backends.store import ObjectInfo, ObjectStore

CANCELED_PREFIX = "requests/canceled"
RETRIES_PREFIX = "requests/retries"


class Cancellation(BaseModel):
    """A request was canceled. ``by``: who, as far as known; ``content``: what it asked for then."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    request_id: str
    canceled: datetime
    by: str
    content: str | None = None
    run_id: str | None = None

    def holds_for(self, accepted: AcceptedRequest | None) -> bool:
        """True unless the request was submitted again since."""
        return accepted is None or accepted.accepted <= self.canceled


class Cancellations:
    """The canceled requests of a store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def remember(self, cancellation: Cancellation) -> None:
        """Keep it until the request is submitted again."""
        document = cancellation.model_dump_json(indent=2).encode()
        self._objects.put_bytes(_canceled_key(cancellation.request_id), document, "application/json")

    def forget(self, request_id: str) -> None:
        """The request is wanted again."""
        self._objects.delete(_canceled_key(request_id))

    def find(self, request_id: str) -> Cancellation | None:
        """What is remembered of ``request_id``; a damaged note counts as none."""
        try:
            return Cancellation.model_validate_json(self._objects.get_bytes(_canceled_key(request_id)))
        except (ArtifactMissingError, ValidationError):
            return None

    def among(self, request_ids: Iterable[str]) -> dict[str, Cancellation]:
        """What is remembered of ``request_ids``, whether it still holds or not; one listing, and a read for each."""
        wanted = set(request_ids)
        noted = [info.key.removeprefix(f"{CANCELED_PREFIX}/").removesuffix(".json") for info in self._listed()]
        found = {name: self.find(name) for name in noted if name in wanted}
        return {name: cancellation for name, cancellation in found.items() if cancellation is not None}

    def _listed(self) -> Iterator[ObjectInfo]:
        return self._objects.list(f"{CANCELED_PREFIX}/")


class Retries:
    """Requests that ``one-to-all retry`` asked for, until their run was launched."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def ask(self, request_id: str) -> None:
        """Have the next scan of the inbox ask for a run."""
        note = datetime.now(UTC).isoformat().encode()
        self._objects.put_bytes(f"{RETRIES_PREFIX}/{request_id}", note, "text/plain")

    def ids(self, limit: int) -> list[str]:
        """Those that were asked for, at most ``limit``."""
        found = []
        for info in self._objects.list(f"{RETRIES_PREFIX}/"):
            found.append(info.key.removeprefix(f"{RETRIES_PREFIX}/"))
            if len(found) == limit:
                break
        return found

    def done(self, request_id: str) -> None:
        """Its run was launched, or there is nothing to make."""
        self._objects.delete(f"{RETRIES_PREFIX}/{request_id}")


def _canceled_key(request_id: str) -> str:
    return f"{CANCELED_PREFIX}/{request_id}.json"

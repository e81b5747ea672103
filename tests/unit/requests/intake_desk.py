"""An inbox in a folder, and somebody who looks at it, for the tests of this folder."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanLimits, ScanResult, ScanState
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.storage.backends.folder import FolderObjectStore

LATER = timedelta(minutes=1)
MUCH_LATER = timedelta(hours=1)


class Desk:
    """An inbox in a folder and somebody who looks at it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.objects = FolderObjectStore(folder)
        self.inbox = Inbox(self.objects)
        self.requests = AcceptedRequests(self.objects)
        self.limits = ScanLimits(**limits)
        self.state = ScanState()
        self.put("r.png", b"picture")
        self.put("d.mp4", b"video")

    def put(self, name: str, content: bytes | dict[str, Any] | list[Any]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.objects.put_bytes(f"inbox/{name}", data)

    def request(self, request_id: str, **fields: Any) -> None:
        self.put(f"{request_id}.json", request_fields(request_id, **fields))

    def scan(self, after: timedelta = LATER, now: datetime | None = None) -> ScanResult:
        """Look; the state goes the way of a cursor.

        With ``now`` the clock stands still, which tests of seconds need on a busy machine.
        """
        intake = InboxScanner(self.inbox, self.requests, "sandbox", self.limits).scan(
            self.state, (now or datetime.now(UTC)) + after
        )
        self.state = ScanState.load(intake.state.model_dump_json(exclude_defaults=True))
        return intake

    def names(self, prefix: str) -> list[str]:
        return [info.key.removeprefix(prefix) for info in self.objects.list(prefix)]


def request_fields(request_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": request_id, "reference": "r.png", "driver": "d.mp4", **fields}


def ids(intake: ScanResult) -> list[str]:
    return [entry.request.id for entry in intake.accepted]

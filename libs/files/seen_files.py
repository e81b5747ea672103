"""Which of many files are new or changed since the last scan, from listings alone.

See ``orchestration.inbox.watched_files`` for what follows when a file changes.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from libs.storage.backends.store import ObjectInfo

_BYTES = 6
"""Of a signature: among 100,000 files, one unseen file in three billion is taken for a seen one."""


@dataclass
class SeenFiles:
    """Signatures of the files looked at already: path, size and time of change, six bytes for each file."""

    signatures: set[bytes] = field(default_factory=set)

    @classmethod
    def load(cls, stored: str | None) -> Self:
        """The state that :meth:`dump` wrote; an empty one if there is none or it has another version."""
        try:
            content = base64.b64decode(stored or "", validate=True)
        except ValueError:
            return cls()
        if len(content) % _BYTES:
            return cls()
        return cls({content[start : start + _BYTES] for start in range(0, len(content), _BYTES)})

    def dump(self) -> str:
        """Serialize the state as text; equal states give equal text."""
        return base64.b64encode(b"".join(sorted(self.signatures))).decode("ascii")

    def unseen(self, files: Iterable[tuple[str, ObjectInfo]]) -> dict[str, ObjectInfo]:
        """Those of ``files`` that are new or changed, by path; what is not in ``files`` any more is forgotten."""
        present: set[bytes] = set()
        found = {}
        for path, info in files:
            signature = _signature(path, info)
            present.add(signature)
            if signature not in self.signatures:
                found[path] = info
        self.signatures &= present
        return found

    def add(self, path: str, info: ObjectInfo) -> None:
        """``path`` was looked at as it is now."""
        self.signatures.add(_signature(path, info))


def _signature(path: str, info: ObjectInfo) -> bytes:
    content = f"{path}\n{info.size}\n{info.modified.timestamp()}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:_BYTES]

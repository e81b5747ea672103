"""A rejected document: the stored data about it, and the text for the person who sent it, made from that data.

    inbox/rejected/<name>              the document
    inbox/rejected/<name>.error.txt    the text
    inbox/rejected/<name>.rejection    the same as data (JSON), for ``one-to-all list``

Documents that an earlier version rejected have only the text (:func:`parse_text`).
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from libs.messages.printable import shell_word

ERROR_SUFFIX = ".error.txt"
RECORD_SUFFIX = ".rejection"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Rejection:
    """A rejected document and why.

    Attributes:
        name: of the document, below ``inbox/``.
        reason: for the person who sent it.
        since: when it was refused.
        file: where the document lies now, as a person can copy it into a shell; None for a link, which is removed.
        traceback: of an unexpected error, for the log; not stored.
    """

    name: str
    reason: str
    since: datetime
    file: str | None = None
    traceback: str | None = None

    def text(self, inbox: str) -> str:
        """What the person reads; ``inbox`` is where a corrected document goes."""
        where = "The link was removed." if self.file is None else f"The document is now {self.file}."
        return (
            f"{shell_word(self.name)} was not accepted:\n\n{self.reason}\n\n{where}\n"
            f"Put a corrected one into {inbox}/ again.\n"
        )

    def to_json(self) -> str:
        """The record; :func:`parse_record` reads it."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "document": self.name,
            "reason": self.reason,
            "rejected": self.since.astimezone(UTC).isoformat(),
            "file": self.file,
        }
        return json.dumps(record, indent=2)  # ASCII: names of a disk need not be Unicode


class _Record(BaseModel):
    """What :meth:`Rejection.to_json` writes. Later versions may add keys."""

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal[1]
    document: str
    reason: str
    rejected: AwareDatetime
    file: str | None = None


def parse_record(record: bytes) -> Rejection | None:
    """What :meth:`Rejection.to_json` wrote; None where it is damaged, or something else: the text is read then."""
    try:
        found = _Record.model_validate(json.loads(record))
    except (ValidationError, ValueError, RecursionError):
        return None
    return Rejection(found.document, found.reason, found.rejected, found.file)


def parse_text(text: bytes, name: str, modified: datetime) -> Rejection:
    """The rejection of ``name`` from the text alone, as versions without a record stored it.

    The reason is the first paragraph below the heading.
    """
    paragraphs = text.decode("utf-8", "replace").split("\n\n")
    return Rejection(name, paragraphs[1] if len(paragraphs) > 1 else "", modified)

"""The small document that says what an artifact consists of; written last, so what it names is there.

See ``artifacts`` for storing it, ``libs.storage.backends.keys`` for where things are.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from libs.errors import ArtifactMissingError, StorageError
from libs.messages.validation import what_was_expected
from libs.storage.backends.keys import check_file_name, check_key
from libs.storage.backends.sha256 import SHA256_PATTERN


def _valid_name(name: str) -> str:
    try:
        return check_file_name(name)
    except StorageError as error:
        raise ValueError(str(error)) from None


def _valid_key(key: str) -> str:
    try:
        return check_key(key)
    except StorageError as error:
        raise ValueError(str(error)) from None


Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]


class StoredFile(BaseModel):
    """One file of an artifact: its name there, and the object that holds its bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, AfterValidator(_valid_name)]
    size: int = Field(ge=0)
    sha256: Sha256
    content_type: str
    key: Annotated[str, AfterValidator(_valid_key)]


class Manifest(BaseModel):
    """All files of an artifact. ``digest`` identifies the content; ``attributes`` say where it came from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    asset: str
    partition: str | None
    files: tuple[StoredFile, ...]
    digest: Sha256
    attributes: dict[str, Any] = Field(default_factory=dict)
    created: AwareDatetime

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> StoredFile:
        """The file called ``name``.

        Raises:
            ArtifactMissingError: there is none; the message lists those that exist.
        """
        for file in self.files:
            if file.name == name:
                return file
        names = ", ".join(file.name for file in self.files)
        raise ArtifactMissingError(f"{describe(self.asset, self.partition)} has no file {name!r}; it has {names}")

    def to_json(self) -> bytes:
        """The manifest as JSON text, as it is stored."""
        return self.model_dump_json(indent=2).encode()


def parse_manifest(data: bytes, source: str) -> Manifest:
    """Read a stored manifest.

    Raises:
        StorageError: damaged, or written by a newer version; the message names ``source``.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        way_out = "use a newer version of this software" if field == "schema_version" else "materialize the asset again"
        reason = f"{field or 'text'}: {what_was_expected(problem)}"
        raise StorageError(f"{source}: not a readable manifest ({reason}); {way_out}") from error


def content_digest(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over all (name, sha256), as of the output of ``sha256sum`` sorted by name."""
    lines = (f"{sha256}  {name}\n" for name, sha256 in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(asset: str, partition: str | None) -> str:
    """Asset and partition as messages name them."""
    return asset if partition is None else f"{asset}, partition {partition}"

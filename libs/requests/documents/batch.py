"""Several requests in one document: a list of requests, or a grid of references, drivers and settings.

A grid names what varies; each combination is one request, whose id follows from the names alone. So submitting a batch
again gives the same ids, and adding, removing or moving a line changes no other line's id. See ``animation_request``
for the fields of one request.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from libs.errors import InputError
from libs.requests.documents.animation_request import (
    GRID_NAME_PATTERN,
    AnimationRequest,
    describe_validation_error,
    validate_request_fields,
)
from libs.requests.documents.document import load_document

MAX_BATCH_REQUESTS = 10_000

_MAX_ID = 64
_DIGEST_DIGITS = 10
_VARYING_FIELDS = {
    "id": "a grid makes the ids itself",
    "reference": "list it under references",
    "driver": "list it under drivers",
}

GridName = Annotated[str, StringConstraints(pattern=GRID_NAME_PATTERN)]
MediaPaths = Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_REQUESTS)]


@dataclass(frozen=True)
class Submission:
    """What one document asks for. ``name`` is the id of its request or batch, None for a list."""

    name: str | None
    requests: tuple[AnimationRequest, ...]


class RequestGrid(BaseModel):
    """These references, each with these drivers, each with these settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    batch: GridName = Field(description="first part of every id")
    references: MediaPaths = Field(description="pictures, paths below inbox/")
    drivers: MediaPaths = Field(description="videos, paths below inbox/")
    settings: dict[GridName, dict[str, Any] | None] = Field(
        default_factory=dict, description="name -> request fields; one clip per name, reference and driver"
    )
    common: dict[str, Any] = Field(default_factory=dict, description="request fields that all of them share")

    @field_validator("references", "drivers")
    @classmethod
    def _each_once(cls, paths: list[str]) -> list[str]:
        plain = [str(PurePosixPath(path)) for path in paths]
        repeated = [path for path, count in Counter(plain).items() if count > 1]
        if repeated:
            raise ValueError(f"{repeated[0]!r} is listed more than once")
        return plain

    @field_validator("common")
    @classmethod
    def _common_fields_do_not_vary(cls, fields: dict[str, Any]) -> dict[str, Any]:
        _require_none_of_the_varying(fields)
        return fields

    @field_validator("settings")
    @classmethod
    def _settings_do_not_vary(cls, settings: dict[str, dict[str, Any] | None]) -> dict[str, dict[str, Any] | None]:
        for fields in settings.values():
            _require_none_of_the_varying(fields or {})
        return settings

    @property
    def size(self) -> int:
        """How many requests the grid has."""
        return len(self.references) * len(self.drivers) * max(1, len(self.settings))

    def expand(self, source: str) -> Iterator[AnimationRequest]:
        """The requests: references outermost, settings innermost.

        Raises:
            InputError: the fields of a setting or the common ones are wrong.
        """
        settings: Mapping[str, dict[str, Any] | None] = self.settings or {"": {}}
        for reference, driver, name in product(self.references, self.drivers, settings):
            fields = {**self.common, **(settings[name] or {}), "reference": reference, "driver": driver}
            request_id = grid_request_id(self.batch, reference, driver, name)
            place = f"{source}: settings.{name}" if name else source
            yield validate_request_fields({**fields, "id": request_id}, source=place)


def grid_request_id(batch: str, reference: str, driver: str, setting: str = "") -> str:
    """The id of one combination: readable names, then a digest that keeps similar names apart.

    It depends on these four names only, so it stays when the grid around it changes. At most 64 characters; letters,
    digits, ``-`` and ``_``.
    """
    names = json.dumps([batch, reference, driver, setting])
    digest = hashlib.sha256(names.encode()).hexdigest()[:_DIGEST_DIGITS]
    words = [batch, _plain(PurePosixPath(reference).stem), _plain(PurePosixPath(driver).stem), setting]
    readable = "-".join(word for word in words if word)[: _MAX_ID - _DIGEST_DIGITS - 1]
    return f"{readable.rstrip('-_')}-{digest}"


def parse_submission(document: bytes | str, *, source: str) -> Submission:
    """Read a document that holds one request, a list of requests, or a grid.

    Args:
        document: the text, UTF-8.
        source: where it came from, for messages.

    Raises:
        InputError: names ``source``, the wrong request and field, and says what was expected.
    """
    content = load_document(document, source=source)
    if isinstance(content, list):
        requests = _parse_list(content, source)
        return Submission(None, requests)
    if isinstance(content, dict) and "batch" in content:
        grid = _parse_grid(content, source)
        return Submission(grid.batch, _with_unique_ids(tuple(grid.expand(source)), source))
    request = validate_request_fields(content, source=source)
    return Submission(request.id, (request,))


def _parse_list(content: list[Any], source: str) -> tuple[AnimationRequest, ...]:
    if not content:
        raise InputError(f"{source}: the list of requests is empty")
    if len(content) > MAX_BATCH_REQUESTS:
        raise InputError(f"{source}: {len(content)} requests; at most {MAX_BATCH_REQUESTS} are allowed in one document")
    requests = tuple(
        validate_request_fields(fields, source=f"{source}: request {number}")
        for number, fields in enumerate(content, start=1)
    )
    return _with_unique_ids(requests, source)


def _parse_grid(content: dict[str, Any], source: str) -> RequestGrid:
    try:
        grid = RequestGrid.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {describe_validation_error(error, RequestGrid.model_fields)}") from None
    if grid.size > MAX_BATCH_REQUESTS:
        raise InputError(f"{source}: the grid has {grid.size} requests; at most {MAX_BATCH_REQUESTS} are allowed")
    return grid


def _require_none_of_the_varying(fields: dict[str, Any]) -> None:
    for name, where in _VARYING_FIELDS.items():
        if name in fields:
            raise ValueError(f"{name} is not allowed here: {where}")


def _with_unique_ids(requests: tuple[AnimationRequest, ...], source: str) -> tuple[AnimationRequest, ...]:
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            raise InputError(f"{source}: id: {request.id!r} appears more than once; each request needs its own id")
        seen.add(request.id)
    return requests


def _plain(name: str) -> str:
    """``name`` in lower-case letters and digits joined by ``-``; empty when it has none of them."""
    ascii_letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_letters).strip("-")

"""The inbox: where people put requests and media, below ``inbox/`` of the bucket (or the folder in its place).

A request ``puppet-dance`` is the document ``inbox/puppet-dance.yaml`` (or ``.yml``, ``.json``); the media it names are
paths below ``inbox/``. What does not belong here: what a request may say (``libs.animation_request``).
"""

import mimetypes
from pathlib import Path

from libs.animation_request import AnimationRequest, parse_request
from libs.errors import InputError
from libs.storage.objects import ObjectStore
from libs.storage.sha256 import sha256_of_file

INBOX_PREFIX = "inbox"
DOCUMENT_SUFFIXES = (".yaml", ".yml", ".json")


class Inbox:
    """Read access to requests and media, and the way to put them there."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def read_request(self, request_id: str) -> AnimationRequest:
        """The validated request ``request_id``.

        Raises:
            InputError: no document, more than one, a document that is wrong, or one whose id is another.
        """
        candidates = _document_keys(request_id)
        found = [key for key in candidates if self._objects.exists(key)]
        if not found:
            places = ", ".join(self._objects.uri(key) for key in candidates)
            raise InputError(f"no request document for {request_id!r}: expected one of {places}")
        if len(found) > 1:
            raise InputError(f"{request_id!r} has more than one request document: {', '.join(found)}; keep one of them")
        request = parse_request(self._objects.get_bytes(found[0]), source=found[0])
        if request.id != request_id:
            raise InputError(f"{found[0]}: id: is {request.id!r}, but the document is named for {request_id!r}")
        return request

    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        """Copy the media file ``path`` that a request's ``field`` names to ``destination``, keeping its suffix.

        Raises:
            InputError: there is no such file.
        """
        key = f"{INBOX_PREFIX}/{path}"
        if not self._objects.exists(key):
            raise InputError(f"{field}: there is no file {path!r} in the inbox (looked for {self._objects.uri(key)})")
        target = destination.with_suffix(Path(path).suffix.lower())
        self._objects.get_file(key, target)
        return target

    def has_request(self, request_id: str) -> bool:
        """True when there is a document for ``request_id``, right or wrong."""
        return any(self._objects.exists(key) for key in _document_keys(request_id))

    def put_folder(self, folder: Path) -> None:
        """Store every file of ``folder`` in the inbox, media before the documents that name them."""
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        for path in sorted(files, key=lambda path: path.suffix in DOCUMENT_SUFFIXES):
            self._put(path.name, path)

    def _put(self, name: str, file: Path) -> None:
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._objects.put_file(f"{INBOX_PREFIX}/{name}", file, sha256_of_file(file), content_type)


def _document_keys(request_id: str) -> list[str]:
    return [f"{INBOX_PREFIX}/{request_id}{suffix}" for suffix in DOCUMENT_SUFFIXES]

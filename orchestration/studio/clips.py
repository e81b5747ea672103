"""What the studio knows of requests and their clips: asked of the store and of Dagster, never kept.

A listing of thousands of requests takes a second, so the newest one is shown while the next is being taken. A single
request is always asked for anew. See ``libs.requests.lifecycle.listing`` for what a state means.
"""

import hashlib
import io
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from libs.command_line.requests.runs import RunsOrReason
from libs.command_line.requests.stored_results import require_request, require_request_id
from libs.errors import ArtifactMissingError, InputError, OneToAllError, StorageError
from libs.model_repo.variants import VARIANTS, variant_of_folder
from libs.provenance.record import Provenance, parse_provenance
from libs.provenance.run_record import PROVENANCE_FILE
from libs.requests.documents.animation_request import AnimationRequest, ResolvedRequest
from libs.requests.documents.batch import parse_submission
from libs.requests.documents.document import load_document
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.control import CancelResult, RetryResult, cancel_request, retry_request
from libs.requests.lifecycle.listing import ListedRequest, Listing, RequestListing, RequestPhase
from libs.settings import Settings
from libs.stages.animation_files import (
    CLIP_FILE,
    COMPARISON_FILE,
    CONTACT_SHEET_FILE,
    PREVIEW_FILE,
    REFERENCE_PICTURE_FILE,
)
from libs.stages.request.submitting import prepare_submission, send_submission
from libs.storage.artifacts import ArtifactStore
from libs.storage.manifest import Manifest, StoredFile

_FRESH_SECONDS = 1.0
_REST = 3.0
"""A listing is not taken again before this many times what it took: the studio leaves the machine to the clips."""

_QUALITY_FILE = "quality.json"
"""That of ``libs.stages.review.quality``, whose module loads the media libraries."""

_THUMBNAIL = (320, 320)
_THUMBNAILS_KEPT = 1000

ACTIVE = frozenset({RequestPhase.IN_INBOX, RequestPhase.QUEUED, RequestPhase.RUNNING})
"""Phases that change by themselves."""


@dataclass(frozen=True)
class FileKind:
    """A file that a request may have: which asset it is of, and how its name begins there."""

    asset: str
    begins: str


FILES = {
    "clip": FileKind("animation", CLIP_FILE),
    "poses": FileKind("pose_conditioning", PREVIEW_FILE),
    "comparison": FileKind("animation_review", COMPARISON_FILE),
    "contact-sheet": FileKind("animation_review", CONTACT_SHEET_FILE),
    "reference": FileKind("request_media", "reference."),
    "reference-picture": FileKind("request_media", REFERENCE_PICTURE_FILE),
    "driver": FileKind("request_media", "driver."),
    "provenance": FileKind("animation", PROVENANCE_FILE),
}
"""Name in an address -> the file."""


@dataclass(frozen=True)
class SubmittedRequest:
    """A request that was handed in: its id, and what comes of it."""

    id: str
    outcome: str


@dataclass(frozen=True)
class Measure:
    """One number of a clip's quality, against its limit."""

    name: str
    value: float | None
    limit: float
    at_least: bool
    is_good: bool
    description: str
    unit: str


class Clips:
    """Requests and clips of ``store``; ``open_runs`` finds Dagster's runs, or says why it cannot."""

    def __init__(self, settings: Settings, store: ArtifactStore, open_runs: Callable[[], RunsOrReason]) -> None:
        self.settings, self.store = settings, store
        self._open_runs = open_runs
        self._listings = Listings(self._take)
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._verified = _VerifiedFiles(store)
        self.inbox = Inbox(store.objects)

    def listing(self) -> Listing:
        """All requests, the newest first, as they were a moment ago."""
        return self._listings.newest()

    def changed(self) -> None:
        """What was listed is no longer so: somebody submitted, canceled or tried again."""
        self._listings.forget()

    def find(self, request_id: str) -> ListedRequest:
        """One request as it is now.

        Raises:
            InputError: there is none of this id; the message tells a rejected one from an unknown one.
        """
        require_request_id(request_id)
        runs = self._open_runs().runs
        found = RequestListing(self.store, runs).find(request_id)
        document = self.inbox.waiting_document(request_id)
        if document is not None and (found is None or document.modified > found.since):
            state = "queued: waits for the next scan"
            has_clip = found is not None and found.has_clip
            return ListedRequest(request_id, state, document.modified, None, RequestPhase.IN_INBOX, has_clip)
        if found is None:
            require_request(self.store, request_id)
            raise InputError(f"{request_id}: there is no such request")
        return found

    def request(self, request_id: str) -> ResolvedRequest | None:
        """What is asked for under this id, with all defaults; None while its document waits, or if it is damaged."""
        try:
            accepted = AcceptedRequests(self.store.objects).find(request_id)
        except StorageError:
            return None
        return accepted.request if accepted else None

    def check(self, body: bytes) -> tuple[list[AnimationRequest], bytes]:
        """Read a request document; a single request without an id gets one.

        Returns:
            The requests, and the document as it would be submitted.

        Raises:
            InputError: it is wrong; the message names each field.
        """
        content = load_document(body, source="request")
        if isinstance(content, dict) and not {"id", "batch"} & content.keys():
            content = {"id": _new_id(content), **content}
            body = json.dumps(content).encode()
        return list(parse_submission(body, source="request").requests), body

    def submit(self, body: bytes, *, replace: bool = False) -> tuple[list[SubmittedRequest], list[str]]:
        """Put a request document into the inbox, as ``one-to-all submit`` does; its media must be there already.

        Returns:
            The requests with what comes of them, and what the person may want to know.

        Raises:
            InputError: it is wrong, or would replace another request and ``replace`` is false.
        """
        requests, body = self.check(body)
        if not replace:
            self._require_new(requests)
        runs = self._open_runs().runs
        with TemporaryDirectory(prefix="studio-") as folder:
            document = Path(folder) / f"studio-{secrets.token_hex(6)}.json"  # a list is called so in the inbox
            document.write_bytes(body)
            prepared = prepare_submission([document], self.store, self.settings)
            sent = send_submission(prepared, self.store, runs.reports([]) if runs else {})
        self.changed()
        outcomes = [SubmittedRequest(name, what) for each in sent.outcomes.values() for name, what in each.items()]
        return outcomes, list(prepared.notes)

    def cancel(self, request_id: str, by: str) -> CancelResult | None:
        """Cancel a request; one whose document still waits in the inbox is taken back from there.

        Returns:
            What was done; None where the document was taken back, and nothing was made of it yet.

        Raises:
            InputError: there is no such request.
        """
        document = self.inbox.waiting_document(require_request_id(request_id))
        if document is not None and self.inbox.withdraw(document):
            self.changed()
            if AcceptedRequests(self.store.objects).find(request_id) is None:
                return None
        require_request(self.store, request_id)
        result = cancel_request(self.store, self._open_runs().runs, request_id, by)
        self.changed()
        return result

    def retry(self, request_id: str, *, tonight: bool = False) -> RetryResult:
        """Try a request again.

        Raises:
            InputError: there is no such request.
        """
        require_request(self.store, request_id)
        runs = self._open_runs().runs
        result = retry_request(self.store, runs.reports([]) if runs else {}, request_id, tonight=tonight)
        self.changed()
        return result

    def files(self, request_id: str) -> dict[str, StoredFile]:
        """Name in an address -> the file, of those that are there."""
        manifests = {asset: self._manifest(asset, request_id) for asset in {kind.asset for kind in FILES.values()}}
        found: dict[str, StoredFile] = {}
        for name, kind in FILES.items():
            if (manifest := manifests[kind.asset]) and (file := _file_of(manifest, kind)):
                found[name] = file
        return found

    def file(self, request_id: str, name: str) -> tuple[StoredFile, Path]:
        """A file of a request, and where a verified copy of it lies.

        Raises:
            ArtifactMissingError: it is not there (yet).
            StorageError: it cannot be read.
        """
        kind = FILES.get(name)
        manifest = self._manifest(kind.asset, require_request_id(request_id)) if kind else None
        file = _file_of(manifest, kind) if manifest and kind else None
        if file is None or manifest is None:
            raise ArtifactMissingError(f"{request_id}: has no {printable_name(name)} yet")
        return file, self._verified.path(manifest, file)

    def thumbnail(self, request_id: str) -> bytes:
        """A small picture of the clip, or of the reference while there is none, as JPEG.

        Raises:
            ArtifactMissingError: neither is there.
        """
        try:
            file, path = self.file(request_id, "clip")
        except ArtifactMissingError:
            file, path = self.file(request_id, "reference-picture")
        if file.sha256 not in self._thumbnails:
            self._thumbnails[file.sha256] = _small_picture(path, is_clip=file.name == CLIP_FILE)
            while len(self._thumbnails) > _THUMBNAILS_KEPT:
                self._thumbnails.popitem(last=False)
        return self._thumbnails[file.sha256]

    def provenance(self, request_id: str) -> Provenance | None:
        """What the clip was made of and by; None where there is no clip, or nothing was recorded."""
        try:
            _, path = self.file(request_id, "provenance")
            return parse_provenance(path.read_bytes(), f"{PROVENANCE_FILE} of {request_id}")
        except (OneToAllError, OSError):
            return None

    def measures(self, request_id: str) -> list[Measure]:
        """The clip's quality, measure by measure; empty while it was not reviewed."""
        from orchestration.animations.quality_checks import THRESHOLDS  # noqa: PLC0415 - takes a second

        manifest = self._manifest("animation_review", request_id)
        file = _file_of(manifest, FileKind("animation_review", _QUALITY_FILE)) if manifest else None
        if manifest is None or file is None:
            return []
        numbers = json.loads(self._verified.path(manifest, file).read_bytes())
        found = []
        for name, limit in THRESHOLDS.items():
            value = numbers.get(limit.measure)
            bound = limit.least if limit.least is not None else limit.most or 0.0
            is_good = value is not None and limit.accepts(value)
            at_least = limit.least is not None
            found.append(Measure(name, value, bound, at_least, is_good, limit.description, limit.unit))
        return found

    def models(self) -> list[tuple[str, bool]]:
        """Model variants, and whether their files were verified."""
        return [(name, self._manifest("model_verification", name) is not None) for name in VARIANTS]

    @property
    def default_model(self) -> str:
        """The model variant of a request that names none."""
        return variant_of_folder(self.settings.one_to_all_model_dir).name

    def runs_reason(self) -> str:
        """Why Dagster cannot be asked; empty if it can."""
        return self._open_runs().reason

    def media(self) -> list[tuple[str, datetime]]:
        """Pictures and videos of the inbox, the newest first."""
        found = [(path, info.modified) for path, info in self.inbox.all_media()]
        return sorted(found, key=lambda each: each[1], reverse=True)

    def _take(self) -> Listing:
        return RequestListing(self.store, self._open_runs().runs).take(None)

    def _manifest(self, asset: str, request_id: str) -> Manifest | None:
        try:
            return self.store.manifest(asset, request_id)
        except StorageError:
            return None

    def _require_new(self, requests: Iterable[AnimationRequest]) -> None:
        """Look whether ids are free, or ask for what they ask for already.

        Raises:
            RequestExistsError: one is taken.
        """
        accepted = AcceptedRequests(self.store.objects)
        for request in requests:
            before = accepted.find(request.id)
            if before is not None and request.resolve(before.request.model) != before.request:
                raise RequestExistsError(
                    f"{request.id}: another request has this id: choose another one, or send it with ?replace=true"
                )


class RequestExistsError(InputError):
    """Another request has the id."""


class Listings:
    """The newest listing; the next is taken in the background when somebody asks and it is no longer fresh."""

    def __init__(self, take: Callable[[], Listing]) -> None:
        self._take = take
        self._lock = threading.Lock()
        self._newest: Listing | None = None
        self._started = self._taken_at = self._took = 0.0
        self._is_old = False
        self._taking = False

    def newest(self) -> Listing:
        """The newest there is; only the first is waited for, and the one after :meth:`forget`."""
        with self._lock:
            newest, age = self._newest, time.monotonic() - self._taken_at
            if newest is not None and not self._is_old:
                if age > max(_FRESH_SECONDS, _REST * self._took) and not self._taking:
                    self._taking = True
                    threading.Thread(target=self._refresh, daemon=True).start()
                return newest
        return self._refresh()

    def forget(self) -> None:
        """What was listed is no longer so."""
        with self._lock:
            self._is_old = True

    def _refresh(self) -> Listing:
        with self._lock:
            self._is_old = False  # what is submitted from now on may be missing in what is taken
        started = time.monotonic()
        try:
            taken = self._take()
        finally:
            with self._lock:
                self._taking = False
        with self._lock:
            if started >= self._started:  # one that was begun earlier may be finished later, and knows less
                self._newest, self._started = taken, started
                self._taken_at = time.monotonic()
                self._took = self._taken_at - started
        return taken


class _VerifiedFiles:
    """Copies of stored files in the local cache, hashed once and not for each piece that a player asks for."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._seen: OrderedDict[str, tuple[Path, tuple[int, int, int]]] = OrderedDict()

    def path(self, manifest: Manifest, file: StoredFile) -> Path:
        if known := self._seen.get(file.sha256):
            path, signature = known
            if _signature(path) == signature:
                return path
        with self._store.open_file(manifest.asset, manifest.partition, file.name) as opened:
            path = Path(opened.name)
        signature_now = _signature(path)
        if signature_now is not None:
            self._seen[file.sha256] = (path, signature_now)
            while len(self._seen) > _THUMBNAILS_KEPT:
                self._seen.popitem(last=False)
        return path


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns if status.st_nlink else 0


def _file_of(manifest: Manifest, kind: FileKind) -> StoredFile | None:
    return next((file for file in manifest.files if file.name.startswith(kind.begins)), None)


def _small_picture(path: Path, *, is_clip: bool) -> bytes:
    from PIL import Image  # noqa: PLC0415 - loaded when the first is asked for

    from libs.media.pictures.image import read_image  # noqa: PLC0415
    from libs.media.video.reader import read_frames  # noqa: PLC0415

    frame = next(iter(read_frames(path))) if is_clip else read_image(path)
    picture = Image.fromarray(frame)
    picture.thumbnail(_THUMBNAIL)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=82)
    return written.getvalue()


def _new_id(content: dict[str, Any]) -> str:
    """An id for a request that has none: its picture's and video's names, the day, and some letters."""
    words = [_word(content.get(field)) for field in ("reference", "driver")]
    name = "-".join(word for word in words if word) or "clip"
    return f"{name[:44].strip('-_')}-{datetime.now(UTC):%m%d}-{secrets.token_hex(3)}"


def _word(path: object) -> str:
    stem = Path(path).stem.lower() if isinstance(path, str) else ""
    letters = "".join(character if character.isascii() and character.isalnum() else "-" for character in stem)
    parts = [part for part in letters.split("-") if part]
    if len(parts) > 1 and len(parts[-1]) == 12:  # the digits of a digest, by which an upload is stored
        parts.pop()
    return "-".join(parts)[:22].strip("-")


def printable_name(name: str) -> str:
    """A file's name in an address, in words."""
    return name.replace("-", " ")


def version_of(file: StoredFile) -> str:
    """What tells this content of a file from others, in an address."""
    return hashlib.sha256(file.sha256.encode()).hexdigest()[:12]

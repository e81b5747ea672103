"""Pictures and videos on their way into the inbox: sent in pieces, resumable, checked before anybody sees them.

    DATA_DIR/studio/uploads/<id>.json     what was announced: name, size, digest
    DATA_DIR/studio/uploads/<id>.part     the bytes that have arrived

A finished file is looked at (is it a picture or a video that a clip can be made of?) and put into the inbox under a
name that ends with the first digits of its digest, so that no upload ever takes the place of another one. What a person
calls a file never becomes a path: its letters become part of a name, its suffix follows from the content. Unfinished
uploads are removed after a day.
"""

import hashlib
import re
import secrets
import shutil
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.errors import InputError, MediaError, OneToAllError, StorageError
from libs.files.atomic_write import write_bytes_atomically
from libs.media.file_kind import kind_of_file
from libs.messages.printable import printable
from libs.progress import show_bytes
from libs.requests.inbox.inbox import Inbox
from libs.storage.backends.sha256 import SHA256_PATTERN, sha256_of_file

_ID = re.compile(r"[0-9a-f]{32}")
_ABANDONED_AFTER_SECONDS = 24 * 3600
_AT_ONCE = 500
"""Unfinished uploads of everybody; beyond that something goes wrong."""

_MINIMUM_FREE_BYTES = 1_000_000_000
_LONGEST_STEM = 60
_DIGITS_OF_NAME = 12
_CHECKED_AT_ONCE = threading.BoundedSemaphore(2)
"""Files that are decoded at the same time: each may take a gigabyte of memory."""

_SUFFIXES = {
    "a picture (PNG)": ".png",
    "a picture (JPEG)": ".jpg",
    "a picture (GIF)": ".gif",
    "a picture (BMP)": ".bmp",
    "a picture (WebP)": ".webp",
    "a picture (TIFF, or a camera's raw file)": ".tiff",
    "a picture (HEIC or AVIF)": ".heic",
    "a video (MP4 or MOV)": ".mp4",
    "a video (MKV or WebM)": ".mkv",
    "a video (FLV)": ".flv",
    "a video (AVI)": ".avi",
}
"""What a file's first bytes say -> its suffix, where the person's own is none that such files have."""

_ALLOWED_SUFFIXES = frozenset({*_SUFFIXES.values(), ".jpeg", ".tif", ".heif", ".avif", ".mov", ".m4v", ".webm", ".ts"})


class AnnouncedUpload(BaseModel):
    """What somebody wants to send."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=500, description="the file's name, for people", examples=["dance.mp4"])
    size: int = Field(ge=1, description="bytes", examples=[1_048_576])
    sha256: str | None = Field(None, pattern=SHA256_PATTERN, description="digest of the whole file, checked at the end")


class MediaFile(BaseModel):
    """A picture or a video in the inbox, ready to be named in a request."""

    path: str = Field(description="what `reference` or `driver` of a request says", examples=["dance-1a2b3c4d5e6f.mp4"])
    kind: str = Field(description="`picture` or `video`")
    size: int = Field(description="bytes")
    sha256: str
    width: int
    height: int
    frames: int | None = None
    frame_rate: float | None = None
    seconds: float | None = None
    has_sound: bool = False
    notes: list[str] = Field(default_factory=list, description="what is converted, and what a person may want to know")


class UploadState(BaseModel):
    """How far an upload is; ``media`` once it is finished."""

    id: str
    offset: int = Field(description="bytes that have arrived; the next piece begins here")
    size: int
    media: MediaFile | None = None


class WrongOffsetError(InputError):
    """A piece does not begin where the bytes that have arrived end."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next piece must begin at byte {offset}: send Upload-Offset: {offset}")
        self.offset = offset


class UploadMissingError(InputError):
    """There is no such upload (any more)."""


class Uploads:
    """Uploads into ``inbox``, with what is unfinished below ``folder``."""

    def __init__(self, folder: Path, inbox: Inbox, maximum_bytes: int) -> None:
        self._folder, self._inbox, self._maximum = folder, inbox, maximum_bytes
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, announced: AnnouncedUpload) -> UploadState:
        """Begin an upload.

        Raises:
            InputError: it is too large, the disk has no room, or too many are unfinished.
        """
        if announced.size > self._maximum:
            raise InputError(
                f"{printable(announced.name, 80)}: has {show_bytes(announced.size)}; at most "
                f"{show_bytes(self._maximum)} may be uploaded (STUDIO_UPLOAD_MAX_GB)"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._remove_abandoned()
        if unfinished >= _AT_ONCE:
            raise InputError(f"{unfinished} uploads are unfinished: wait until some of them are done")
        if shutil.disk_usage(self._folder).free < announced.size + _MINIMUM_FREE_BYTES:
            raise InputError(f"the studio's disk has no room for {show_bytes(announced.size)}; ask who operates it")
        upload_id = secrets.token_hex(16)
        self._part(upload_id).touch()
        write_bytes_atomically(self._note(upload_id), announced.model_dump_json().encode())
        return UploadState(id=upload_id, offset=0, size=announced.size)

    def state(self, upload_id: str) -> UploadState:
        """How far it is.

        Raises:
            UploadMissingError: there is none, or it is finished.
        """
        announced = self._announced(upload_id)
        return UploadState(id=upload_id, offset=self._part(upload_id).stat().st_size, size=announced.size)

    def append(self, upload_id: str, offset: int, piece: bytes, sha256: str | None = None) -> UploadState:
        """Add a piece; the last one finishes the upload, and the file is checked and put into the inbox.

        Raises:
            UploadMissingError: there is no such upload.
            WrongOffsetError: the piece does not begin where the others end, e.g. as it was sent twice.
            InputError: a digest is not that of the bytes, more bytes came than were announced, or no clip can be made
                of the file. A finished upload that is refused is removed.
        """
        with self._alone(upload_id):
            announced = self._announced(upload_id)
            part = self._part(upload_id)
            there = part.stat().st_size
            if offset != there:
                raise WrongOffsetError(there)
            if there + len(piece) > announced.size:
                raise InputError(f"more than the announced {announced.size} bytes were sent")
            if sha256 is not None and hashlib.sha256(piece).hexdigest() != sha256:
                raise InputError("the piece does not have the digest it was sent with: send it again")
            with part.open("ab") as file:
                file.write(piece)
            if there + len(piece) < announced.size:
                return UploadState(id=upload_id, offset=there + len(piece), size=announced.size)
            try:
                media = self._finish(announced, part)
            except InputError:
                self._remove(upload_id)
                raise
            self._remove(upload_id)
            return UploadState(id=upload_id, offset=announced.size, size=announced.size, media=media)

    def abandon(self, upload_id: str) -> None:
        """Remove an unfinished upload.

        Raises:
            UploadMissingError: there is no such upload.
        """
        with self._alone(upload_id):
            self._announced(upload_id)
            self._remove(upload_id)

    def _finish(self, announced: AnnouncedUpload, part: Path) -> MediaFile:
        sha256 = sha256_of_file(part)
        if announced.sha256 is not None and sha256 != announced.sha256:
            raise InputError(
                f"{printable(announced.name, 80)}: arrived with the digest {sha256[:16]}…, announced was "
                f"{announced.sha256[:16]}…: send the file again"
            )
        with _CHECKED_AT_ONCE:
            media = describe_media(part, announced.name)
        name = stored_name(announced.name, part, sha256)
        if self._inbox.put_if_unchanged(name, part, None) is None:
            raise InputError(f"{name}: another file of this name is in the inbox; rename yours")
        return media.model_copy(update={"path": name})

    @contextmanager
    def _alone(self, upload_id: str) -> Iterator[None]:
        """Refuse two pieces of one upload at the same time."""
        with self._lock:
            if upload_id in self._busy:
                raise InputError("another piece of this upload is being written: send one after the other")
            self._busy.add(upload_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(upload_id)

    def _announced(self, upload_id: str) -> AnnouncedUpload:
        if _ID.fullmatch(upload_id):
            with suppress(OSError, ValidationError):
                return AnnouncedUpload.model_validate_json(self._note(upload_id).read_bytes())
        raise UploadMissingError("there is no such upload: it is finished, was refused, or is older than a day")

    def _remove_abandoned(self) -> int:
        """Remove what nobody continued for a day; returns how many others there are."""
        oldest = time.time() - _ABANDONED_AFTER_SECONDS
        left = 0
        for part in self._folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < oldest:
                    self._remove(part.stem)
                else:
                    left += 1
        return left

    def _remove(self, upload_id: str) -> None:
        for path in (self._note(upload_id), self._part(upload_id)):
            path.unlink(missing_ok=True)

    def _note(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _part(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"


def describe_media(path: Path, name: str) -> MediaFile:
    """What a file is, measured: the same checks as a run makes of a request's media.

    Args:
        path: the file; its name says nothing.
        name: what the person calls it, for messages.

    Raises:
        MediaError: no clip can be made of it.
    """
    from libs.media.usable import check_driver, check_reference  # noqa: PLC0415 - loads the media libraries
    from libs.media.video.probe import probe_video  # noqa: PLC0415

    kind = kind_of_file(path) or ""
    size = path.stat().st_size
    shown = printable(name, 80)
    try:
        if kind.startswith("a picture") and not _is_moving(path):
            picture = check_reference(path)
            height, width = picture.frame.shape[:2]
            notes = list(picture.notes())
            return MediaFile(
                path="", kind="picture", size=size, sha256=sha256_of_file(path), width=width, height=height, notes=notes
            )
        if kind and not kind.startswith(("a picture", "a video", "an Ogg file")):
            raise MediaError(f"{path}: is {kind}; a picture or a video is expected")
        conversion = check_driver(path, keep_audio=True)
        video = probe_video(path)
    except MediaError as error:
        raise MediaError(str(error).replace(str(path), shown)) from None
    return MediaFile(
        path="",
        kind="video",
        size=size,
        sha256=sha256_of_file(path),
        width=video.width,
        height=video.height,
        frames=video.frame_count,
        frame_rate=float(video.frame_rate),
        seconds=float(video.duration),
        has_sound=video.has_audio,
        notes=[*video.notes, *([f"{conversion}; converted to AAC"] if conversion else [])],
    )


def stored_name(name: str, path: Path, sha256: str) -> str:
    """The name below ``inbox/`` of a file that a person calls ``name``: plain letters, and digits of its digest."""
    plain = PurePosixPath(unicodedata.normalize("NFKD", name.replace("\\", "/").replace("\0", "")))
    suffix = plain.suffix
    word = (
        re.sub(r"[^A-Za-z0-9]+", "-", plain.stem.encode("ascii", "ignore").decode()).strip("-").lower()[:_LONGEST_STEM]
    )
    usual = suffix.lower() if suffix.lower() in _ALLOWED_SUFFIXES else _SUFFIXES.get(kind_of_file(path) or "", ".mp4")
    return f"{word.rstrip('-') or 'media'}-{sha256[:_DIGITS_OF_NAME]}{usual}"


def _is_moving(path: Path) -> bool:
    """Whether a file that begins as a picture has several frames: an animated GIF or PNG is a driver."""
    from libs.media.pictures.still import is_still  # noqa: PLC0415 - loads the media libraries

    try:
        return not is_still(path)
    except (OneToAllError, StorageError):
        return False

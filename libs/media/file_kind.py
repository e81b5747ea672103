"""What a file really is, by its first bytes: for messages to somebody who gave another file than was meant."""

from pathlib import Path

_HEADER_BYTES = 512

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"BM", "a picture (BMP)"),
    (b"II*\0", "a picture (TIFF, or a camera's raw file)"),
    (b"MM\0*", "a picture (TIFF, or a camera's raw file)"),
    (b"8BPS", "a Photoshop document"),
    (b"\x1a\x45\xdf\xa3", "a video (MKV or WebM)"),
    (b"FLV\x01", "a video (FLV)"),
    (b"OggS", "an Ogg file (sound or video)"),
    (b"ID3", "a sound file (MP3)"),
    (b"fLaC", "a sound file (FLAC)"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x1f\x8b", "a compressed file (gzip)"),
    (b"Rar!", "a rar archive"),
)
_PICTURE_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def kind_of_file(path: Path) -> str | None:
    """``a video (MP4 or MOV)``, ``a text file``, …; None if the first bytes match no known kind or cannot be read."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return None
    return _kind_of(header)


def _kind_of(header: bytes) -> str | None:
    if not header:
        return "an empty file"
    for start, kind in _STARTS:
        if header.startswith(start):
            return kind
    if header[4:8] == b"ftyp":
        return "a picture (HEIC or AVIF)" if header[8:12] in _PICTURE_BRANDS else "a video (MP4 or MOV)"
    if header.startswith(b"RIFF"):
        return {b"WEBP": "a picture (WebP)", b"AVI ": "a video (AVI)", b"WAVE": "a sound file (WAV)"}.get(header[8:12])
    return _kind_of_text(header)


def _kind_of_text(header: bytes) -> str | None:
    text = header.removeprefix(b"\xef\xbb\xbf").lstrip()
    lowered = text[:200].lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML): the download gave a page instead of the file"
    if b"<svg" in lowered:
        return "a drawing (SVG)"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself"
    if b"\0" in header or any(byte < 9 for byte in header):
        return None
    try:
        header.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(header) - 3:
            return None
    return "a text file"

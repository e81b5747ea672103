"""The digest of what a video shows and plays, whatever its file is called and tagged.

See ``libs.storage.backends.sha256`` for digests of files.
"""

import hashlib
from pathlib import Path

import av

from libs.media.video.video_file import open_container, packets_of


def stream_digest(path: Path | str) -> str:
    """SHA-256 over the encoded streams: codec, parameters, and each packet's time, duration and bytes.

    Equal for files whose pictures and sound are encoded alike, bit for bit; tags and the order in the file do not
    count. Nothing is decoded: it takes as long as reading the file.

    Raises:
        MediaError: the file cannot be read.
    """
    path = Path(path)
    with open_container(path) as container:
        streams = {stream.index: _beginning(stream) for stream in container.streams}
        for packet in packets_of(path, container):
            times = [_seconds(packet, value) for value in (packet.pts, packet.dts, packet.duration)]
            streams[packet.stream_index].update(f"{times} {packet.size} ".encode() + bytes(packet))
    whole = hashlib.sha256()
    for index in sorted(streams):
        whole.update(streams[index].digest())
    return whole.hexdigest()


def _beginning(stream: av.stream.Stream) -> "hashlib._Hash":
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else ""
    return hashlib.sha256(f"{stream.type} {name} ".encode() + bytes(context.extradata or b"" if context else b""))


def _seconds(packet: av.Packet, value: int | None) -> str | None:
    """Exact, so that another time base of the same times makes no difference."""
    return None if value is None or packet.time_base is None else str(value * packet.time_base)

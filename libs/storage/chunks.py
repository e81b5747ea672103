"""Finished chunks of a long clip, kept in the store until the clip is whole: a killed run goes on where it was.

A chunk is stored without loss: each frame as its difference to the one before (modulo 256), compressed with zlib at its
fastest setting. On a real clip that takes a quarter of the raw size; an ``npz`` takes a third, and twice the time. A
small document with the digest is written after the data. Fulfils the protocol ``ChunkStore`` of the engine
(``libs.one_to_all.events``).
"""

import hashlib
import json
import logging
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.errors import ArtifactMissingError
from libs.files.garbage_collection import garbage_collection_paused
from libs.storage.backends.keys import check_key
from libs.storage.backends.store import ObjectStore

Frames = npt.NDArray[np.uint8]

_FORMAT = "frame differences, zlib"
_COMPRESSION_LEVEL = 1

_log = logging.getLogger(__name__)


class StoredChunks:
    """Chunks below ``prefix``, which must name everything that determines the clip (a digest of its inputs)."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self.prefix = check_key(prefix)

    def save(self, index: int, frames: Frames) -> None:
        """Keep the uint8 frames [n, H, W, 3] of chunk ``index``, replacing what was kept before."""
        if frames.dtype != np.uint8 or frames.ndim != 4:
            raise TypeError(f"chunk {index} is {frames.dtype} {frames.shape}, expected uint8 [n, H, W, 3]")
        data = _compress(frames)
        description = {"format": _FORMAT, "shape": frames.shape, "sha256": hashlib.sha256(data).hexdigest()}
        self._objects.put_bytes(self._data_key(index), data)
        self._objects.put_bytes(self._description_key(index), json.dumps(description).encode(), "application/json")

    def load(self, index: int) -> Frames | None:
        """The frames uint8 [n, H, W, 3] as saved; None when chunk ``index`` is not kept, or is damaged.

        A damaged chunk is as good as none: it is made again.
        """
        try:
            description = self._objects.get_bytes(self._description_key(index))
            data = self._objects.get_bytes(self._data_key(index))
        except ArtifactMissingError:
            return None
        try:
            with garbage_collection_paused():
                content = json.loads(description)
            return _decompress(data, _shape_of(content, data))
        except (ValueError, TypeError, KeyError, RecursionError, zlib.error):
            _log.warning("%s is damaged and will be made again", self._objects.uri(self._data_key(index)))
            return None

    def clear(self) -> None:
        """Remove all chunks, also incomplete ones."""
        for info in list(self._objects.list(f"{self.prefix}/")):
            self._objects.delete(info.key)

    def _data_key(self, index: int) -> str:
        return f"{self.prefix}/{index:05d}.frames"

    def _description_key(self, index: int) -> str:
        return f"{self.prefix}/{index:05d}.json"


def _compress(frames: Frames) -> bytes:
    compressor = zlib.compressobj(_COMPRESSION_LEVEL)
    pieces = []
    previous = np.zeros(frames.shape[1:], np.uint8)
    for frame in frames:
        pieces.append(compressor.compress((frame - previous).tobytes()))  # uint8 wraps around on purpose
        previous = frame
    return b"".join([*pieces, compressor.flush()])


def _shape_of(description: Any, data: bytes) -> tuple[int, ...]:
    """The shape of the chunk that is stored as ``data``.

    Raises:
        ValueError, TypeError, KeyError: the description is damaged, or belongs to other data.
    """
    if description["format"] != _FORMAT or description["sha256"] != hashlib.sha256(data).hexdigest():
        raise ValueError("other data, or another format")
    frames, height, width, channels = description["shape"]
    if channels != 3 or not all(isinstance(side, int) and side > 0 for side in (frames, height, width)):
        raise ValueError(f"no shape of frames: {description['shape']}")
    return frames, height, width, channels


def _decompress(data: bytes, shape: tuple[int, ...]) -> Frames:
    differences = np.frombuffer(bytearray(zlib.decompress(data)), np.uint8).reshape(shape)
    return np.add.accumulate(differences, axis=0, dtype=np.uint8, out=differences)

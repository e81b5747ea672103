"""Finished chunks of one clip in a folder, one ``.npy`` file each. Light: numpy, no torch.

What does not belong here: deciding when chunks are stale; give every set of inputs and options its own folder.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from libs.atomic_write import atomic_write


class FolderChunkStore:
    """A ``ChunkStore`` below ``folder``; the folder is made with the first chunk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, index: int) -> Mapping[str, np.ndarray] | None:
        """The chunk as saved, memory-mapped; None when it is not there or cannot be read."""
        try:
            return {"frames": np.load(self._path(index), mmap_mode="r", allow_pickle=False)}
        except (FileNotFoundError, ValueError, EOFError):
            return None  # a chunk that cannot be read is made again

    def save(self, index: int, frames: np.ndarray) -> None:
        """Write the chunk under a temporary name and put it in place in one step."""
        with atomic_write(self._path(index)) as temporary, temporary.open("wb") as file:
            np.save(file, frames, allow_pickle=False)

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:04d}.npy"

"""What happens to a finished chunk on the host: how long the device would wait for it, were it not done meanwhile.

    python benchmarks/chunk_writing.py

Storing (compression, a folder as store) and encoding of one chunk of a synthetic clip with camera noise. What does not
belong here: sampling (``engine.py``).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from libs.media.video.writer import VideoWriter
from libs.settings import Settings
from libs.storage.backends.factory import objects_from_settings
from libs.storage.chunks import StoredChunks
from libs.worker_thread import WorkerThread

_FRAMES, _NEW = 81, 76


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    frames = _clip(arguments.height, arguments.width)
    with tempfile.TemporaryDirectory(prefix="chunk-writing-") as name:
        folder = Path(name)
        chunks = StoredChunks(objects_from_settings(Settings(data_dir=folder, _env_file=None)), "chunks/benchmark")

        def store() -> None:
            chunks.save(0, frames)

        def encode() -> None:
            size = (arguments.width, arguments.height)
            with VideoWriter(folder / "clip.mp4", *size, Fraction(30)) as writer:
                for frame in frames[:_NEW]:
                    writer.write(frame)

        print(
            f"one chunk of {_FRAMES} frames of {arguments.width}x{arguments.height}, best of {arguments.rounds} rounds"
        )
        print(f"{'':<10}{'seconds':>9}{'processor':>11}{'caller waits':>14}")
        for label, call in (("storing", store), ("encoding", encode)):
            taken = [_measure(call) for _ in range(arguments.rounds)]
            seconds, processor, waits = (min(values) for values in zip(*taken, strict=True))
            print(f"{label:<10}{seconds:>9.2f}{processor:>11.2f}{waits:>14.4f}")


def _measure(call: Callable[[], None]) -> tuple[float, float, float]:
    """Wall and processor seconds of the call, and how long whoever hands it to the background waits."""
    started, worked = time.perf_counter(), time.process_time()
    call()
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    with WorkerThread("benchmark") as background:
        started = time.perf_counter()
        background.call(call)
        waits = time.perf_counter() - started
    return seconds, processor, waits


def _clip(height: int, width: int) -> np.ndarray:
    """Moving gradients with noise of two levels, uint8 [81, H, W, 3]."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = np.empty((_FRAMES, height, width, 3), np.uint8)
    for index in range(_FRAMES):
        for channel in range(3):
            wave = 100 * np.sin((x + 3 * index) / (40 + 9 * channel)) * np.cos((y - index) / 60)
            frames[index, ..., channel] = (128 + wave + noise.normal(0, 2, y.shape)).clip(0, 255)
    return frames


if __name__ == "__main__":
    main()

"""How a clip is divided into chunks that the network makes one after the other. Pure arithmetic, no torch.

See ``denoise`` for making a chunk, and ``long_video`` for joining chunks.

Source: docs/specification.md#long-video, whose plans are reproduced for every clip of at least one chunk. Shorter
clips, on which the reference implementation fails, become a single chunk (``plan_chunks``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from libs.errors import InputError

FRAMES_PER_LATENT = 4
"""Pixel frames per latent frame after the first, which stands for one pixel frame."""

PREVIOUS_FRAMES = 5
"""Finished frames that a chunk continues from: 1 + 4, two latent frames. The network fixes this number."""


@dataclass(frozen=True)
class ChunkLengths:
    """Lengths that a chunk plan is made of, in frames; the defaults are those of the reference scripts.

    Args:
        main: length of every chunk but the last; 4k + 1.
        overlap: frames by which a chunk reaches into its predecessor. Below ``PREVIOUS_FRAMES`` there is nothing to
            continue from, and chunks are made independently of each other.
        final: lengths the last chunk may have, ascending, each 4k + 1 and at most ``main``.

    Raises:
        InputError: lengths that give no valid plan.
    """

    main: int = 81
    overlap: int = 5
    final: Sequence[int] = field(default=(65, 69, 73, 77, 81))

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", tuple(self.final))
        for name, length in (("main", self.main), *(("final", length) for length in self.final)):
            if length < 1 or length % FRAMES_PER_LATENT != 1:
                raise InputError(f"chunk length {name}={length} must be 1 more than a multiple of {FRAMES_PER_LATENT}")
        if not self.final or list(self.final) != sorted(set(self.final)) or self.final[-1] > self.main:
            raise InputError(
                f"final chunk lengths {list(self.final)} must be ascending, and none above the main length {self.main}"
            )
        if not 0 <= self.overlap < self.main:
            raise InputError(f"chunk overlap {self.overlap} must be at least 0 and below the main length {self.main}")

    @property
    def name(self) -> str:
        """Text that names exactly these lengths, for keys and records: ``81-5-65.69.73.77.81``."""
        return f"{self.main}-{self.overlap}-{'.'.join(map(str, self.final))}"


DEFAULT_CHUNK_LENGTHS = ChunkLengths()

SMALLER_CHUNK_LENGTHS = ChunkLengths(main=33, overlap=PREVIOUS_FRAMES, final=(17, 21, 25, 29, 33))
"""For a device whose memory the default chunks exceed: 9 latent frames at a time instead of 21.

The overlap is the smallest with which a chunk continues its predecessor. With 3 frames, every chunk would start without
its predecessor.
"""


@dataclass(frozen=True)
class Chunk:
    """Frames [start, end) of the clip. In a clip shorter than its only chunk ``end`` lies beyond the last frame."""

    index: int
    start: int
    end: int

    @property
    def frame_count(self) -> int:
        """Frames that the network makes; 4k + 1."""
        return self.end - self.start


def plan_chunks(frame_count: int, lengths: ChunkLengths = ChunkLengths()) -> tuple[Chunk, ...]:  # frozen
    """Plan chunks that together cover ``frame_count`` frames, in order; later ones overwrite the frames they share.

    Regular chunks follow each other every ``main - overlap`` frames. When the next one would reach or pass the end, the
    last chunk is laid so that it ends exactly at the last frame; its length is the first of ``final`` that makes it
    start more than ``overlap`` frames before its predecessor's end.

    A clip shorter than ``main`` is one chunk of the smallest 4k + 1 length that holds it: the caller repeats the last
    pose and cuts the surplus off.

    Raises:
        InputError: no frames, or lengths with which this clip's last chunk would not be 4k + 1 long.
    """
    if frame_count < 1:
        raise InputError(f"a clip of {frame_count} frames cannot be made: the driving video has no usable frame")
    if frame_count < lengths.main:
        held = -(-(frame_count - 1) // FRAMES_PER_LATENT) * FRAMES_PER_LATENT + 1
        return (Chunk(0, 0, held),)

    stride = lengths.main - lengths.overlap
    starts = [0]
    while starts[-1] + stride + lengths.main < frame_count:
        starts.append(starts[-1] + stride)
    chunks = [Chunk(index, start, start + lengths.main) for index, start in enumerate(starts)]

    last_start_bound = chunks[-1].end - lengths.overlap
    final_starts = (frame_count - length for length in lengths.final)
    final_start = next((start for start in final_starts if start < last_start_bound), starts[-1] + stride)
    final = Chunk(len(chunks), final_start, frame_count)
    if final.frame_count % FRAMES_PER_LATENT != 1:
        raise InputError(
            f"no final chunk length of {list(lengths.final)} fits a clip of {frame_count} frames: add {lengths.main}"
        )
    return (*chunks, final)

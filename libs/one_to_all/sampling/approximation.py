"""What a request's ``quality`` means: which work is left out so that its clip is finished sooner. Light: no torch.

``exact`` computes everything and is the default. The others leave work out; how much that changes a clip can only be
measured with the real weights (``benchmarks/approximation.py``). When a number here changes, raise the code version of
the asset ``animation``: clips made before were made with another one. See ``libs.one_to_all.network.block_cache`` and
``denoise`` for how work is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from libs.errors import InputError

Quality = Literal["exact", "fast", "draft"]


@dataclass(frozen=True)
class Approximation:
    """Which work is left out while a chunk is denoised.

    Args:
        block_cache_threshold: First-Block cache: where the first block's output differs from that of the last computed
            step by at most this share (mean of absolute values), the other blocks are not computed, and what they added
            in that step is added again. Each guidance pass decides for itself. None computes all blocks in every step.
        guided_share: share of the steps, from the first on, that make all passes of the guidance; the rest make the
            conditional one only.

    Raises:
        InputError: names the option and what is expected.
    """

    block_cache_threshold: float | None = None
    guided_share: float = 1.0

    def __post_init__(self) -> None:
        threshold = self.block_cache_threshold
        if threshold is not None and not (math.isfinite(threshold) and threshold >= 0):
            raise InputError(f"block_cache_threshold={threshold} must be a number of at least 0, or None")
        if not 0 <= self.guided_share <= 1:
            raise InputError(f"guided_share={self.guided_share} must be between 0 and 1")

    def guided_steps(self, num_inference_steps: int) -> int:
        """Number of guided steps, rounded up."""
        return math.ceil(self.guided_share * num_inference_steps)


EXACT = Approximation()

QUALITIES: Mapping[Quality, Approximation] = MappingProxyType(
    {
        "exact": EXACT,
        "fast": Approximation(block_cache_threshold=0.08),
        "draft": Approximation(block_cache_threshold=0.15, guided_share=0.5),
    }
)
"""The thresholds lie where the cache is commonly used with video networks; for this network they are starting values
that nobody has looked at yet."""

"""Memory for a network's input, kept from batch to batch: a batch of new memory each time leaves gaps that add up.

See ``detector`` and ``crop`` for what an input is made of.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from libs.pose.networks.prefetch import ordered_map


class InputBuffer:
    """A batch of inputs of one shape; for one thread at a time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._memory = np.empty((0, *shape), dtype=np.float32)

    def filled(self, make: Callable[..., np.ndarray], arguments: Iterable[tuple[Any, ...]]) -> np.ndarray:
        """A batch [B, ...] of which item i was written by ``make(*arguments[i], out)``, by several threads.

        Valid until the next call.
        """
        items = list(arguments)
        if len(items) > len(self._memory):
            self._memory = np.empty((len(items), *self._memory.shape[1:]), dtype=np.float32)
        batch = self._memory[: len(items)]
        for _ in ordered_map(lambda index: make(*items[index], batch[index]), range(len(items))):
            pass
        return batch

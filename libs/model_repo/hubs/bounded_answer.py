"""A bound for answers of a hub that are read as a whole, its listings: one that never ends would fill the memory.

Files are bounded by the size that the listing announces (``hub_huggingface``, ``hub_modelscope``).
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from libs.errors import HubUnavailableError

LARGEST_ANSWER = 32 * 1024 * 1024
"""Bytes; the largest listing that a variant needs has some 20 kB."""

LARGEST_ENCODED_ANSWER = 256 * 1024
"""Bytes of a compressed answer, which may grow a thousandfold; no client asks for one."""

LONGEST_ANSWER_SECONDS = 120.0


class EndlessAnswerError(Exception):
    """An answer has more bytes, or takes longer, than any listing."""


class AnswerBound:
    """Counts the bytes of one answer."""

    def __init__(self, limit: int = LARGEST_ANSWER, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = self._left = limit
        self._clock = clock
        self._until = clock() + LONGEST_ANSWER_SECONDS

    def count(self, data: bytes) -> bytes:
        """``data``, if it is not too much.

        Raises:
            EndlessAnswerError: it is.
        """
        self._left -= len(data)
        if self._left < 0:
            raise EndlessAnswerError(f"more than {self._limit // 1024} kB")
        if self._clock() > self._until:
            raise EndlessAnswerError(f"longer than {LONGEST_ANSWER_SECONDS:.0f} s")
        return data

    def pieces(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Each of ``pieces``, counted."""
        for piece in pieces:
            yield self.count(piece)

    def reading(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        """Wrap ``read`` so that the bytes it returns are counted."""

        def counted(*arguments: Any, **options: Any) -> bytes:
            return self.count(read(*arguments, **options))

        return counted


def endless_answer(what: str, error: EndlessAnswerError) -> HubUnavailableError:
    """The error for an answer that is no listing, however it goes on."""
    return HubUnavailableError(
        f"{what}: the hub's listing does not end ({error}), so it is not the hub's answer (a proxy in between?); check "
        "MODEL_HUB_ENDPOINT and the proxy settings, or try the other hub (MODEL_HUB)"
    )

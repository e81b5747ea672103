"""Choose some frames out of a stream without holding the stream in memory: pure functions."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def evenly_spaced_indices(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` different indices of 0..count-1, evenly spaced, the first and the last among them.

    With ``wanted`` 1 it is the middle one.
    """
    if count <= 0 or wanted <= 0:
        return []
    if wanted == 1:
        return [count // 2]
    if wanted >= count:
        return list(range(count))
    return [round(position * (count - 1) / (wanted - 1)) for position in range(wanted)]


def take_indices(items: Iterable[Item], indices: list[int]) -> Iterator[Item]:
    """The items at ``indices`` (ascending); ends early when there are fewer items, and reads no further than needed."""
    wanted = iter(indices)
    target = next(wanted, None)
    for index, item in enumerate(items):
        if target is None:
            return
        if index == target:
            yield item
            target = next(wanted, None)
            if target is None:
                return


def thin_out(items: Iterable[Item], maximum: int) -> tuple[list[Item], int]:
    """Every s-th item of a stream of unknown length, s the smallest power of two that leaves at most ``maximum``.

    Returns the items and s. At no time are more than ``maximum`` + 1 items held.
    """
    kept: list[Item] = []
    stride = 1
    for index, item in enumerate(items):
        if index % stride == 0:
            kept.append(item)
        if len(kept) > maximum:
            kept = kept[::2]
            stride *= 2
    return kept, stride

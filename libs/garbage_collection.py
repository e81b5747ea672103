"""Pausing the search for garbage while text from outside is parsed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """No search for garbage begins inside the block; for parsing what may be nested deeper than Python's stack.

    A search that begins near the limit of the stack runs the finalizers of unrelated objects there, and they fail
    with RecursionError: files and connections stay open, and "Exception ignored" is printed.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

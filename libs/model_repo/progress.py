"""How far a long operation on model files is: the function that callers hand in.

What does not belong here: drawing a bar (``libs.command_line``) or writing a run's log (``orchestration.progress``).
"""

from typing import Protocol


class Progress(Protocol):
    """Called as bytes are done; cheap, may be called from several threads, never concurrently for one operation."""

    def __call__(self, stage: str, done: int, total: int | None, detail: str = "") -> None:
        """``done`` of ``total`` bytes of ``stage`` are finished; ``detail`` is the file at hand."""


def no_progress(stage: str, done: int, total: int | None, detail: str = "") -> None:
    """The progress of a caller who does not want to know."""

"""One run of a stage: where it writes and who is told. What determines the result stands in the stage's job instead."""

from dataclasses import dataclass
from logging import Logger
from pathlib import Path

from libs.progress import Progress
from libs.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class StageRun:
    """The environment of a stage: folder, store, progress, log. No field changes a result.

    Attributes:
        run_id: of the run, for the provenance.
        folder: an empty folder; it holds exactly the files to store afterwards.
        store: artifacts of other stages, and the objects below them, e.g. chunks.
        report: is told how far the stage is.
        log: takes sentences for people.
    """

    run_id: str
    folder: Path
    store: ArtifactStore
    report: Progress
    log: Logger

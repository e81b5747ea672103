"""Puts the record of a finished clip beside it. See ``origin`` for what determines the clip."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from libs.media.video.stream_digest import stream_digest
from libs.provenance.clip_tag import read_origin
from libs.provenance.environment import code_state
from libs.provenance.record import Provenance, RunRecord

PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True)
class ClipRun:
    """What may differ between two runs of the same work; see ``RunRecord`` for the fields."""

    run_id: str
    device: str
    memory_plan: str | None
    start: Literal["cold", "warm"]
    chunks: int
    chunks_resumed: int
    seconds: Mapping[str, float]


def write_provenance(clip: Path, run: ClipRun) -> Provenance:
    """Write ``provenance.json`` beside ``clip``: the origin its tag holds, and this run.

    Raises:
        MediaError, InputError: the clip cannot be read, or carries no origin.
    """
    provenance = Provenance(
        clip=read_origin(clip),
        run=RunRecord(
            run_id=run.run_id,
            finished=datetime.now(UTC),
            code=code_state(),
            device=run.device,
            memory_plan=run.memory_plan,
            start=run.start,
            chunks=run.chunks,
            chunks_resumed=run.chunks_resumed,
            seconds=dict(run.seconds),
            stream_digest=stream_digest(clip),
        ),
    )
    (clip.parent / PROVENANCE_FILE).write_text(provenance.to_json())
    return provenance

"""Puts the record of a finished clip beside it.

What does not belong here: what determines the clip (``origin``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from libs.media.video.stream_digest import stream_digest
from libs.provenance.clip_tag import read_origin
from libs.provenance.environment import code_state
from libs.provenance.record import Provenance, RunRecord

PROVENANCE_FILE = "provenance.json"


def write_provenance(
    clip: Path,
    *,
    run_id: str,
    device: str,
    memory_plan: str | None,
    cold: bool,
    chunks: int,
    chunks_resumed: int,
    seconds: Mapping[str, float],
) -> Provenance:
    """Write ``provenance.json`` beside ``clip``: the origin its tag holds, and this run.

    Raises:
        MediaError, InputError: the clip cannot be read, or carries no origin.
    """
    provenance = Provenance(
        clip=read_origin(clip),
        run=RunRecord(
            run_id=run_id,
            finished=datetime.now(UTC),
            code=code_state(),
            device=device,
            memory_plan=memory_plan,
            start="cold" if cold else "warm",
            chunks=chunks,
            chunks_resumed=chunks_resumed,
            seconds=dict(seconds),
            stream_digest=stream_digest(clip),
        ),
    )
    (clip.parent / PROVENANCE_FILE).write_text(provenance.to_json())
    return provenance

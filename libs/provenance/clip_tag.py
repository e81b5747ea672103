"""The origin inside an mp4: one standard tag that every player ignores and every tool shows.

See ``record`` for what it says.
"""

from pathlib import Path

from libs.errors import InputError
from libs.media.video.probe import read_tags
from libs.provenance.record import ClipOrigin, parse_origin

TAG = "comment"
"""A tag that mp4 has a place for, so programs that copy a clip keep it."""


def clip_tags(origin: ClipOrigin) -> dict[str, str]:
    """The tags for ``VideoWriter(metadata=...)``."""
    return {TAG: origin.to_json()}


def read_origin(clip: Path) -> ClipOrigin:
    """What determined the clip, from the mp4 alone.

    Raises:
        MediaError: the file cannot be read.
        InputError: it carries no origin.
    """
    text = read_tags(clip).get(TAG)
    if text is None:
        raise InputError(f"{clip}: carries no record of what made it; only clips of this pipeline do")
    return parse_origin(text, str(clip))

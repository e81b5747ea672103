"""Small pictures inside Dagster's metadata, as Markdown with ``data:`` addresses: shown inline, valid for ever.

What does not belong here: making the pictures (``libs.media``).
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

EVENT_LIMIT = 36_000
"""Characters of all pictures of one event together; the whole event stays below 50 KB."""


def pictures_metadata(still: Mapping[str, Path], moving: Mapping[str, Path]) -> dict[str, dg.MetadataValue]:
    """One Markdown entry per picture (still) and per video (moving, as animated WebP), sharing ``EVENT_LIMIT``."""
    from libs.media.data_uri import animation_data_uri, thumbnail_data_uri  # noqa: PLC0415 - loads the media libraries
    from libs.media.image import read_image  # noqa: PLC0415
    from libs.media.probe import probe_video  # noqa: PLC0415
    from libs.media.reader import read_frames  # noqa: PLC0415

    share = EVENT_LIMIT // max(1, len(still) + len(moving))
    shown = {name: thumbnail_data_uri(read_image(path), share) for name, path in still.items()}
    for name, path in moving.items():
        shown[name] = animation_data_uri(read_frames(path), probe_video(path).frame_rate, share)
    return {name: dg.MetadataValue.md(f"![{name}]({uri})") for name, uri in shown.items()}

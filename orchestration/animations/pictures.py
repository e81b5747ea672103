"""Small pictures inside Dagster's metadata, as Markdown: by their address, or as ``data:`` where there is none.

Either way they are shown inline and valid for ever. See ``libs.stages.pictures`` for making the pictures,
``libs.storage.previews`` for publishing them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import dagster as dg

EVENT_LIMIT = 36_000
"""Characters of all pictures of one event together; the whole event stays below 50 KB."""


def linked_pictures(addresses: Mapping[str, str]) -> dict[str, dg.MetadataValue]:
    """File name -> address as one Markdown entry each."""
    return {caption(name): _markdown(name, address) for name, address in addresses.items()}


def embedded_pictures(folder: Path, names: Iterable[str]) -> dict[str, dg.MetadataValue]:
    """The picture files ``names`` in ``folder``, made small enough to share ``EVENT_LIMIT``.

    Raises:
        MediaError: one of them is no picture.
    """
    from libs.media.previews.data_uri import picture_data_uri  # noqa: PLC0415 - loads the media libraries

    wanted = list(names)
    limit = EVENT_LIMIT // max(1, len(wanted))
    return {caption(name): _markdown(name, picture_data_uri(folder / name, limit)) for name in wanted}


def caption(name: str) -> str:
    """``contact_sheet.png`` -> ``contact sheet``."""
    return PurePosixPath(name).stem.replace("_", " ")


def _markdown(name: str, address: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![{name}]({address})")

"""The tags of a video file: what ``VideoWriter(metadata=...)`` wrote.

What does not belong here: what they mean (``libs.provenance``).
"""

from pathlib import Path

from libs.media.video_file import open_container


def read_tags(path: Path | str) -> dict[str, str]:
    """Name -> text of the container's tags, without decoding anything.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_container(Path(path)) as container:
        return dict(container.metadata)

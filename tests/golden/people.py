"""Where the media of real people and MediaPipe's networks are, if they are here.

Neither is committed. The networks are those in ``MODELS_DIR``, or come from the wheel that ``MEDIAPIPE_WHEEL`` names.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from libs.media.pictures.image import read_image
from libs.model_repo.hubs.wheel import MEDIAPIPE, check_wheel_files, download_wheel

_REPOSITORY = Path(__file__).resolve().parents[2]
MEDIA_FOLDER = _REPOSITORY.parent / "shared" / "media"


def network_folder(scratch: Path) -> Path:
    """The folder of the networks; skips the test where there is none."""
    for models in (Path(os.environ.get("MODELS_DIR", "models")), _REPOSITORY / "models"):
        found = check_wheel_files(MEDIAPIPE, models)
        if found.complete:
            return found.folder
    wheel = os.environ.get("MEDIAPIPE_WHEEL")
    if not wheel:
        pytest.skip(
            "MediaPipe's networks are not here: `one-to-all models download mediapipe`, or MEDIAPIPE_WHEEL=FILE"
        )
    download_wheel(MEDIAPIPE, scratch, Path(wheel))
    return MEDIAPIPE.folder(scratch)


def medium(stem: str) -> Path:
    """The picture or video called ``stem``; skips the test where there is none."""
    for path in sorted(MEDIA_FOLDER.glob(f"{stem}.*")):
        return path
    pytest.skip(f"{MEDIA_FOLDER}/{stem}.* is not here")


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """Its frames as the reference values were made of them, uint8 RGB [H, W, 3]; one for a picture.

    ``libs.media`` converts colours more exactly, which alone moves the landmarks of a dance by a pixel.
    """
    if path.suffix.lower() not in {".mp4", ".mov", ".webm", ".mkv", ".avi"}:
        yield read_image(path)
        return
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")

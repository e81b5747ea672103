"""Where the media of real people and MediaPipe's networks are, if they are here.

Neither is committed. The networks are those in ``MODELS_DIR``, or come from the wheel that ``MEDIAPIPE_WHEEL`` names.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from libs.media.pictures.image import read_image
from libs.media.video.reader import read_frames
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
    """Its frames, uint8 RGB [H, W, 3]; one for a picture."""
    if path.suffix.lower() in {".mp4", ".mov", ".webm", ".mkv", ".avi"}:
        yield from read_frames(path)
    else:
        yield read_image(path)

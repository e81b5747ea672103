"""A picture and a video of a few hundred bytes, for tests that hand requests in: `submit` looks into them."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

_SIDE = 32


def write_small_picture(path: Path, shade: int = 120) -> Path:
    """A grey picture; another ``shade`` gives other bytes."""
    Image.new("RGB", (_SIDE, _SIDE), (shade, shade, shade)).save(path, format="PNG")
    return path


def write_small_video(path: Path, shade: int = 120) -> Path:
    """Two grey frames; another ``shade`` gives other bytes."""
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((_SIDE, _SIDE, 3), shade, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path

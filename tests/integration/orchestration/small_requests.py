"""Small requests on the puppet's media, for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from libs.media.video.reader import read_frames
from libs.sandbox.media import write_puppet_clip, write_puppet_picture

WIDTH, HEIGHT = 48, 64

LARGER_WITH_SOUND = {"size": {"height": 96, "width": 64}, "keep_audio": True}
"""Fields of a request that is a little larger, and keeps its sound."""


def write_small_media(folder: Path, frame_count: int, **options: Any) -> Path:
    """A picture and a clip of that many frames, small enough for the sandbox to animate in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_puppet_picture(folder / "puppet.png")
    write_puppet_clip(folder / "dance.mp4", frame_count=frame_count, **options)
    return folder


def submit_small(world: Any, media: Path, request_id: str, *more: Path, **fields: Any) -> str:
    """Put a request for a clip of 48 x 64 pixels, its media and ``more`` files into the inbox of ``world``."""
    for path in (*media.iterdir(), *more):
        world.put(path.name, path)
    content = {
        "id": request_id,
        "reference": "puppet.png",
        "driver": "dance.mp4",
        "model": "sandbox",
        "steps": 1,
        "size": {"height": HEIGHT, "width": WIDTH},
        "keep_audio": False,
        **fields,
    }
    world.put(f"{request_id}.json", json.dumps(content).encode())
    return request_id


def clip_of(world: Any, request_id: str) -> np.ndarray:
    """The decoded frames of the stored clip, uint8 [n, H, W, 3]."""
    return np.stack(list(read_frames(world.artifact("animation", request_id).path("clip.mp4"))))


def summary_of(world: Any, request_id: str) -> dict[str, Any]:
    """The stored ``summary.json``."""
    return dict(json.loads(world.artifact("animation", request_id).path("summary.json").read_text()))


def metadata_of(world: Any, asset: str, request_id: str) -> dict[str, Any]:
    """Metadata of the newest materialization, as plain values."""
    import dagster as dg

    records = world.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[request_id]), limit=1
    ).records
    materialization = records[0].asset_materialization
    return {name: value.value for name, value in materialization.metadata.items()}

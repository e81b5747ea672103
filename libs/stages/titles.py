"""What the numbers of a clip are called where people see them: in the UI's metadata, its charts and its checks.

Left the key under which a number is stored (``summary.json``, ``quality.json``, ``measurements.json``), which never
changes; right its title, which may. A title that changes begins a new chart.
"""

from collections.abc import Mapping
from typing import Any

TITLES: Mapping[str, str] = {
    # summary.json
    "width": "width",
    "height": "height",
    "frame_count": "frame_count",
    "frame_rate": "frame_rate",
    "chunks": "chunks",
    "chunks_resumed": "chunks_resumed",
    "chunk_length": "chunk_length",
    "chunk_overlap": "chunk_overlap",
    "chunk_starts": "chunk_starts",
    "sampling_seconds": "sampling_seconds",
    "out_of_memory": "out_of_memory",
    # measurements.json
    "blank_frames": "blank_frames",
    "mean_contrast": "mean_contrast",
    "mean_brightness": "mean_brightness",
    "mean_motion": "mean_motion",
    # quality.json
    "pose_correct_share": "pose_correct_share",
    "pose_mean_distance": "pose_mean_distance",
    "pose_found_share": "pose_found_share",
    "flicker": "flicker",
    "flicker_maximum": "flicker_maximum",
    "colour_drift": "colour_drift",
    "seam": "seam",
    "sharpness": "sharpness",
    "sharpness_minimum": "sharpness_minimum",
    "face_share": "face_share",
}


def titled(stored: Mapping[str, Any]) -> dict[str, Any]:
    """``stored`` by key, as they are shown by title."""
    return {TITLES[key]: value for key, value in stored.items()}

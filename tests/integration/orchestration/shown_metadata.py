"""What the metadata of a run gives the UI to show, for the tests of this folder."""

import io
import re

import dagster as dg
from PIL import Image

STILL, ANIMATED = False, True
PICTURES = {
    "request_media": {"reference picture": STILL, "driving video": ANIMATED},
    "pose_conditioning": {"pose preview": ANIMATED},
    "animation": {"clip beside driver": ANIMATED},
    "animation_review": {"contact sheet": STILL, "comparison preview": ANIMATED},
}
PLOTTED = {
    "request_media": {"seconds"},
    "pose_tracks": {"seconds", "frames per second of the networks"},
    "pose_conditioning": {"seconds"},
    "animation": {"seconds", "load seconds", "sampling_seconds", "seconds per frame"},
    "animation_review": {"seconds", "seconds of measuring", "flicker", "colour_drift", "seam", "sharpness"},
}
"""Numbers with these names are plotted over time: a name that changes begins another chart."""


def shown_by(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, dg.MetadataValue]]:
    """Asset -> metadata of what was materialized."""
    events = result.get_asset_materialization_events()
    return {event.materialization.asset_key.to_user_string(): dict(event.materialization.metadata) for event in events}


def picture_address(value: dg.MetadataValue) -> str:
    assert isinstance(value, dg.MarkdownMetadataValue)
    found = re.fullmatch(r"!\[[^\]]*\]\((\S+)\)", value.value)
    assert found, value.value[:100]
    return found[1]


def is_animated(picture: bytes) -> bool:
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        return bool(getattr(image, "is_animated", False))

"""The sample request: a puppet's picture, another puppet's dance, and the document that asks for the clip.

What does not belong here: what a request may say (``libs.requests``), drawing and encoding (``media``).
"""

from pathlib import Path

import yaml

from libs.requests.documents.animation_request import AnimationRequest
from libs.sandbox.media import write_puppet_clip, write_puppet_picture

SAMPLE_REQUEST_ID = "puppet-dance"

_FRAMES = 97  # two chunks of a long video


def sample_request() -> AnimationRequest:
    """The sample request; its media are written by :func:`write_sample_request`."""
    return AnimationRequest(
        id=SAMPLE_REQUEST_ID,
        reference="puppet.png",
        driver="puppet-dance.mp4",
        model="sandbox",
        prompt="a person with headphones and a cream pullover dances in a dark room",
    )


def write_sample_request(folder: Path) -> Path:
    """Write the sample request into ``folder``: a PNG, an MP4 with sound, and the YAML document.

    Returns:
        The document.
    """
    request = sample_request()
    write_puppet_picture(folder / request.reference)
    write_puppet_clip(folder / request.driver, frame_count=_FRAMES)
    document = folder / f"{SAMPLE_REQUEST_ID}.yaml"
    fields = request.model_dump(exclude_none=True)
    document.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")
    return document

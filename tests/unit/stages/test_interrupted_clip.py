"""A clip that is left before its end: the engine is told at once, and no file stays."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np

from libs.one_to_all.events import ChunkStarted, StepFinished
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.clip.sampling import ClipInputs, animate_request


class _RecordedEngine:
    """Gives events for ever, and notes when whoever asked for them has left."""

    def __init__(self) -> None:
        self.left = False

    def animate(self, *_: object) -> Any:
        try:
            yield ChunkStarted(index=0, count=1, start=0, end=5, resumed=False)
            while True:
                yield StepFinished(chunk_index=0, step=1, step_count=4)
        finally:
            self.left = True


def test_the_engine_is_told_when_its_clip_is_interrupted(tmp_path):
    engine = _RecordedEngine()
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    conditioning = SimpleNamespace(image=picture, mask=picture[..., 0], reference_pose=picture, draw=None)
    media = SimpleNamespace(
        output_frame_rate=Fraction(30), used_frame_count=5, has_audio=False, driver=None, start_seconds=0
    )
    request = ResolvedRequest.model_construct(
        id="interrupted", steps=4, image_guidance=1.0, pose_guidance=1.0, keep_audio=False
    )

    def interrupt(steps: int, _total: int, _phrase: str) -> None:
        if steps == 2:
            raise KeyboardInterrupt

    interruption: KeyboardInterrupt | None = None
    try:
        animate_request(ClipInputs(request, media, conditioning), engine, tmp_path, None, interrupt)
    except KeyboardInterrupt as raised:
        interruption = raised  # kept, and with it all frames of the call: nothing may wait for them to be collected
    assert interruption is not None
    assert engine.left
    assert not list(tmp_path.iterdir())

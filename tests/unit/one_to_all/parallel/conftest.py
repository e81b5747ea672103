"""What the tests of parallel engines share: options of a short clip."""

from collections.abc import Callable

import pytest

from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.chunk_plan import ChunkLengths


@pytest.fixture(scope="session")
def make_options() -> Callable[..., SamplingOptions]:
    def make(**changes: object) -> SamplingOptions:
        fields: dict[str, object] = {
            "prompt": "a dancer",
            "negative_prompt": "blurred",
            "num_inference_steps": 2,
            "image_guidance_scale": 2.0,
            "pose_guidance_scale": 1.5,
            "chunk_lengths": ChunkLengths(main=13, overlap=5, final=(9, 13)),
        }
        return SamplingOptions(**{**fields, **changes})  # type: ignore[arg-type]

    return make

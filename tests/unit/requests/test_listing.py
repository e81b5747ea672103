"""How ``one-to-all list`` words a state."""

import pytest

from libs.requests.lifecycle.listing import reason_before_path


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("/models/loras/look.safetensors: is missing", "is missing (/models/loras/look.safetensors)"),
        ("/data/my models/a b.bin: ends: too early", "ends: too early (/data/my models/a b.bin)"),
        ("lora: /m/look.safetensors: is missing; put it there", "lora: is missing; put it there (/m/look.safetensors)"),
        ("/m/x: lines\nof text", "lines\nof text (/m/x)"),
        ("driver: 'dance.mp4': not a video", "driver: 'dance.mp4': not a video"),
        ("sandbox was never verified", "sandbox was never verified"),
        ("/m/x", "/m/x"),
        ("", ""),
    ],
)
def test_a_path_stands_behind_the_reason(reason: str, shown: str) -> None:
    assert reason_before_path(reason) == shown

"""What a run's events give the UI to show: pictures, plotted numbers, a way to the clip; and that they are small."""

import base64
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.integration.orchestration.shown_metadata import (
    PICTURES,
    PLOTTED,
    is_animated,
    picture_address,
    shown_by,
)
from tests.integration.orchestration.small_requests import submit_small, write_small_media


@pytest.mark.slow
def test_pictures_and_numbers_of_a_run_in_small_events(world: Any, tmp_path: Path) -> None:
    submit_small(world, write_small_media(tmp_path / "media", 9), "puppet")
    prepared = world.prepare_models()
    animated = world.animate("puppet")

    for result in (prepared, animated):
        sizes = {len(dg.serialize_value(record)): record for record in world.instance.all_logs(result.run_id)}
        assert max(sizes) < 50_000, sizes[max(sizes)].user_message
    shown = shown_by(animated)
    for asset, pictures in PICTURES.items():
        found = {name for name, value in shown[asset].items() if isinstance(value, dg.MarkdownMetadataValue)}
        assert found == set(pictures), asset
        for name, moves in pictures.items():
            kind, _, data = picture_address(shown[asset][name]).partition(";base64,")
            assert kind in ({"data:image/webp"} if moves else {"data:image/jpeg", "data:image/png"})
            assert is_animated(base64.b64decode(data)) == moves, name
    for asset, names in PLOTTED.items():
        for name in names:
            assert isinstance(shown[asset][name], dg.FloatMetadataValue), (asset, name)
    clip = shown["animation"]["clip"]
    assert isinstance(clip, dg.PathMetadataValue)
    assert Path(str(clip.value)).read_bytes() == world.artifact("animation", "puppet").path("clip.mp4").read_bytes()
    assert shown["animation"]["share"].value == "one-to-all share puppet --asset animation --file clip.mp4"

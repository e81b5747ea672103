"""Poses in which nothing was found, through Dagster: no clip is sampled, and the run says why."""

from pathlib import Path
from typing import Any

import av
import dagster as dg
import numpy as np
import pytest
from PIL import Image

from orchestration.animations.pose_checks import FOUND_POSES_CHECK
from orchestration.animations.quality_checks import THRESHOLDS
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from tests.integration.orchestration.small_requests import metadata_of, submit_small, write_small_media

SCENE = np.full((96, 64, 3), 150, np.uint8)
SCENE[30:60, 20:44] = (230, 30, 30)
"""To the sandbox's networks what a photograph is: the detector takes the colour for somebody, there are no joints."""


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_media(tmp_path_factory.mktemp("puppets"), 5, audio=False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``scene.png`` and ``scene.mp4``: nobody in them, whatever the detector says."""
    folder = tmp_path_factory.mktemp("scenes")
    Image.fromarray(SCENE).save(folder / "scene.png")
    with av.open(str(folder / "scene.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, width=64, height=96, pix_fmt="yuv420p")
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(SCENE, format="rgb24")))
        container.mux(stream.encode(None))
    return folder


def steps_that_began(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.step_key or "" for event in result.all_events if event.event_type_value == "STEP_START"}


def evaluation(result: dg.ExecuteInProcessResult, name: str) -> Any:
    (found,) = [check for check in result.get_asset_check_evaluations() if check.check_name == name]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("field", "file"), [("reference", "scene.png"), ("driver", "scene.mp4")])
def test_no_clip_is_sampled_without_a_person(world: Any, puppets: Path, scenes: Path, field: str, file: str) -> None:
    submit_small(world, puppets, "poor", scenes / file, **{field: file})

    result = world.animate("poor", raise_on_error=False)

    assert not result.success
    assert not {"animation", "animation_review"} & steps_that_began(result)
    check = evaluation(result, FOUND_POSES_CHECK)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert world.store.manifest("animation", "poor") is None
    assert world.store.manifest("pose_conditioning", "poor") is not None, "a person looks at the preview"
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    message = str(failure.step_failure_data.user_failure_data.description)
    assert message == check.description, "the run ends with the check's name alone"
    assert f"in the {field} " in message
    assert "accept_poor_poses: true" in message
    assert "only its own figures" in message
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


@pytest.mark.slow
def test_the_clip_alone_is_not_made_by_hand_either(world: Any, puppets: Path, scenes: Path) -> None:
    submit_small(world, puppets, "poor", scenes / "scene.mp4", driver="scene.mp4")
    world.animate("poor", raise_on_error=False)
    alone = build_defs().resolve_job_def(ANIMATE.name).execute_in_process(
        partition_key="poor",
        instance=world.instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey("animation")],
    )  # fmt: skip
    assert not alone.success
    assert world.store.manifest("animation", "poor") is None
    (failure,) = [event for event in alone.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "in the driver 0 of 5 frames show a figure" in failure.step_failure_data.user_failure_data.description


@pytest.mark.slow
def test_who_accepts_poor_poses_gets_the_clip_and_warnings(world: Any, puppets: Path, scenes: Path) -> None:
    submit_small(world, puppets, "poor", scenes / "scene.mp4", driver="scene.mp4", accept_poor_poses=True)

    result = world.animate("poor")

    assert result.success
    check = evaluation(result, FOUND_POSES_CHECK)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert metadata_of(world, "pose_tracks", "poor")["driver frames with enough joints"] == 0
    for name in ("poses_are_those_asked_for", "faces_are_where_the_driver_has_one"):
        judged = evaluation(result, name)
        assert not judged.passed, "nothing to measure is no pass"
        assert THRESHOLDS[name].unmeasured in str(judged.description)


@pytest.mark.slow
def test_puppets_pass_as_an_error_check_that_passed(world: Any, puppets: Path) -> None:
    submit_small(world, puppets, "good")
    result = world.animate("good", review=False)
    assert result.success
    check = evaluation(result, FOUND_POSES_CHECK)
    assert check.passed
    assert check.metadata["joints found in the reference"].value == 18

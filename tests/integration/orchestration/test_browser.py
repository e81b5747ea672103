"""A person's way through the Dagster UI, in a real browser: from the graph to the clip, its pictures and its lineage.

``make screenshots`` goes the same way with a larger request and keeps a picture of every step.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.requests.lifecycle.archive import REQUEST_ASSETS
from libs.settings import REPOSITORY_ROOT
from orchestration.partitions import ANIMATION_REQUESTS
from tests.integration.orchestration.conftest import world_in
from tests.integration.orchestration.running_ui import running_ui
from tests.integration.orchestration.shown_metadata import PICTURES
from tests.integration.orchestration.small_requests import submit_small, write_small_media
from tests.integration.orchestration.ui_tour import UiTour, browser_page, find_chromium

SCREENSHOTS = os.environ.get("SCREENSHOTS_DIR")
SHOWN_FOLDER = os.environ.get("SCREENSHOTS_WORLD")
"""Where models and data lie for the pictures, since some of them show paths; a folder that is not there yet."""
FINISHED_WITHIN = 900
MADE = set(REQUEST_ASSETS)
OBSERVED = {"request_document", "requested_poses", "reference_picture", "driving_video"}


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The world of a test, or one whose paths may be shown to everybody."""
    if not SHOWN_FOLDER:
        yield request.getfixturevalue("world")
        return
    folder = Path(SHOWN_FOLDER)
    folder.mkdir(parents=True)
    try:
        with world_in(folder) as world:
            world.prepare_models()
            yield world
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def request_id(world: Any, tmp_path: Path) -> str:
    """A request that waits to be started by hand: the sensor registers what is for the night, and does not run it."""
    if SCREENSHOTS:
        make_earlier_clips(world, tmp_path / "earlier")
        looks = {
            "size": None,
            "steps": 4,
            "keep_audio": True,
            "prompt": "a person with headphones dances in a dark room",
        }
        name = submit_small(world, write_small_media(tmp_path / "media", 49), "puppet-dance", when="nightly", **looks)
    else:
        name = submit_small(world, write_small_media(tmp_path / "media", 5), "by-hand", when="nightly")
    world.instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), [name])
    return name


@pytest.fixture
def tour(world: Any, request_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UiTour]:
    """A browser at the UI, which runs on the world's own instance."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("Chromium is not installed")
    home = Path(world.instance.root_directory)
    shutil.copy(REPOSITORY_ROOT / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    pictures = REPOSITORY_ROOT / SCREENSHOTS if SCREENSHOTS else None
    with running_ui(tmp_path / "ui.log") as address, browser_page(executable) as page:
        yield UiTour(page, address, pictures)


@pytest.mark.browser
@pytest.mark.slow
def test_a_request_is_made_judged_and_traced_in_the_browser(world: Any, tour: UiTour, request_id: str) -> None:
    assets = MADE | OBSERVED
    assert tour.open_graph(len(assets)) == assets
    tour.materialize(request_id)
    assert tour.wait_for_run(FINISHED_WITHIN) == "Success"
    tour.open_graph(len(assets))
    assert tour.green_assets(len(MADE)) == MADE

    for asset, pictures in PICTURES.items():
        widths = tour.pictures_of(asset, request_id, set(pictures))
        assert widths.keys() == pictures.keys()
        assert all(width >= 48 for width in widths.values()), (asset, widths)
    assert "seconds per frame" in tour.plots_of("animation")

    page = tour.message_of_check("animation_review", "poses_are_those_asked_for")
    assert "of the joints, expected at least 0.8" in page
    assert "Failed" in page  # the sandbox's networks are random numbers

    upstream = ["animation_model", "model_verification", "one_to_all_checkpoint", "checkpoint_repository"]
    assert tour.follow_lineage("animation", *upstream) == upstream
    tour.show_lineage("animation")
    tour.show_partition("model_verification", "sandbox")
    if SCREENSHOTS:
        keep_pictures_of_the_clip(world, request_id, REPOSITORY_ROOT / SCREENSHOTS)


def make_earlier_clips(world: Any, folder: Path) -> None:
    """Some clips of other sizes and lengths, so that charts have something to show."""
    for number, (frames, height) in enumerate([(9, 64), (17, 96), (25, 96), (33, 128), (41, 128)], start=1):
        media = write_small_media(folder / str(number), frames, audio=False)
        name = submit_small(world, media, f"dance-{number}", size={"height": height, "width": height * 3 // 4}, steps=4)
        world.animate(name)


def keep_pictures_of_the_clip(world: Any, request_id: str, folder: Path) -> None:
    """The contact sheet and the moving picture of clip and driver, as the run stored them."""
    for asset, name in (("animation_review", "contact_sheet.png"), ("animation", "clip_beside_driver.webp")):
        shutil.copyfile(world.artifact(asset, request_id).path(name), folder / name)

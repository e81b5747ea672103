"""A person's way through the studio, in a real browser: from two files to a request, canceled and tried again.

The studio runs in this process, on the world's store and Dagster instance; nothing is made.
``SCREENSHOTS_DIR`` keeps a picture of every page, for the docs.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from libs.command_line.requests.runs import RunsOrReason
from libs.requests.inbox.intake import InboxScanner, ScanState
from libs.settings import REPOSITORY_ROOT, load_settings
from libs.settings.studio import load_studio_settings
from orchestration.requests.control import InstanceRuns
from orchestration.studio.app import create_app
from orchestration.studio.clips import Clips
from tests.integration.orchestration.small_requests import write_small_media
from tests.integration.orchestration.ui_tour import browser_page, find_chromium

SCREENSHOTS = os.environ.get("SCREENSHOTS_DIR")
_LONGEST_WAIT = 240_000  # milliseconds; it only bounds a hang


@contextmanager
def running_studio(world: Any) -> Iterator[str]:
    """The address of a studio on ``world``."""
    runs = InstanceRuns(world.instance)
    app = create_app(Clips(load_settings(), world.store, lambda: RunsOrReason(runs)), load_studio_settings())
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.join(60)
        listener.close()


def take(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.wait_for_timeout(1000)
        page.screenshot(path=REPOSITORY_ROOT / SCREENSHOTS / f"studio_{name}.png")


def unlabelled(page: Any) -> list[str]:
    """What a screen reader could not name."""
    return list(
        page.evaluate(
            """() => [...document.querySelectorAll("button, a[href], input:not([type=hidden]), select, textarea, img")]
            .filter((each) => each.checkVisibility())
            .filter((each) => each.tagName === "IMG" ? !each.hasAttribute("alt")
                : !(each.labels?.length || each.getAttribute("aria-label") || each.textContent.trim()))
            .map((each) => each.outerHTML)"""
        )
    )


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_from_two_files_to_a_request_that_is_canceled_and_tried_again(empty_world: Any, tmp_path: Path) -> None:
    executable = find_chromium()
    if executable is None:
        pytest.skip("Chromium is not installed")
    media = write_small_media(tmp_path / "media", 5)
    with running_studio(empty_world) as address, browser_page(executable) as page:
        page.set_default_timeout(_LONGEST_WAIT)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
        page.on("dialog", lambda dialog: dialog.accept())

        page.goto(f"{address}/clips")
        page.get_by_role("link", name="New clip").first.click()
        page.locator("[data-slot=reference] [data-file]").set_input_files(media / "puppet.png")
        page.locator("[data-slot=driver] [data-file]").set_input_files(media / "dance.mp4")
        page.locator("#make:enabled").wait_for()
        assert "5 frames" in page.locator("[data-slot=driver] [data-found]").inner_text()
        page.locator("#field-model").select_option("sandbox")
        page.get_by_label("Width").fill("48")
        page.get_by_label("Height").fill("64")
        page.get_by_text("More settings").click()
        page.locator("#field-steps").fill("999")
        page.locator("#error-steps:not(:empty)").wait_for()
        page.locator("#field-steps").fill("1")
        page.locator("#error-steps:empty").wait_for(state="attached")
        assert unlabelled(page) == []
        take(page, "new")
        page.get_by_role("button", name="Make clip").click()
        page.wait_for_url("**/clips/*")

        # Canceled and tried again, before anything was made of it.
        InboxScanner(empty_world.inbox, empty_world.requests, "sandbox").scan(ScanState(), datetime.now(UTC))
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Try again").wait_for()
        assert "canceled" in page.locator("[data-state]").inner_text()
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("button", name="Cancel").wait_for()

        assert wrong == []

"""The pictures of README and docs, taken from the running product: ``make screenshots``, after ``make demo``.

Starts the UI on a free port, visits it with the system's Chromium, and writes PNGs beside this file; the contact sheet
is the demo's own. What does not belong here: pictures drawn by hand.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from libs.sandbox.request import SAMPLE_REQUEST_ID
from libs.settings import REPOSITORY_ROOT, load_settings
from libs.stages.review import CONTACT_SHEET_FILE
from libs.storage.factory import store_from_settings

HERE = Path(__file__).resolve().parent
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
WIDTH, HEIGHT = 1400, 800
SETTLING_MILLISECONDS = 4000  # the graph is laid out and statuses are fetched after the text shows


@contextmanager
def running_ui() -> Iterator[str]:
    """The address of a UI on the local state, stopped when the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.local_ui"],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "DAGSTER_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/server_info", timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def take(page: Page, address: str, name: str, wait_for: str, click: str | None = None) -> None:
    """Open ``address``, wait until the text ``wait_for`` shows, click the text ``click``, write ``name``.png."""
    page.goto(address)
    page.get_by_text(wait_for).first.wait_for(timeout=60_000)
    page.wait_for_timeout(SETTLING_MILLISECONDS)
    if click is not None:
        page.get_by_text(click).first.click()
        page.wait_for_timeout(SETTLING_MILLISECONDS)
    path = HERE / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=200).save(path, optimize=True)


def main() -> None:
    """Take them all."""
    store = store_from_settings(load_settings())
    review = store.fetch("animation_review", SAMPLE_REQUEST_ID)
    shutil.copy(review.path(CONTACT_SHEET_FILE), HERE / "contact_sheet.png")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed: apt-get install chromium")
    with running_ui() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        group = f"{address}/locations/one_to_all/asset-groups/animations/lineage"
        take(page, group, "asset_graph", "animation_review")
        verification = f"{address}/assets/model_verification?view=partitions&partition=sandbox"
        take(page, verification, "model_verification", "Materialized")
        review = f"{address}/assets/animation_review?view=partitions&partition={SAMPLE_REQUEST_ID}"
        take(page, review, "animation_review", "Materialized", click="[Show Markdown]")
        browser.close()


if __name__ == "__main__":
    main()

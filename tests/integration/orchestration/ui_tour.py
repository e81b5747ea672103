"""What a person does in the Dagster UI, step by step in a real browser; each step tells what was to be seen.

With a folder for pictures, every step leaves a screenshot there: those of README and docs. What does not belong here:
what should be seen (``test_browser``).
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

_CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_WAIT_MILLISECONDS = 300_000
_SETTLING_MILLISECONDS = 2500  # graphs are laid out and pictures begin to move after the text shows
_PAGE = {"width": 1400, "height": 900}
_WIDE_PAGE = {"width": 1900, "height": 1080}  # nodes of the graph show their details
_PICTURE_COLOURS = 200

_KEPT = {"shown_pose_preview", "shown_clip_beside_driver", "animation"}
"""Of the pages with pictures, those that say something new."""


def find_chromium() -> str | None:
    """The system's Chromium or Chrome; None when there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def browser_page(executable: str) -> Iterator[Page]:
    """A page of a headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport=_PAGE)  # type: ignore[arg-type]  # a plain dict will do
        page.set_default_timeout(_WAIT_MILLISECONDS)
        yield page
        browser.close()


class UiTour:
    """A visit to the UI at ``address``."""

    def __init__(self, page: Page, address: str, pictures: Path | None = None) -> None:
        self._page, self._address, self._pictures = page, address, pictures

    def open_graph(self, expected: int, group: str = "animations") -> set[str]:
        """Open the asset graph of a group; returns the assets in it, when there are ``expected`` of them or never."""
        self._page.set_viewport_size(_WIDE_PAGE)  # type: ignore[arg-type]
        self._visit(f"locations/one_to_all/asset-groups/{group}/lineage", "Materialize all")
        hide = self._page.get_by_text("Hide navigation")
        if hide.is_visible():
            hide.click()
        return self._until(expected, lambda: {self._asset_of(link) for link in self._partition_links()})

    def materialize(self, request_id: str) -> None:
        """From the open graph: materialize everything for one partition, and go to the run."""
        page = self._page
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.locator("[role=dialog]").first
        dialog.get_by_text("Select a partition or create one").click()
        page.locator("span").filter(has_text=re.compile(f"^{re.escape(request_id)}$")).last.click()
        self.take("launchpad")
        dialog.get_by_text("Launch runs to materialize").click()  # the list of partitions closes
        page.get_by_role("button", name="Launch 1 run").click()
        page.get_by_text("View", exact=True).last.click()
        page.wait_for_url("**/runs/*")

    def wait_for_run(self, seconds: float) -> str:
        """Watch the run's page; returns the status it ends with, or the page's text when it does not end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for status in ("Success", "Failure", "Canceled"):
                if self._page.get_by_text(status, exact=True).first.is_visible():
                    self.take("run")
                    return status
            self._page.wait_for_timeout(1000)
        return self._page.inner_text("body")[-2000:]

    def green_assets(self, expected: int) -> set[str]:
        """Assets of the open graph that show green; waits until there are ``expected`` of them."""
        green = self._until(
            expected, lambda: {self._asset_of(link) for link in self._partition_links() if _is_green(link)}
        )
        self.take("asset_graph")
        return green

    def pictures_of(self, asset: str, partition: str, captions: set[str]) -> dict[str, int]:
        """Open each picture of a partition's newest materialization; caption -> width in pixels, as rendered."""
        page = self._page
        page.set_viewport_size(_PAGE)  # type: ignore[arg-type]
        self._visit(f"assets/{asset}?view=partitions&partition={partition}", "[Show Markdown]")
        self._take_if_kept(asset)
        widths = {}
        for caption in sorted(captions):
            row = page.locator("tr").filter(has=page.get_by_text(caption, exact=True)).last
            row.get_by_text("[Show Markdown]").click()
            image = page.locator("[role=dialog] img").first
            image.wait_for()
            image.evaluate("image => image.decode()")
            widths[caption] = int(image.evaluate("image => image.naturalWidth"))
            self._take_if_kept(f"shown_{caption.replace(' ', '_')}")
            page.get_by_role("button", name="Close").click()
            image.wait_for(state="hidden")
        return widths

    def message_of_check(self, asset: str, check: str) -> str:
        """Open a check of an asset; returns what its page says."""
        self._visit(f"assets/{asset}?view=checks", check)
        self._page.get_by_text(check, exact=True).first.click()
        self._page.get_by_text("Evaluation result").wait_for()
        self.take("check")
        return self._page.inner_text("body")

    def plots_of(self, asset: str) -> str:
        """Open the plots of an asset's numbers; returns what the page says."""
        self._visit(f"assets/{asset}?view=overview", "Plots")
        self._page.get_by_text("Plots", exact=True).first.click()
        self._page.locator("canvas").first.wait_for()
        self._page.get_by_text("seconds per frame", exact=True).first.scroll_into_view_if_needed()
        self.take("plots")
        return self._page.inner_text("body")

    def follow_lineage(self, start: str, *path: str) -> list[str]:
        """From the lineage of ``start`` click from asset to asset; returns where each click led."""
        visited = []
        self._visit(f"assets/{start}?view=lineage&lineageScope=upstream", start)
        for name in path:
            self._page.get_by_text(name, exact=True).last.click()
            self._page.wait_for_url(re.compile(f"/assets/{name}\\?"))
            visited.append(self._page.url.partition("/assets/")[2].partition("?")[0])
        return visited

    def show_lineage(self, asset: str) -> None:
        """Everything an asset is made from, in one picture."""
        if self._pictures is not None:
            self._page.set_viewport_size({"width": 2600, "height": 1500})
            self._visit(f"assets/{asset}?view=lineage&lineageScope=upstream&lineageDepth=10", "checkpoint_repository")
            self.take("lineage")
            self._page.set_viewport_size(_PAGE)  # type: ignore[arg-type]

    def show_partition(self, asset: str, partition: str) -> None:
        """The newest materialization of a partition, in one picture."""
        if self._pictures is not None:
            self._visit(f"assets/{asset}?view=partitions&partition={partition}", "Materialized")
            self.take(asset)

    def _take_if_kept(self, name: str) -> None:
        if name in _KEPT:
            self.take(name)

    def take(self, name: str) -> None:
        """A screenshot, where pictures are wanted: few colours, so that it is small."""
        if self._pictures is None:
            return
        self._page.wait_for_timeout(_SETTLING_MILLISECONDS)
        for sign in self._page.get_by_text("Loading").all():
            sign.wait_for(state="hidden")
        path = self._pictures / f"{name}.png"
        self._page.screenshot(path=path)
        with Image.open(path) as picture:
            few = picture.convert("RGB").quantize(
                _PICTURE_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
        few.save(path, optimize=True)

    def _visit(self, place: str, wait_for: str) -> None:
        self._page.goto(f"{self._address}/{place}")
        self._page.get_by_text(wait_for).first.wait_for()

    def _until(self, expected: int, look: Callable[[], set[str]]) -> set[str]:
        """What ``look`` sees, when it is ``expected`` things or the time is over."""
        deadline = time.monotonic() + _WAIT_MILLISECONDS / 1000
        found = look()
        while len(found) < expected and time.monotonic() < deadline:
            self._page.wait_for_timeout(500)
            found = look()
        return found

    def _partition_links(self) -> list[Locator]:
        links = self._page.get_by_role("link", name=re.compile(r"^\d+ partitions?$"))
        links.first.wait_for()
        return links.all()

    @staticmethod
    def _asset_of(link: Locator) -> str:
        return str(link.get_attribute("href")).partition("/assets/")[2].partition("?")[0]


def _is_green(element: Locator) -> bool:
    colour = element.evaluate("element => getComputedStyle(element).color")
    red, green, blue = (int(value) for value in re.findall(r"\d+", colour)[:3])
    return green > 1.3 * max(red, blue)

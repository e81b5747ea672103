"""A written clip plays in a real browser, from a server that answers range requests as object stores do."""

import re
import shutil
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from libs.media.video.writer import VideoWriter

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = b"<!doctype html><video id=v muted preload=auto src=clip.mp4></video>"


class ClipServer(BaseHTTPRequestHandler):
    clip = b""
    ranges: ClassVar[list[str]] = []

    def do_GET(self):
        if self.path != "/clip.mp4":
            self._answer(200, "text/html", PAGE)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self._answer(200, "video/mp4", self.clip)
            return
        self.ranges.append(wanted[0])
        first = int(wanted[1])
        last = min(int(wanted[2] or len(self.clip) - 1), len(self.clip) - 1)
        self._answer(206, "video/mp4", self.clip[first : last + 1], f"bytes {first}-{last}/{len(self.clip)}")

    def _answer(self, status, content_type, body, content_range=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


@pytest.mark.parametrize("audio_codec", ["aac", "libmp3lame", "libopus", "flac"])
def test_a_clip_plays_in_chromium(tmp_path: Path, chromium, make_video, tone, numbered_frame, audio_codec):
    container = "mp4" if audio_codec in ("aac", "libmp3lame") else "mkv"
    driver = make_video(f"driver.{container}", 75, audio=tone(3.0, 48000, 1.0), audio_codec=audio_codec)
    with VideoWriter(tmp_path / "clip.mp4", 96, 64, Fraction(30000, 1001), audio_from=driver) as writer:
        for index in range(60):
            writer.write(numbered_frame(index))
    handler = type("Handler", (ClipServer,), {"clip": (tmp_path / "clip.mp4").read_bytes(), "ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("v.readyState >= 3 || v.error", timeout=300_000)
        assert page.evaluate("v.error && v.error.message") is None
        assert page.evaluate("[v.videoWidth, v.videoHeight]") == [96, 64]
        assert page.evaluate("v.duration") == pytest.approx(2.002, abs=0.05)
        page.evaluate("v.play()")
        page.wait_for_function("v.currentTime > 0.4 || v.error", timeout=300_000)
        assert page.evaluate("v.webkitAudioDecodedByteCount") > 0
        # Jump to frame 40 and read back what is drawn there.
        page.evaluate("new Promise(done => { v.pause(); v.onseeked = done; v.currentTime = 40.5 * 1001 / 30000 })")
        levels = page.evaluate(
            """() => { const c = new OffscreenCanvas(96, 64).getContext("2d"); c.drawImage(v, 0, 0);
            return Array.from({length: 8}, (_, bit) => c.getImageData(24, 8 * bit + 4, 1, 1).data[0]); }"""
        )
        assert sum((level > 128) << bit for bit, level in enumerate(levels)) == 40
        red = page.evaluate(
            """() => { const c = new OffscreenCanvas(96, 64).getContext("2d"); c.drawImage(v, 0, 0);
            return Array.from(c.getImageData(72, 32, 1, 1).data.slice(0, 3)); }"""
        )
        assert red == pytest.approx([200, 30, 40], abs=6)  # the browser took it for BT.709
        assert handler.ranges
    finally:
        server.shutdown()

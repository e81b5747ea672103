"""A run killed in a later chunk of a long clip: the next run, in another process, goes on at the next chunk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.media.stream_digest import stream_digest
from libs.provenance.clip_tag import read_origin
from libs.settings import REPOSITORY_ROOT
from libs.stages.quality import ClipQuality
from tests.integration.orchestration.small_requests import (
    clip_of,
    metadata_of,
    submit_small,
    summary_of,
    write_small_media,
)

FRAMES = 170
CHUNKS = 3
RUN_A_REQUEST = """
import sys
from pathlib import Path
from tests.integration.orchestration.conftest import world_in
with world_in(Path(sys.argv[1])) as world:
    assert world.animate(sys.argv[2]).success
"""


def start_run(world: Any, request_id: str) -> subprocess.Popen[bytes]:
    """The whole job for one request, in a process of its own."""
    with run_log(world).open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN_A_REQUEST, str(world.data_dir.parent), request_id],
            cwd=REPOSITORY_ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run_log(world: Any) -> Path:
    """What the runs print."""
    return Path(world.data_dir.parent / "runs.log")


def stored_chunks(world: Any) -> list[int]:
    """The chunks that are whole, by number."""
    keys = [info.key for info in world.objects.list("chunks/")]
    return sorted(int(Path(key).stem) for key in keys if key.endswith(".json"))


def kill_when(process: subprocess.Popen[bytes], world: Any, chunks: int) -> None:
    """SIGKILL the run as soon as it has stored that many chunks."""
    deadline = time.monotonic() + 500
    while len(stored_chunks(world)) < chunks:
        assert process.poll() is None, run_log(world).read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_in_its_third_chunk_resumes_and_equals_an_undisturbed_one(world: Any, tmp_path: Path) -> None:
    media = write_small_media(tmp_path / "media", FRAMES, audio=False)
    submit_small(world, media, "killed")
    submit_small(world, media, "undisturbed")

    kill_when(start_run(world, "killed"), world, chunks=2)

    left = stored_chunks(world)
    assert left[:2] == [0, 1]
    assert world.store.manifest("animation", "killed") is None
    assert start_run(world, "killed").wait(500) == 0, run_log(world).read_text()[-3000:]
    assert world.animate("undisturbed").success

    assert metadata_of(world, "animation", "killed")["chunks_resumed"] == len(left)
    assert summary_of(world, "killed")["chunks_resumed"] == len(left)
    assert summary_of(world, "undisturbed")["chunks_resumed"] == 0
    assert summary_of(world, "undisturbed")["chunks"] == summary_of(world, "killed")["chunks"] == CHUNKS
    starts = summary_of(world, "killed")["chunk_starts"]
    assert starts == summary_of(world, "undisturbed")["chunk_starts"] == sorted(set(starts))
    quality = ClipQuality.load(world.artifact("animation_review", "killed").path("quality.json"))
    assert len(starts) == len(quality.colour_drift_per_chunk) == len(quality.seam_per_border) + 1 == CHUNKS
    resumed, whole = clip_of(world, "killed"), clip_of(world, "undisturbed")
    assert whole.shape == (FRAMES, 64, 48, 3)
    np.testing.assert_array_equal(resumed, whole)
    files = [world.artifact("animation", name).path("clip.mp4") for name in ("killed", "undisturbed")]
    assert stream_digest(files[0]) == stream_digest(files[1]), "even the encoded pictures are equal"
    origins = [read_origin(file) for file in files]
    renamed = {**origins[0].request, "id": "undisturbed"}
    assert origins[0].model_copy(update={"request": renamed}) == origins[1], "the tag differs in the name only"
    assert not list(world.objects.list("chunks/")), "chunks go when the clip is stored"

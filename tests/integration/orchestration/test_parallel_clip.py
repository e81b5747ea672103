"""From the setting to the clip: a request made by two processes gives the clip of one, and says how it was made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from libs.one_to_all.engine_cache import ENGINES
from libs.one_to_all.parallel.engine import ParallelEngine
from tests.integration.orchestration.small_requests import clip_of, metadata_of, submit_small, write_small_media


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """A CPU's sums depend on the number of threads, which the ranks divide."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ENGINES.clear()
    yield
    ENGINES.clear()
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_two_processes_make_the_same_clip_as_one(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = write_small_media(tmp_path / "media", 9)
    for request_id, setting in (("alone", ""), ("together", "guidance:2"), ("again", "guidance:2")):
        monkeypatch.setenv("ONE_TO_ALL_PARALLEL", setting)
        submit_small(world, media, request_id)
        assert world.animate(request_id, review=False).success

    expected = clip_of(world, "alone")
    for request_id, start in (("together", "cold"), ("again", "warm")):
        np.testing.assert_array_equal(clip_of(world, request_id), expected)
        assert metadata_of(world, "animation", request_id)["start"] == start
    provenance = json.loads(world.artifact("animation", "together").path("provenance.json").read_text())
    assert provenance["run"]["device"] == "cpu, guidance:2"

    (engine,) = ENGINES.engines.values()
    assert isinstance(engine, ParallelEngine)
    process_ids = engine.ranks.process_ids
    assert all(psutil.pid_exists(pid) for pid in process_ids)
    del engine
    ENGINES.clear()
    assert not any(psutil.pid_exists(pid) for pid in process_ids)

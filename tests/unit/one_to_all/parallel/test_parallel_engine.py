"""Real ranks, started as a worker starts them: clips equal those of one process, and no process outlives its use."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from libs.errors import RankError
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import EngineSpec
from libs.one_to_all.events import FramesReady, StepFinished
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.parallel.engine import ParallelEngine
from libs.one_to_all.parallel.plan import ParallelPlan
from libs.one_to_all.weights.lora_file import LoraFile
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

REPOSITORY_ROOT = Path(__file__).resolve().parents[4]
TWO = ParallelPlan(guidance=2)

WORKER = """
import sys
import time
from pathlib import Path

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import get_variant
from libs.one_to_all.parallel.messages import JoinChunk, RankSetup
from libs.one_to_all.parallel.plan import ParallelPlan
from libs.one_to_all.parallel.ranks import Ranks, new_folder
from libs.one_to_all.speed_options import DEFAULT_SPEED

layout, folder, plan = RepositoryLayout(get_variant("sandbox"), *map(Path, sys.argv[1:])), new_folder(), ParallelPlan(2)
setups = [
    RankSetup(rank, plan, layout, "cpu", "float32", None, DEFAULT_SPEED, 1, folder / "store") for rank in range(2)
]
ranks = Ranks.start(setups, folder)
ranks._send(1, JoinChunk())  # waits for the leader, inside an exchange
print(folder, *ranks.process_ids, flush=True)
time.sleep(1800)
"""


@pytest.fixture(scope="module")
def one_thread():
    """The ranks compute with as many: a CPU's sums depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parallel(repository, one_thread):
    engine = ParallelEngine(repository, torch.device("cpu"), torch.float32, TWO)
    yield engine
    engine.close()


def _frames(events) -> np.ndarray:
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)])


def _assert_gone(process_ids: list[int]) -> None:
    wait_until("no rank is left running", lambda: not any(psutil.pid_exists(pid) for pid in process_ids))


def test_a_clip_of_two_ranks_equals_that_of_one_process(parallel, engine, make_inputs, make_options):
    inputs, options = make_inputs(14), make_options()
    expected = list(engine.animate(inputs, options))
    made = list(parallel.animate(inputs, options))
    assert [type(event) for event in made] == [type(event) for event in expected]
    np.testing.assert_array_equal(_frames(made), _frames(expected))
    assert parallel.precision == engine.precision
    assert parallel.device == engine.device


def test_a_clip_that_is_left_keeps_the_ranks_warm(parallel, engine, make_inputs, make_options):
    inputs, options = make_inputs(14, 16, 16), make_options(num_inference_steps=3, image_guidance_scale=3.0)
    process_ids = parallel.ranks.process_ids
    events = parallel.animate(inputs, options)
    assert any(isinstance(event, StepFinished) for event in events)  # leaves it at the first step
    events.close()
    parallel.release_memory()
    np.testing.assert_array_equal(_frames(parallel.animate(inputs, options)), _frames(engine.animate(inputs, options)))
    assert parallel.ranks.process_ids == process_ids
    assert parallel.alive


def test_a_killed_rank_ends_all(parallel, make_inputs, make_options):
    process_ids, folder = parallel.ranks.process_ids, parallel.ranks.folder
    events = parallel.animate(make_inputs(5, 16, 16), make_options(num_inference_steps=200))
    assert any(isinstance(event, StepFinished) for event in events)
    os.kill(process_ids[1], signal.SIGKILL)
    with pytest.raises(RankError, match="rank 1 ended with signal 9"):
        list(events)
    _assert_gone(process_ids)
    assert not folder.exists()
    assert not parallel.alive


def test_memory_plans_and_loras_of_warm_ranks(fp8_repository, one_thread, make_inputs, make_options, tmp_path, cache):
    """A LoRA beside FP8 weights, the text encoder dropped, on the host, and resident: one set of ranks."""
    inputs, options = make_inputs(5, 16, 16), make_options()
    alone = AnimationEngine.load(fp8_repository, "cpu")
    layer = alone.networks.transformer.blocks[1].ffn.net[2]
    factors = {"lora_A": torch.ones(2, layer.in_features), "lora_B": torch.full((layer.out_features, 2), 0.05)}
    path = tmp_path / "distilled.safetensors"
    save_file({f"blocks.1.ffn.net.2.{part}.weight": tensor for part, tensor in factors.items()}, path)
    expected = {}
    for lora in (None, LoraFile(path)):
        alone.set_lora(lora)
        expected[lora] = _frames(alone.animate(inputs, options))
    assert not np.array_equal(*expected.values())

    process_ids = set()
    for lora, keyword in (
        (LoraFile(path), "drop-text-encoder"),
        (None, "text-encoder-on-host"),
        (LoraFile(path), "resident"),
    ):
        spec = EngineSpec(fp8_repository, "cpu", lora=lora, parallel=TWO, memory=MemoryOptions(keyword=keyword))
        engine, load = cache.get_or_load(spec, ClipSize(16, 16, 5))
        assert load.cold == (not process_ids)
        assert engine.memory_plan.placement.keyword == keyword
        assert engine.memory_plan.name.startswith("rank 0: sandbox-fp8: transformer resident, text encoder ")
        np.testing.assert_array_equal(_frames(engine.animate(inputs, options)), expected[lora])
        process_ids.add(tuple(engine.ranks.process_ids))
    assert len(process_ids) == 1
    del engine
    cache.clear()
    _assert_gone(list(*process_ids))


def test_ranks_end_with_their_worker(repository):
    arguments = [str(path) for path in (repository.root, repository.pretrained, repository.wan)]
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], cwd=REPOSITORY_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker.stdout:
        folder, *process_ids = worker.stdout.readline().split()
    assert len(process_ids) == 2
    assert all(psutil.pid_exists(int(pid)) for pid in process_ids)
    assert Path(folder).is_dir()
    worker.kill()
    worker.wait()
    _assert_gone([int(pid) for pid in process_ids])
    assert not Path(folder).exists()

"""Plans as a function of free memory, and the formulas against what torch counts for the real modules."""

from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from libs.model_repo.variants import VARIANTS, get_variant
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.memory.estimates import RankWork, decoding_bytes, sampling_bytes
from libs.one_to_all.memory.plan import (
    GB,
    PLACEMENTS,
    UMT5_XXL_BYTES,
    ClipWork,
    DeviceBudget,
    MemoryBudget,
    MemoryPlan,
    MemoryUse,
    Placement,
    memory_use,
    plan_memory,
)
from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel
from libs.one_to_all.parallel.context_parallel import ContextParallel

RESIDENT, DROPPED, OFFLOADED = (
    Placement("resident", "resident"),
    Placement("resident", "dropped after the prompt"),
    Placement("offloaded", "dropped after the prompt"),
)
_SIZES = st.tuples(st.integers(1, 80).map(lambda n: 16 * n), st.integers(1, 80).map(lambda n: 16 * n))
_FRAMES = st.integers(0, 40).map(lambda k: 4 * k + 1)


def _work(variant: str = "14b", size: tuple[int, int, int] = (480, 832, 81), **changes) -> ClipWork:
    return ClipWork(VARIANTS[variant], TokenGrid.of(*size), **changes)


def _plan(free: float, work: ClipWork | None = None, *, host: float | None = None, **options) -> MemoryPlan:
    """The plan for one device; all in GB."""
    host_bytes = None if host is None else round(host * GB)
    budget = MemoryBudget((DeviceBudget("cuda:0", round(free * GB)),), host_bytes)
    return plan_memory(budget, work or _work(), **options)


@pytest.mark.parametrize(
    ("free", "allow_fp8", "expected"),
    [
        (80, False, "14b: transformer resident, text encoder resident"),
        (54, False, "14b: transformer resident, text encoder dropped after the prompt"),
        (40, False, "14b: transformer offloaded, text encoder dropped after the prompt"),
        (40, True, "14b-fp8: transformer resident, text encoder dropped after the prompt"),
        (24, True, "14b: transformer offloaded, text encoder dropped after the prompt"),
        (24, False, "14b: transformer offloaded, text encoder dropped after the prompt"),
        (12.5, False, "14b: transformer offloaded, text encoder on the host"),
    ],
)
def test_plans_for_known_cards(free, allow_fp8, expected):
    plan = _plan(free, allow_fp8=allow_fp8)
    assert plan.name == expected
    assert plan.fits


def test_tiling_is_the_last_resort_and_too_little_memory_is_reported():
    assert _plan(4, _work("1.3b_1", (1280, 1280, 1))).placement.vae_tiling
    nothing = _plan(1)
    assert not nothing.fits
    assert "DOES NOT FIT" in nothing.describe()


def test_a_block_cache_is_counted():
    """Three streams for each of three passes: 34,320 tokens of 5,120 values, two bytes each."""
    exact, cached = (memory_use(RESIDENT, _work(block_cache=cache)).phase_bytes for cache in (False, True))
    assert cached["sampling"] - exact["sampling"] == 9 * 34_320 * 5_120 * 2
    assert cached["decoding"] == exact["decoding"]


def test_a_lora_is_counted_beside_fp8_weights_only():
    """400 MB of a LoRA in 40 blocks: all of it, or that of the two blocks that are on the device at a time."""
    lora = 400 * 10**6

    def added(placement: Placement, *, fp8: bool) -> tuple[int, int]:
        with_, without = (memory_use(placement, _work(lora_bytes=count), fp8=fp8) for count in (lora, 0))
        sampling = with_.phase_bytes["sampling"] - without.phase_bytes["sampling"]
        return sampling, with_.host.get("blocks", 0) - without.host.get("blocks", 0)

    assert added(RESIDENT, fp8=False) == (0, 0)
    assert added(RESIDENT, fp8=True) == (lora, 0)
    assert added(OFFLOADED, fp8=True) == (2 * lora // 40, lora)


def test_what_each_phase_holds():
    """One weight at a time is de-quantized; an encoder that stays takes its room to the end."""
    fp8 = memory_use(RESIDENT, _work("14b-fp8"), fp8=True)
    assert fp8.phases["sampling"]["one weight in bfloat16"] == 2 * 5_120 * 13_824
    assert {phase: items.get("text encoder") for phase, items in fp8.phases.items()} == dict.fromkeys(
        ("prompt", "sampling", "decoding"), UMT5_XXL_BYTES
    )
    dropped = memory_use(DROPPED, _work())
    assert [phase for phase, items in dropped.phases.items() if "text encoder" in items] == ["prompt"]
    on_host = memory_use(Placement("resident", "on the host"), _work())
    assert on_host.host == {"text encoder": UMT5_XXL_BYTES}
    assert not any("text encoder" in items for items in on_host.phases.values())


def test_the_host_must_hold_what_lies_there():
    """36.3 GB of blocks, each rounded up to a power of two: 40 of 2**30 bytes, 8 of 2**29. Half of it in FP8."""
    assert _plan(24, host=48).fits
    assert _plan(24, host=48).use.host == {
        "blocks": 36_251_009_024,
        "page-locking": 48 * 2**30 - 4 * 2**30 - 36_251_009_024,
    }
    assert "on the host: 47.2 GB of 48.0 GB free" in _plan(24, host=48).describe()
    assert not _plan(24, host=47).fits
    assert not _plan(24, host=47, placements=[OFFLOADED]).fits_host
    halved = _plan(24, host=47, allow_fp8=True)
    assert halved.fits
    assert (halved.variant, halved.placement.transformer) == ("14b-fp8", "offloaded")
    assert _plan(80, host=0).placement.transformer == "resident"


def test_what_a_rank_holds():
    """Two thirds of the block cache, half of the tokens, no VAE and no text encoder."""

    def use(share: RankWork) -> MemoryUse:
        return memory_use(RESIDENT, _work(block_cache=True), share)

    whole, leader, other = map(use, (RankWork(), RankWork(passes=1), RankWork(is_leader=False, passes=2)))
    stream = 34_320 * 5_120 * 2
    assert [one.phases["sampling"]["kept from pass to pass"] for one in (whole, leader, other)] == [
        (1 + 9) * stream,
        3 * stream,
        (1 + 6) * stream,
    ]
    assert other.phases.keys() == {"sampling"}
    assert not {"VAE", "text encoder"} & other.phases["sampling"].keys()
    assert leader.phases.keys() == whole.phases.keys()
    halves = memory_use(RESIDENT, _work(), RankWork(is_leader=False, context=2))
    assert halves.phases["sampling"]["kept from pass to pass"] == stream // 2
    assert halves.peak_bytes < other.peak_bytes < whole.peak_bytes


def test_a_plan_for_several_ranks_must_fit_each_of_them():
    """A rank without text encoder and VAE needs 47 GB for the 14B's transformer."""

    def plan(*free: float) -> MemoryPlan:
        shares = [RankWork(is_leader=rank == 0, passes=1) for rank in range(len(free))]
        devices = [DeviceBudget(f"cuda:{rank}", round(free[rank] * GB), share) for rank, share in enumerate(shares)]
        return plan_memory(MemoryBudget(tuple(devices)), _work(), [RESIDENT, DROPPED])

    assert plan(80, 48).placement == RESIDENT
    assert plan(54, 48).placement == DROPPED
    assert plan(80, 46).ranks_without_room == [1]
    assert plan(46, 46).ranks_without_room == [0, 1]


def test_a_plan_shows_every_item_with_its_bytes():
    text = _plan(80).describe()
    for part in ("37.6 GB  transformer", "11.4 GB  text encoder", "intermediate results", "80.0 GB free, fits"):
        assert part in text


@pytest.mark.slow
@given(st.sampled_from(sorted(VARIANTS)), _SIZES, _FRAMES, st.booleans(), st.integers(0, 100), st.integers(0, 100))
def test_more_memory_never_gives_a_smaller_plan(name, size, frames, allow_fp8, first, second):
    less, more = sorted((first, second))
    work = _work(name, (*size, frames))
    small, large = (_plan(free, work, allow_fp8=allow_fp8) for free in (less, more))
    order = ["resident", "offloaded"]
    assert large.fits or not small.fits
    assert order.index(large.placement.transformer) <= order.index(small.placement.transformer)
    assert large.placement.vae_tiling <= small.placement.vae_tiling
    if large.placement.transformer == small.placement.transformer:
        assert large.variant.endswith("-fp8") <= small.variant.endswith("-fp8")
        if large.variant == small.variant:
            assert PLACEMENTS.index(large.placement) <= PLACEMENTS.index(small.placement)
    for plan, free in ((small, less), (large, more)):
        assert plan.host_bytes >= 0
        assert all(count >= 0 for items in plan.use.phases.values() for count in items.values())
        assert not plan.fits or plan.use.peak_bytes <= free * GB


@pytest.mark.slow
@given(_SIZES, st.integers(0, 30))
def test_more_frames_never_need_less(size, groups):
    short, long = (_plan(1000, _work(size=(*size, 4 * k + 1))) for k in (groups, groups + 1))
    assert short.use.peak_bytes <= long.use.peak_bytes


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize(("variant", "frames"), [("14b", 81), ("14b", 33), ("1.3b_1", 81)])
def test_sampling_needs_what_is_estimated(variant, frames, replaced):
    peak = _sampling_peak(variant, frames, replaced=replaced)
    assert peak <= sampling_bytes(get_variant(variant).network, TokenGrid.of(480, 832, frames)) <= 1.25 * peak


@pytest.mark.parametrize(("variant", "frames", "context"), [("14b", 33, 2), ("14b", 81, 8), ("1.3b_1", 81, 4)])
def test_a_rank_that_shares_tokens_needs_what_is_estimated(variant, frames, context):
    """Ranks that are played: their exchanges have the real sizes, and nobody is at the other end."""
    dist.init_process_group("fake", rank=0, world_size=context, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (1, 1, context), mesh_dim_names=("guidance", "ring", "ulysses"))
        peak = _sampling_peak(variant, frames, mesh=mesh)
    finally:
        dist.destroy_process_group()
    share, grid = RankWork(passes=1, context=context), TokenGrid.of(480, 832, frames)
    assert peak <= sampling_bytes(get_variant(variant).network, grid, share) <= 1.25 * peak


def _sampling_peak(variant, frames, *, replaced=False, mesh=None):
    """Of one pass at 480x832, by a network of three blocks."""
    network = replace(get_variant(variant).network, num_layers=3)
    grid = TokenGrid.of(480, 832, frames)
    with _without_data():
        model = OneToAllTransformer3DModel(**asdict(network)).eval()
        if mesh is not None:
            with unset_fake_temporarily():
                tokens = ContextParallel(model, mesh)
            tokens.expect_tokens(torch.Size((1, 16, grid.frames - 1, 60, 104)))
        inputs = [
            _empty(1, 16, grid.frames - 1, 60, 104),
            torch.ones(1, dtype=torch.float32),
            _empty(1, 512, network.text_dim),
            _empty(1, 3, frames, 480, 832),
            _empty(1, 32, 1, 60, 104),
            _empty(1, 3, 1, 480, 832),
        ]
        return _peak(lambda: model(*inputs, token_replace=replaced, activations=ActivationCache()), model, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "frames", "tiled"),
    [(480, 832, 21, False), (576, 1024, 9, False), (576, 1024, 9, True)],
)
def test_decoding_needs_what_is_estimated(height, width, frames, tiled):
    grid = TokenGrid.of(height, width, frames)
    with _without_data():
        vae = AutoencoderKLWan().eval()
        if tiled:
            vae.enable_tiling()
        latents = _empty(1, 16, grid.frames - 1, height // 8, width // 8)
        peak = _peak(lambda: vae.decode(latents), vae, [latents])
    assert peak <= decoding_bytes(grid, tiled=tiled) <= 1.25 * peak


@contextmanager
def _without_data():
    """Modules made inside are in bfloat16 and hold no data."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        torch.set_default_dtype(torch.bfloat16)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16)


def _peak(run, model: torch.nn.Module, inputs: list[torch.Tensor]) -> int:
    """Bytes that running adds at its peak, weights and inputs not included."""
    tracker = MemTracker()
    tracker._pre_fw_hook = tracker._post_fw_hook = lambda *_: None  # it refuses modules that run more than once
    tracker.track_external(*model.parameters(), *inputs)
    with tracker:
        before = sum(tracker.get_tracker_snapshot("current")[torch.device("cpu")].values()) // 2  # parts and their sum
        run()
    return sum(tracker.get_tracker_snapshot("peak")[torch.device("cpu")].values()) // 2 - before

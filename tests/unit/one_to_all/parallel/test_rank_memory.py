"""Memory plans of ranks: what each rank holds, the same weights for all, and errors that say what fits instead."""

from dataclasses import replace

import pytest
import torch

from libs.errors import DeviceError, SettingsError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.memory.choice import PlanRequest
from libs.one_to_all.memory.estimates import RankWork
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import GB, RESIDENT_PLACEMENTS
from libs.one_to_all.parallel.memory import budget_of_ranks, check_memory_options, choose_plan_of_ranks, rank_work
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan

SIZE = ClipSize(480, 832, 81)
THREE = ParallelPlan(guidance=3)


def _plan(layout: RepositoryLayout, free: list[float], parallel=THREE, host=None, **options):
    devices = [f"cuda:{rank}" for rank in range(len(free))]
    budget = budget_of_ranks(parallel, devices, [round(count * GB) for count in free], host)
    return choose_plan_of_ranks(PlanRequest(layout, torch.bfloat16, MemoryOptions(**options), SIZE), budget, parallel)


def test_what_ranks_compute():
    assert [rank_work(THREE, rank) for rank in range(3)] == [
        RankWork(is_leader=rank == 0, passes=1, context=1) for rank in range(3)
    ]
    two = ParallelPlan(guidance=2, context=2)
    assert [rank_work(two, rank).passes for rank in range(4)] == [1, 1, 2, 2]
    assert {rank_work(two, rank).context for rank in range(4)} == {2}
    assert rank_work(ParallelPlan(context=4), 0) == RankWork(passes=3, context=4)


def test_only_rank_0_holds_text_encoder_and_vae(layout_14b):
    """One pass of the 14B needs 47 GB beside the text encoder's 11.4."""
    plan = _plan(layout_14b, [54, 48, 48])
    assert plan.name == (
        "rank 0: 14b: transformer resident, text encoder dropped after the prompt; "
        "ranks 1 to 2: 14b: transformer resident"
    )
    assert plan.fits
    assert plan.uses[0].peak_bytes > plan.uses[1].peak_bytes
    assert plan.uses[1].phases.keys() == {"sampling"}
    assert plan.resident_bytes("cuda:1") == plan.uses[1].phases["sampling"]["transformer"]
    assert plan.resident_bytes("cpu") == plan.host_bytes == 0
    assert plan.needed_bytes == {"cpu": 0} | {f"cuda:{rank}": use.peak_bytes for rank, use in enumerate(plan.uses)}
    text = plan.describe()
    for rank in range(3):
        assert f"rank {rank} on cuda:{rank}: 14b: transformer" in text
    assert list(plan.summary()) == [f"rank {rank} on cuda:{rank}" for rank in range(3)]
    assert plan.summary()["rank 2 on cuda:2"]["plan"] == "14b: transformer resident"


def test_two_ranks_and_three_are_named(layout_14b):
    assert _plan(layout_14b, [80, 80], ParallelPlan(guidance=2)).name == (
        "rank 0: 14b: transformer resident, text encoder resident; rank 1: 14b: transformer resident"
    )
    assert _plan(layout_14b, [80, 80, 80]).name == (
        "rank 0: 14b: transformer resident, text encoder resident; ranks 1 to 2: 14b: transformer resident"
    )


def test_all_ranks_take_the_same_weights(layout_14b):
    """FP8 weights are taken where a single rank needs them, and only where they are allowed."""
    fp8 = _plan(layout_14b, [80, 80, 40], allow_fp8=True)
    assert fp8.variant == "14b-fp8"
    assert fp8.changes == ("weights of 14b-fp8",)
    exact = _plan(layout_14b, [80, 80, 80], allow_fp8=True)
    assert exact.variant == "14b"
    assert exact.changes == ()


@pytest.mark.parametrize("keyword", [placement.keyword for placement in RESIDENT_PLACEMENTS])
def test_a_named_plan_is_used_however_much_is_free(layout_14b, keyword):
    plan = _plan(layout_14b, [1, 1, 1], keyword=keyword)
    assert plan.placement.keyword == keyword
    assert plan.changes == ()


@pytest.mark.parametrize("keyword", ["offload", "offload-all", "tiles"])
def test_block_offload_with_several_ranks_is_an_error_that_names_both_settings(layout_14b, keyword):
    expected = (
        rf"ONE_TO_ALL_MEMORY={keyword} .* ONE_TO_ALL_PARALLEL=guidance:3 .* set ONE_TO_ALL_MEMORY to auto or one of "
        r"resident, drop-text-encoder, text-encoder-on-host; or leave ONE_TO_ALL_PARALLEL empty"
    )
    with pytest.raises(SettingsError, match=expected):
        _plan(layout_14b, [80, 80, 80], keyword=keyword)
    check_memory_options(MemoryOptions(keyword=keyword), ONE_PROCESS)


def test_weights_that_do_not_fit_are_an_error_that_says_what_fits(layout_14b):
    lacking = r"ONE_TO_ALL_PARALLEL=guidance:3: .* weights of 14b rank 2 needs 47 GB, and cuda:2 has 24 GB free"
    with pytest.raises(DeviceError, match=lacking) as raised:
        _plan(layout_14b, [80, 80, 24])
    assert "leave ONE_TO_ALL_PARALLEL empty, since one process fits (14b: transformer resident, " in str(raised.value)
    assert "FP8" not in str(raised.value), "they would not fit either"

    with pytest.raises(DeviceError, match=r"allow FP8 weights, which fit .* or leave ONE_TO_ALL_PARALLEL empty"):
        _plan(layout_14b, [40, 40, 40])
    with pytest.raises(DeviceError, match=r"one process fits .14b: transformer offloaded, text encoder dropped"):
        _plan(layout_14b, [24, 24, 24])
    with pytest.raises(DeviceError, match=r"for weights of 14b-fp8 rank 0 needs .* GB free: leave .* one process fits"):
        _plan(layout_14b, [24, 24, 24], allow_fp8=True)


def test_memory_that_is_too_small_for_anything_is_an_error(layout_14b):
    with pytest.raises(DeviceError, match="1 GB free: ask for a smaller size or a smaller variant") as raised:
        _plan(layout_14b, [1, 1, 1], allow_fp8=True)
    assert "fits" not in str(raised.value)
    with pytest.raises(DeviceError, match="rank 0 needs"):
        _plan(layout_14b, [80, 80, 80], limit_bytes=24 * GB)


def test_this_machine_must_hold_the_text_encoder_of_rank_0(layout_14b):
    assert _plan(layout_14b, [49, 49, 49], host=12 * GB).placement.text_encoder == "on the host"
    with pytest.raises(DeviceError, match="which keeps 12 GB of weights in this machine's memory, and 11 GB are free"):
        _plan(layout_14b, [49, 49, 49], host=11 * GB)


def test_ranks_that_split_tokens_need_less(layout_14b):
    split = _plan(layout_14b, [80, 80], parallel=ParallelPlan(context=2))
    divided = _plan(layout_14b, [80, 80], parallel=ParallelPlan(guidance=2))
    assert split.uses[1].peak_bytes < divided.uses[1].peak_bytes


def test_ranks_on_one_device_add_up(layout_14b):
    budget = budget_of_ranks(THREE, ["cpu"] * 3, [80 * GB] * 3)
    request = PlanRequest(layout_14b, torch.bfloat16, MemoryOptions(keyword="resident"), SIZE)
    plan = choose_plan_of_ranks(request, budget, THREE)
    assert plan.needed_bytes == {"cpu": sum(use.peak_bytes for use in plan.uses)}
    assert plan.resident_bytes("cpu") == sum(use.resident_bytes for use in plan.uses)


def test_weights_of_an_fp8_variant(layout_14b):
    fp8 = replace(layout_14b, variant=replace(layout_14b.variant, name="14b-fp8", weight_format="fp8_scaled"))
    assert _plan(fp8, [40, 40, 40]).variant == "14b-fp8"

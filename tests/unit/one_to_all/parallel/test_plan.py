"""How work is divided: the setting, the places of ranks, the shares of passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import SettingsError
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan, passes_of_rank
from libs.one_to_all.sampling.guidance import plan_guidance


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (None, ONE_PROCESS),
        ("", ONE_PROCESS),
        ("guidance:1", ONE_PROCESS),
        ("guidance:3", ParallelPlan(guidance=3)),
        ("context:2", ParallelPlan(context=2)),
        ("guidance:3,context:2", ParallelPlan(3, 2)),
        ("context:2, guidance:3", ParallelPlan(3, 2)),
    ],
)
def test_the_setting(text, plan):
    assert ParallelPlan.parse(text) == plan


@pytest.mark.parametrize("text", ["3", "guidance", "guidance:0", "guidance:x", "tensor:2", "context:2,context:2", ","])
def test_other_settings_are_explained(text):
    with pytest.raises(SettingsError, match=r"ONE_TO_ALL_PARALLEL=.*guidance:3,context:2"):
        ParallelPlan.parse(text)


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_plan_is_written_as_it_is_read(guidance, context):
    plan = ParallelPlan(guidance, context)
    assert plan == ONE_PROCESS or ParallelPlan.parse(str(plan)) == plan
    assert plan.ranks == guidance * context
    assert len({plan.place(rank) for rank in range(plan.ranks)}) == plan.ranks


@pytest.mark.parametrize(("heads", "possible"), [(40, {1, 2, 3, 4, 5, 6, 8, 10}), (12, {1, 2, 3, 4, 6}), (1, {1})])
def test_every_rank_needs_a_head(heads, possible):
    for degree in (1, 2, 3, 4, 5, 6, 8, 10):
        plan = ParallelPlan(context=degree)
        if degree in possible:
            plan.check_heads(heads, "some variant")
        elif degree not in {7, 9}:
            with pytest.raises(SettingsError, match=rf"{heads} attention heads of some variant; at most context:\d"):
                plan.check_heads(heads, "some variant")


@given(st.lists(st.integers(), max_size=7), st.integers(1, 8))
def test_shares_of_passes_are_even_and_complete(passes, size):
    shares = [passes_of_rank(position, size, passes) for position in range(size)]
    assert [one for share in shares for one in share] == passes
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_ranks_put_the_passes_with_the_black_picture_together():
    passes = plan_guidance(2.0, 1.5).passes
    first, second = (passes_of_rank(position, 2, passes) for position in range(2))
    assert [one.name for one in first] == ["conditional"]
    assert [one.black_image for one in second] == [True, True]

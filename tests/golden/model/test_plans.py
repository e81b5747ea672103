"""What needs no network: noise schedule, chunk plan, prompt cleaning, and which passes a step makes."""

from itertools import pairwise

import pytest
from golden_folders import golden_cases
from golden_model_files import GoldenCase, index_files, index_name, named_cases, whole_files

from libs.errors import InputError
from libs.one_to_all.sampling.chunk_plan import ChunkLengths, plan_chunks
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.prompts import clean_prompt
from libs.one_to_all.sampling.schedule import build_scheduler


def _schedules(folder):
    for path, index in index_files(folder, "steps", "class"):
        for count, expected in index["steps"].items():
            yield f"{index_name(folder, path)}-{count}", GoldenCase(path, index, (int(count), expected))


@pytest.mark.parametrize("case", golden_cases("noise schedule", _schedules))
def test_noise_schedule(case, record_case):
    count, expected = case.case
    scheduler = build_scheduler()
    assert float(scheduler.sigma_max) == case.index["sigma_max_after_constructor"]
    assert float(scheduler.sigma_min) == case.index["sigma_min_after_constructor"]
    scheduler.set_timesteps(count)
    pairs = [
        *zip(scheduler.timesteps.tolist(), expected["timesteps"], strict=True),
        *zip(scheduler.sigmas.tolist(), expected["sigmas"], strict=True),
    ]
    record_case("noise schedule", max(abs(actual - value) for actual, value in pairs))
    assert all(actual == value for actual, value in pairs)


@pytest.mark.parametrize("case", golden_cases("chunk plan", whole_files("MAIN_CHUNK", "OVERLAP_FRAMES", "rows")))
def test_chunk_plan(case, record_case):
    index = case.index
    lengths = ChunkLengths(index["MAIN_CHUNK"], index["OVERLAP_FRAMES"], tuple(index["FINAL_CHUNK_CANDIDATES"]))
    assert index["rows"]
    for total, expected, flags in index["rows"]:
        plan = _planned(total, lengths)
        if total < lengths.main:  # where the reference fails: one chunk that holds the clip
            assert plan and len(plan) == 1 and plan[0][0] == 0 and total <= plan[0][1] < total + 4, f"{total} frames"
        elif not flags:
            assert plan == expected, f"{total} frames"
        else:  # lengths with which the reference's plan is no good: an error, never a plan like it
            assert plan is None or _is_sound(plan, total), f"{total} frames"
    record_case("chunk plan", None)


def _planned(total: int, lengths: ChunkLengths) -> list[list[int]] | None:
    try:
        return [[chunk.start, chunk.end] for chunk in plan_chunks(total, lengths)]
    except InputError:
        return None


def _is_sound(plan: list[list[int]], total: int) -> bool:
    whole = all((end - start) % 4 == 1 for start, end in plan)
    joined = all(start <= previous_end for (_, previous_end), (start, _) in pairwise(plan))
    return whole and joined and plan[0][0] == 0 and plan[-1][1] == total


def _prompts(folder):
    for path, index in index_files(folder, "cleaning", "examples"):
        for number, example in enumerate(index["examples"]):
            yield f"{index_name(folder, path)}-{number}", GoldenCase(path, index, example)


@pytest.mark.parametrize("case", golden_cases("prompt cleaning", _prompts))
def test_prompt_cleaning(case, record_case):
    record_case("prompt cleaning", None)
    assert clean_prompt(case.case["input"]) == case.case["cleaned"]


@pytest.mark.parametrize(
    "case", golden_cases("guidance passes", named_cases("vae_config", "transformer_weights", having="pass_arguments"))
)
def test_guidance_passes(case, record_case):
    arguments = case.case
    guidance = plan_guidance(
        arguments["image_guidance_scale"],
        arguments["pose_guidance_scale"],
        arguments["controlnet_conditioning_scale"],
        "without_pose" if arguments["case1"] else "without_image",
        arguments["black_pose_cfg_argument"],
    )
    actual = [
        {
            "scale": one.conditioning_scale,
            "image_latents_is_black": one.black_image,
            "pose_is_black": one.black_pose,
            "image_pose_is_black": one.black_pose,
            "token_replace": arguments["token_replace"],
            "text": "negative" if one.negative_prompt else "prompt",
        }
        for one in guidance.passes
    ]
    record_case("guidance passes", None)
    assert actual == arguments["pass_arguments"]

"""What needs no network: noise schedule, chunk plan, prompt cleaning, and which passes a step makes."""

import pytest
from golden_folders import golden_cases
from golden_model_files import GoldenCase, index_files, named_cases, whole_files

from libs.one_to_all.chunk_plan import ChunkLengths, plan_chunks
from libs.one_to_all.guidance import plan_guidance
from libs.one_to_all.scheduler import build_scheduler
from libs.one_to_all.text import clean_prompt


def _schedules(folder):
    for path, index in index_files(folder, "steps", "class"):
        for count, expected in index["steps"].items():
            yield f"{path.stem}-{count}", GoldenCase(path, index, (int(count), expected))


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
    compared = 0
    for total, expected, flags in index["rows"]:
        plan = [[chunk.start, chunk.end] for chunk in plan_chunks(total, lengths)]
        if total >= lengths.main:
            assert not flags
            assert plan == expected, f"{total} frames"
            compared += 1
        else:  # where the reference fails: one chunk that holds the clip
            assert len(plan) == 1 and plan[0][0] == 0 and total <= plan[0][1] < total + 4, f"{total} frames"
    record_case("chunk plan", None)
    assert compared


def _prompts(folder):
    for path, index in index_files(folder, "cleaning", "examples"):
        for number, example in enumerate(index["examples"]):
            yield f"{path.stem}-{number}", GoldenCase(path, index, example)


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

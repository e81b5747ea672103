"""Whole denoising runs: derived latents, every pass of every step, latents after each step, decoded video."""

import pytest
import torch
from golden_folders import golden_cases
from golden_model_files import bound, largest_difference, named_cases, tensors, transformer_of_weights, vae_of_weights

from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.sampling.vae import decode_latents, encode_latents, mask_from_uint8, signed_from_uint8

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", golden_cases("pipeline", named_cases("vae_config", "transformer_weights")))
def test_pipeline(case, record_case):
    arguments, name = case.case, case.case["name"]
    saved = tensors(case.file(case.index["cases_file"]))
    inputs = {
        key.removeprefix(f"in/{arguments['input_set']}/"): tensor
        for key, tensor in saved.items()
        if key.startswith(f"in/{arguments['input_set']}/")
    }
    transformer_name = arguments["transformer"]
    transformer = transformer_of_weights(case.path.parent, case.index["transformer_weights"][transformer_name])
    vae = vae_of_weights(case.path.parent, case.index["vae_weights_file"])

    # what is derived from pictures and seed
    image = signed_from_uint8(inputs["image_u8"].numpy()[None], CPU, torch.float32)
    derived = {
        "image_latents": encode_latents(vae, image),
        "mask_latents": encode_latents(vae, mask_from_uint8(inputs["mask_u8"].numpy(), CPU, torch.float32)),
        "black_latents": encode_latents(vae, torch.full_like(image, -1)),
    }
    if arguments["prev_frames"]:
        previous = signed_from_uint8(inputs["prev_frames_u8"].numpy(), CPU, torch.float32)
        derived["prev_latents"] = encode_latents(vae, previous)
    noise = draw_noise(tuple(inputs["derived/noise"].shape), int(inputs["generator_seed"]), CPU, torch.float32)
    errors = {key: largest_difference(value, inputs[f"derived/{key}"]) for key, value in derived.items()}
    errors["noise"] = largest_difference(noise, inputs["derived/noise"])
    limits = dict.fromkeys(errors, bound(case.index.get("tolerance_hint", ""), "derived latents", 1e-5))

    # the run
    guidance = plan_guidance(
        arguments["image_guidance_scale"],
        arguments["pose_guidance_scale"],
        arguments["controlnet_conditioning_scale"],
        "without_pose" if arguments["case1"] else "without_image",
        arguments["black_pose_cfg_argument"],
    )
    clip = ClipConditions(
        prompt=inputs[f"prompt_embeds_{transformer_name}"],
        negative_prompt=inputs[f"negative_prompt_embeds_{transformer_name}"],
        image_latents=torch.cat((derived["image_latents"], derived["mask_latents"]), dim=1),
        black_latents=torch.cat((derived["black_latents"], derived["black_latents"]), dim=1),
        reference_pose=inputs["src_pose"],
    )
    chunk = ChunkConditions(inputs["pose_video"], derived.get("prev_latents"))
    passes: list[torch.Tensor] = []
    hook = transformer.register_forward_hook(lambda _module, _inputs, output: passes.append(output[0]))
    try:
        task = ChunkTask(guidance, clip, chunk, noise, arguments["num_inference_steps"])
        steps = list(denoise(transformer, build_scheduler(), task))
    finally:
        hook.remove()
    video = decode_latents(vae, steps[-1].latents)

    first, last = arguments["video_saved_range"]
    assert list(video.shape) == arguments["video_shape"]
    expected_passes = saved[f"{name}/passes"]
    errors["passes"] = largest_difference(torch.stack(passes).view(expected_passes.shape), expected_passes)
    errors["latents"] = largest_difference(
        torch.stack([step.latents for step in steps]), saved[f"{name}/latents_after_step"]
    )
    errors["video"] = largest_difference(video[:, :, first:last], saved[f"{name}/video"])
    run_limit = bound(case.index.get("tolerance_hint", ""), "latents_after_step", 2e-4)
    limits |= dict.fromkeys(("passes", "latents", "video"), run_limit)

    record_case("pipeline", max(errors.values()))
    assert {key: error for key, error in errors.items() if not error <= limits[key]} == {}

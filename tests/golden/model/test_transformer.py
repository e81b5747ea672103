"""Single forwards of the network: output, every intermediate tensor, rotary tables, state dicts."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from golden_folders import golden_cases
from golden_model_files import (
    GoldenCase,
    bound,
    index_files,
    index_name,
    largest_difference,
    named_cases,
    network_config_of_shapes,
    tensors,
    transformer,
    whole_files,
)

from libs.one_to_all.network import OneToAllTransformer3DModel

FORWARDS = named_cases("weights_file", "config")


def _inputs(case: GoldenCase, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    prefix = f"in/{case.case['input_set']}/"
    saved = tensors(case.file(case.index["cases_file"]))
    names = ("hidden_states", "encoder_hidden_states", "controlnet_cond", "image_latents", "image_pose")
    return {
        **{name: saved[prefix + name].to(dtype) for name in names},
        "timestep": torch.tensor(case.case["timestep"], dtype=torch.float32),
        "conditioning_scale": case.case["conditioning_scale"],
        "token_replace": case.case["token_replace"],
    }


@torch.no_grad()
def _forward(case: GoldenCase, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return transformer(case.path, dtype)(**_inputs(case, dtype)).sample


@pytest.mark.parametrize("case", golden_cases("transformer forward", FORWARDS))
def test_output(case, record_case):
    expected = tensors(case.file(case.index["cases_file"]))[f"{case.case['name']}/out"]
    error = largest_difference(_forward(case), expected)
    record_case("transformer forward", error)
    assert error <= bound(case.index.get("tolerance_hint", ""), "out", 1e-4)


@pytest.mark.parametrize(
    "case", golden_cases("transformer intermediates", named_cases("weights_file", "config", having="intermediates"))
)
def test_intermediates(case, record_case):
    saved = tensors(case.file(case.index["cases_file"]))
    recorded = _Intermediates(transformer(case.path, torch.float32))
    with recorded:
        _forward(case)
    wanted = case.case["intermediates"]
    errors = {
        name: largest_difference(recorded.tensors[name], saved[f"{case.case['name']}/mid/{name}"]) for name in wanted
    }
    record_case("transformer intermediates", max(errors.values()))
    limit = bound(case.index.get("tolerance_hint", ""), "intermediates", 2e-4)
    assert {name: error for name, error in errors.items() if not error <= limit} == {}


@pytest.mark.parametrize(
    "case",
    golden_cases("transformer bfloat16", named_cases("weights_file", "config", having="bf16_vs_fp32_rel_l2")),
)
def test_bfloat16_is_as_near_to_float32_as_the_reference(case, record_case):
    expected = tensors(case.file(case.index["cases_file"]))[f"{case.case['name']}/out"].double()
    output = _forward(case, torch.bfloat16)
    assert output.dtype == torch.bfloat16
    error = float((output.double() - expected).norm() / expected.norm())
    record_case("transformer bfloat16", error)
    assert error <= 1.25 * case.case["bf16_vs_fp32_rel_l2"]


def _rope_sets(folder):
    for path, index in index_files(folder, "weights_file", "config", "cases"):
        for case in {case["input_set"]: case for case in index["cases"]}.values():
            if f"in/{case['input_set']}/rope_freqs" in tensors(path.parent / index["cases_file"]):
                yield f"{index_name(folder, path)}-{case['input_set']}", GoldenCase(path, index, case)


@pytest.mark.parametrize("case", golden_cases("rotary tables", _rope_sets))
def test_rotary_tables(case, record_case):
    saved = tensors(case.file(case.index["cases_file"]))
    rope = transformer(case.path, torch.float32).rope
    height, width = case.case["latent_height"] // 2, case.case["latent_width"] // 2
    errors = []
    for name, frames in (("rope_freqs", case.case["latent_frames"] + 1), ("ref_rope_freqs", 1)):
        table = torch.view_as_real(rope.table(frames, height, width, torch.device("cpu")))
        expected = saved[f"in/{case.case['input_set']}/{name}"].transpose(1, 2)
        errors.append(largest_difference(table, expected))
    record_case("rotary tables", max(errors))
    assert max(errors) <= 2**-24  # float64 values rounded to float32


@pytest.mark.parametrize("case", golden_cases("state dict", whole_files("shapes", "num_tensors", "total_parameters")))
def test_state_dict(case, record_case):
    expected = {name: tuple(shape) for name, shape in case.index["shapes"].items()}
    with torch.device("meta"):
        model = OneToAllTransformer3DModel(**asdict(network_config_of_shapes(expected)))
    actual = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    record_case("state dict", None)
    assert actual == expected
    assert len(actual) == case.index["num_tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == case.index["total_parameters"]
    # strict assignment by name and shape is what a loader does
    model.load_state_dict({name: torch.empty(shape, device="meta") for name, shape in expected.items()}, assign=True)


class _Intermediates:
    """Records the tensors the golden files save, by hooks on the modules that make them."""

    def __init__(self, model: OneToAllTransformer3DModel) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._model = model
        self._handles: list[Any] = []

    def __enter__(self) -> "_Intermediates":
        model = self._model
        self._on(model.image_to_cond, "image_to_cond")
        self._on(model.patch_embedding, "patch_embedding")
        self._on(model.norm_out, "norm_out")
        self._on(model.condition_embedder.text_embedder, "cond/text_embedded")
        for index, block in enumerate(model.blocks):
            self._on(block, f"block/{index}")
            for part in ("attn1", "attn2", "ffn"):
                self._on(getattr(block, part), f"block/{index}/{part}")
        for index, block in enumerate(model.controlnet.blocks):
            self._on(block, f"control/{index}")
            self._on(model.controlnet_zero[index], f"control_proj/{index}")
        for index, project in enumerate(model.refextractor.ref_blocks):
            self._on(project, f"refextractor/{index}")
        self._hook(model.input_hint_block, self._pose)
        self._hook(model.condition_embedder, self._time("cond/"))
        self._hook(model.refextractor.condition_embedder, self._time("refextractor/"))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, module, function) -> None:
        self._handles.append(module.register_forward_hook(function))

    def _on(self, module, name) -> None:
        def keep(_module, _inputs, output):
            self.tensors[name] = output

        self._hook(module, keep)

    def _pose(self, _module, inputs, output) -> None:
        self.tensors["hint_ref" if inputs[0].shape[2] == 1 else "hint_video"] = output

    def _time(self, prefix):
        def keep(_module, inputs, output):
            suffix = "_token_replace" if bool((inputs[0] == 0).all()) else ""
            self.tensors[f"{prefix}temb{suffix}"] = output[0]
            self.tensors[f"{prefix}timestep_proj{suffix}"] = output[1].flatten(1)

        return keep

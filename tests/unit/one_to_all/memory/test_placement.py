"""Memory plans carried out: the same clip whatever the plan, on one engine that goes from plan to plan."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from libs.model_repo.variants import VARIANTS
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import EngineCache, EngineSpec, load_engine
from libs.one_to_all.events import FramesReady
from libs.one_to_all.memory.choice import DeviceMemory, PlanRequest, choose_plan, layout_of_weights
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.memory.options import ClipSize, MemoryOptions, largest_usual_clip, memory_options
from libs.one_to_all.memory.plan import GB, PLACEMENTS, ClipWork, DeviceBudget, MemoryBudget, plan_memory
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.weights.lora_file import LoraFile
from libs.settings import Settings

EXACT = ("offload", "resident", "text-encoder-on-host", "offload-all", "drop-text-encoder")
SIZE = ClipSize(32, 32, 9)


def _budget(free_bytes):
    return MemoryBudget((DeviceBudget("cpu", free_bytes),))


def _plan(layout, keyword):
    return choose_plan(PlanRequest(layout, torch.float32, MemoryOptions(keyword=keyword), SIZE), _budget(10**12))


def _clip(engine, inputs) -> np.ndarray:
    options = SamplingOptions("a dancer", "blurred", 2, 2.0, 1.5)
    events = engine.animate(inputs, options)
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)])


def test_one_engine_follows_plan_after_plan(repository, make_inputs):
    expected = _clip(AnimationEngine.load(repository, "cpu"), make_inputs(5))
    engine = AnimationEngine.load(repository, "cpu", plan=_plan(repository, EXACT[0]))
    weights = {}
    for keyword in EXACT:
        engine.place(_plan(repository, keyword))
        weights[keyword] = engine.bytes_on(engine.device)
        np.testing.assert_array_equal(_clip(engine, make_inputs(5)), expected, err_msg=keyword)
        assert engine.precision == "torch.float32"
    transformer = sum(one.nbytes for one in engine.networks.transformer.parameters())
    assert weights["offload"] < weights["resident"] - 0.5 * transformer
    assert engine.networks.prompt_encoder.text_encoder is None


def test_a_pass_that_a_cancel_interrupts_leaves_no_block_on_the_device(repository, make_inputs):
    engine = AnimationEngine.load(repository, "cpu", plan=_plan(repository, "offload"))
    expected = _clip(engine, make_inputs(5))

    def cancel(*_):
        raise KeyboardInterrupt

    transformer, offload = engine.networks.transformer, engine.placed.offload
    resting = [tensor.data_ptr() for tensor in offload.tensors]
    handle = transformer.blocks[1].ffn.register_forward_hook(cancel)
    with pytest.raises(KeyboardInterrupt):
        _clip(engine, make_inputs(5))
    handle.remove()
    engine.release_memory()
    assert offload.bytes_on_device == 0
    assert [tensor.data_ptr() for tensor in offload.tensors] == resting
    np.testing.assert_array_equal(_clip(engine, make_inputs(5)), expected)


def test_a_lora_beside_weights_moves_with_its_blocks(fp8_repository, tmp_path):
    engine = AnimationEngine.load(fp8_repository, "cpu", plan=_plan(fp8_repository, "offload"))
    layer = engine.networks.transformer.blocks[1].ffn.net[2]
    factors = {"lora_A": torch.ones(2, layer.in_features), "lora_B": torch.ones(layer.out_features, 2)}
    path = tmp_path / "style.safetensors"
    save_file({f"blocks.1.ffn.net.2.{part}.weight": tensor for part, tensor in factors.items()}, path)
    engine.set_lora(LoraFile(path))
    moving = {id(tensor) for tensor in engine.placed.offload.tensors}
    assert {id(layer.lora_down), id(layer.lora_up)} < moving


def test_tiles_are_no_exact_plan(repository):
    engine = AnimationEngine.load(repository, "cpu", plan=_plan(repository, "tiles"))
    assert engine.networks.vae.use_tiling
    assert engine.precision == "torch.float32, VAE in tiles"
    engine.place(_plan(repository, "resident"))
    assert not engine.networks.vae.use_tiling
    assert engine.precision == "torch.float32"


def test_what_a_setting_asks_for():
    def options(**values):
        return memory_options(Settings(_env_file=None, **values))

    assert options() == MemoryOptions()
    assert options(one_to_all_memory="24GB") == MemoryOptions(limit_bytes=24 * GB)
    assert options(one_to_all_memory="11.5 GB").limit_bytes == 11_500_000_000
    assert options(one_to_all_memory="tiles").keyword == "tiles"
    assert options(one_to_all_allow_fp8=True) == MemoryOptions(allow_fp8=True)


@pytest.mark.parametrize("keyword", [*EXACT, "tiles"])
def test_a_named_plan_is_used_however_much_is_free(keyword):
    work = ClipWork(VARIANTS["14b"], TokenGrid.of(480, 832, 81))
    named = [placement for placement in PLACEMENTS if placement.keyword == keyword]
    assert len(named) == 1
    for free_bytes in (0, 10**12):
        assert plan_memory(_budget(free_bytes), work, named).placement == named[0]


def test_a_limit_counts_as_all_there_is(repository):
    def plan(free_bytes, limit_bytes=None):
        return choose_plan(
            PlanRequest(repository, torch.bfloat16, MemoryOptions(limit_bytes=limit_bytes)), _budget(free_bytes)
        )

    assert plan(10**12).placement.keyword == "resident"
    assert plan(10**12, 10**9).budget == _budget(10**9)
    assert plan(10**8, 10**9).budget == _budget(10**8)
    assert not plan(10**12, 10**9).fits


def test_what_a_request_adds_is_counted(fp8_repository, tmp_path):
    save_file({"blocks.0.attn1.to_q.diff_b": torch.zeros(10**6)}, tmp_path / "style.safetensors")

    def sampling(clip=SIZE, lora=None):
        plan = choose_plan(PlanRequest(fp8_repository, torch.float32, clip=clip, lora=lora), _budget(10**12))
        return plan.use.phase_bytes["sampling"]

    assert sampling(replace(SIZE, block_cache=True)) > sampling()
    assert sampling(lora=LoraFile(tmp_path / "style.safetensors")) == pytest.approx(sampling() + 4 * 10**6, rel=0.01)


def test_the_largest_usual_clip_is_one_the_network_makes():
    assert largest_usual_clip(VARIANTS["14b"]) == ClipSize(576, 1024, 81)
    for variant in VARIANTS.values():
        clip = largest_usual_clip(variant)
        assert clip.height % 16 == clip.width % 16 == 0


def test_fp8_weights_are_taken_where_they_are_needed_allowed_and_there(repository, tmp_path):
    layout = replace(repository, root=tmp_path / repository.root.name)
    much, little = 10**12, 0

    def plan(free, *, allow_fp8):
        return choose_plan(
            PlanRequest(layout, torch.bfloat16, MemoryOptions(None, "resident", allow_fp8), SIZE), _budget(free)
        )

    assert plan(little, allow_fp8=True).variant == "sandbox"
    fp8 = tmp_path / VARIANTS["sandbox-fp8"].folder
    fp8.mkdir()
    (fp8 / "model.safetensors.index.json").write_text("{}")
    assert plan(little, allow_fp8=False).changes == ()
    assert plan(much, allow_fp8=True).changes == ()
    taken = plan(little, allow_fp8=True)
    assert taken.changes == ("weights of sandbox-fp8",)
    assert layout_of_weights(layout, taken.variant).root == fp8
    assert layout_of_weights(layout, taken.variant).wan == layout.wan
    assert layout_of_weights(layout, plan(much, allow_fp8=True).variant) == layout


def test_a_warm_engine_is_moved_not_loaded_again(repository, cache):
    first, load = cache.get_or_load(EngineSpec(repository, "cpu", memory=MemoryOptions(keyword="offload")), SIZE)
    assert load.cold
    assert first.memory_plan.placement.transformer == "offloaded"
    second, load = cache.get_or_load(EngineSpec(repository, "cpu", memory=MemoryOptions(keyword="resident")), SIZE)
    assert second is first
    assert not load.cold
    assert first.memory_plan.placement.transformer == "resident"


def test_other_engines_are_evicted_for_the_room_that_a_plan_needs(repository):
    """Room for two sandboxes, then a clip for which one of them has to make room."""
    resident = MemoryOptions(keyword="resident")
    requests = (PlanRequest(repository, torch.float32, resident, clip) for clip in (SIZE, None))
    small, large = (choose_plan(request, _budget(10**12)) for request in requests)
    total = 10**12
    loaded = weakref.WeakSet()

    def load_and_note(spec, plan):
        engine = load_engine(spec, plan)
        loaded.add(engine)
        return engine

    def memory(_):
        return DeviceMemory(total - sum(one.bytes_on(one.device) for one in loaded), total)

    cache = EngineCache(load_and_note, memory)
    other = replace(repository, variant=replace(repository.variant, name="other"))
    specs = [EngineSpec(layout, "cpu", memory=resident) for layout in (other, repository)]
    for spec in specs:
        cache.get_or_load(spec, SIZE)
    held = {one.bytes_on(one.device) for one in loaded}.pop()
    total = 2 * held + small.use.peak_bytes - held  # what an engine holds already needs no room
    for spec in specs:
        assert not cache.get_or_load(spec, SIZE)[1].cold
    assert [key.name for key in cache.engines] == ["other", "sandbox"]
    total = large.use.peak_bytes + 10**6
    assert small.use.peak_bytes < large.use.peak_bytes
    assert not cache.get_or_load(specs[1])[1].cold
    assert [key.name for key in cache.engines] == ["sandbox"]

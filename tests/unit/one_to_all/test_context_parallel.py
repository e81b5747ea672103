"""The context-parallel plan: two processes share the tokens and get what one process gets."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    from dataclasses import asdict

    import torch
    from diffusers import ContextParallelConfig

    from libs.model_repo.variants import get_variant
    from libs.one_to_all.transformer import OneToAllTransformer3DModel

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.accelerator.device_count = lambda: 2  # the library counts accelerators, and this test runs without one

    def transformer():
        torch.manual_seed(0)
        network = {**asdict(get_variant("sandbox").network), "num_attention_heads": 2, "num_control_layers": 2}
        return OneToAllTransformer3DModel(**network).eval().requires_grad_(False)

    generator = torch.Generator().manual_seed(0)
    shapes = {
        "hidden_states": (1, 16, 3, 4, 4),
        "encoder_hidden_states": (1, 7, 64),
        "controlnet_cond": (1, 3, 9, 32, 32),
        "image_latents": (1, 32, 1, 4, 4),
        "image_pose": (1, 3, 1, 32, 32),
    }
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    whole, shared = transformer(), transformer()
    shared.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    tokens = []
    shared.blocks[0].attn1.to_q.register_forward_hook(lambda *call: tokens.append(call[-1].shape[1]))
    for token_replace in (False, True):
        arguments = {**inputs, "timestep": torch.tensor([500.0]), "token_replace": token_replace}
        difference = (shared(**arguments).sample - whole(**arguments).sample).abs().max()
        assert difference < 1e-5, difference
    assert tokens == [8, 8], tokens  # half of 4 frames of 4 tokens
    print("agreed", flush=True)
"""


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    result = subprocess.run([sys.executable, *launcher], capture_output=True, text=True, check=False, timeout=250)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("agreed") == 2

"""The Euler step: diffusers' own on the CPU, and the same rounding where a kernel would take a scalar as it is."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from libs.one_to_all.sampling.schedule import build_scheduler, euler_step


def _tensors(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents, velocity = torch.randn(2, 1, 16, 3, 8, 6, generator=generator)
    return latents.to(dtype), (3 * velocity).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_steps_are_those_of_diffusers(steps: int, dtype: torch.dtype) -> None:
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    ours, velocity = _tensors(dtype)
    theirs = ours
    for time, change in zip(scheduler.timesteps, scheduler.sigmas.diff(), strict=True):
        ours = euler_step(ours, velocity, change)
        theirs = scheduler.step(velocity, time, theirs, return_dict=False)[0]
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


def test_the_change_of_sigma_is_rounded_before_it_reaches_the_kernel() -> None:
    """As a kernel of CUDA computes: in float32, rounded once at its end. The rounding of the change comes before it."""
    latents, velocity = _tensors(torch.bfloat16)
    change = torch.tensor(-0.0660190582275390625)
    rounded = (velocity.float() * change.to(torch.bfloat16).float()).to(torch.bfloat16)
    as_it_is = (velocity.float() * change).to(torch.bfloat16)
    assert not torch.equal(rounded, as_it_is), "the numbers chosen here show no difference"
    expected = (latents.float() + rounded.float()).to(torch.bfloat16)
    assert torch.equal(euler_step(latents, velocity, change), expected)


class _Operations(TorchDispatchMode):
    """Notes the dtypes that each operation is given, and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[object], torch.dtype]] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(keywords or {}))
        given = [one.dtype if isinstance(one, torch.Tensor) else type(one) for one in arguments]
        if isinstance(result, torch.Tensor) and result.device.type == "cuda":
            self.seen.append((function.overloadpacket.__name__, given, result.dtype))
        return result


def test_on_cuda_the_same_operations_run_and_nothing_waits_for_the_device() -> None:
    """On tensors without numbers, which have CUDA's rules for devices and dtypes."""
    change = torch.tensor(-0.066)
    with FakeTensorMode(allow_non_fake_inputs=True), _Operations() as operations:
        latents, velocity = (torch.empty(1, 16, 3, 8, 6, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        operations.seen.clear()
        stepped = euler_step(latents, velocity, change)
    assert (stepped.device.type, stepped.dtype) == ("cuda", torch.bfloat16)
    half, single = torch.bfloat16, torch.float32
    assert operations.seen == [
        ("mul", [half, half], half),
        ("_to_copy", [half], single),
        ("add", [single, half], single),
        ("_to_copy", [single], half),
    ]

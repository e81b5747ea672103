"""The device to compute on, and the dtype to compute in. See ``memory.choice`` for what a device has free."""

import torch

from libs.errors import DeviceError

SETTING = "ONE_TO_ALL_DEVICE"
HOST = torch.device("cpu")
"""The CPU, and this machine's memory."""


def resolve_device(name: str) -> torch.device:
    """Find the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` prefers the first CUDA device.

    Raises:
        DeviceError: no such name, or no such device in this machine; says which setting to change.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdigit()) or name.endswith(":"):
        raise DeviceError(f"{SETTING}={name!r} must be auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"{SETTING}={name} asks for a CUDA device, and this process sees none: set {SETTING}=cpu (or auto), or "
            "install the driver and a CUDA build of torch"
        )
    ordinal = int(index or 0)
    if ordinal >= torch.cuda.device_count():
        raise DeviceError(
            f"{SETTING}={name} asks for CUDA device {ordinal}, and there are {torch.cuda.device_count()}: choose a "
            f"lower number, or {SETTING}=auto"
        )
    return torch.device("cuda", ordinal)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 for CUDA, as the network was trained, and float32 for the CPU, where bfloat16 is slower."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def device_name(device: torch.device) -> str:
    """Name the accelerator as its driver does; ``cpu`` for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

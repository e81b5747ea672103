"""What the machine can do at best: a matrix product, a copy. Shares are formed of these.

What does not belong here: any part of the engine.
"""

import torch

from measuring.clock import Clock

_PRODUCTS = 500
"""In a row, most of a second on an H100: a card slows down under load, and a step keeps it busy for longer."""


def product_flops(clock: Clock, dtype: torch.dtype) -> float:
    """FLOP/s of a product of square matrices."""
    side, count = (8192, _PRODUCTS) if clock.device.type == "cuda" else (1024, 1)
    a, b = (torch.randn(side, side, device=clock.device).to(dtype) for _ in range(2))
    target = torch.empty_like(a)

    def products() -> None:
        for _ in range(count):
            torch.mm(a, b, out=target)

    return count * 2 * side**3 / clock.undisturbed(clock.timing(products))


def copied_bytes(clock: Clock) -> float:
    """Bytes per second, read and written, of a copy on the device."""
    source = torch.zeros(2**29 if clock.device.type == "cuda" else 2**24, dtype=torch.float32, device=clock.device)
    copy = torch.empty_like(source)
    return 2 * source.nbytes / min(clock.timing(lambda: copy.copy_(source)).seconds)

"""Which of a step's passes each rank makes. Light: no torch.

What does not belong here: making and exchanging them (``shared_passes``).
"""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def share_of(position: int, size: int, passes: Sequence[Item]) -> Sequence[Item]:
    """The passes of one of ``size`` ranks: neighbours in call order, as even as possible, the larger shares last.

    The conditional pass comes first and is the dearest (pose and picture of its own). So two ranks divide three passes
    into the conditional one, and the two others, which by default see the same black picture and share what is made of
    it.
    """
    return passes[position * len(passes) // size : (position + 1) * len(passes) // size]

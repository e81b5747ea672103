"""Guidance parallelism: ranks divide the passes of a step, then all of them know all velocities.

Exact: a pass does not depend on the others, and velocities are copied, not summed. Per step each pass's velocity is
sent once (4 MB in bfloat16 at 480x832 and 81 frames). See ``sampling.guidance`` for the passes.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from libs.one_to_all.parallel.plan import passes_of_rank
from libs.one_to_all.sampling.guidance import GuidancePass, PassName


class GuidanceParallel:
    """One rank's view of a group of ranks that divide guidance passes.

    Args:
        group: these ranks, the process group's ranks in ascending order.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._position = dist.get_rank(group)
        self._size = dist.get_world_size(group)

    def local_passes(self, passes: Sequence[GuidancePass]) -> Sequence[GuidancePass]:
        """Return the passes of a step that this rank computes; none where there are more ranks than passes."""
        return passes_of_rank(self._position, self._size, passes)

    def exchange(
        self,
        passes: Sequence[GuidancePass],
        velocities: dict[PassName, torch.Tensor],
        like: torch.Tensor,
    ) -> None:
        """Send the velocities of local passes, and receive those of the others.

        Args:
            passes: all of the step, in one order on all ranks.
            velocities: of the local passes; complete afterwards.
            like: a tensor of a velocity's shape, dtype and device.
        """
        for position in range(self._size):
            source = dist.get_global_rank(self._group, position)
            for one in passes_of_rank(position, self._size, passes):
                if position == self._position:
                    velocities[one.name] = velocities[one.name].contiguous()
                else:
                    velocities[one.name] = torch.empty_like(like, memory_format=torch.contiguous_format)
                dist.broadcast(velocities[one.name], src=source, group=self._group)

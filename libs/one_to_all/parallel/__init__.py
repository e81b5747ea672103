"""Several ranks that make one clip together: processes with a device each, which keep their weights resident.

``engine.ParallelEngine`` is the worker's side (with ``ranks``), ``rank_process`` and ``roles`` are the ranks' side.
``guidance_parallel`` divides the passes of a step, ``context_parallel`` splits the tokens of a pass. What is exported
here loads no torch.
"""

from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan

__all__ = ["ONE_PROCESS", "ParallelPlan"]

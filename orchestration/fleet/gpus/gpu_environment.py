"""Environment variables that CUDA's memory and compiled kernels want before torch is loaded.

Set by the processes that start others, for all of those; what an operator has set stays.
"""

from collections.abc import MutableMapping
from pathlib import Path

ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Of torch: the name, and the older one, which it still reads."""

COMPILED_FOLDER = "compiled"


def prepare_gpu_environment(environment: MutableMapping[str, str], data_dir: Path) -> None:
    """Let torch give memory back in pieces of any size, and keep compiled kernels in ``data_dir``.

    Without expandable segments the allocator holds gaps that no chunk of another size fits into. Kernels in a folder
    that stays let a new container start without compiling again.
    """
    if not any(name in environment for name in ALLOCATOR_VARIABLES):
        environment[ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(data_dir / COMPILED_FOLDER / "inductor"))
    environment.setdefault("TRITON_CACHE_DIR", str(data_dir / COMPILED_FOLDER / "triton"))

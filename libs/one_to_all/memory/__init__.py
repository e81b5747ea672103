"""Memory of the engine: how much a clip takes, where weights lie meanwhile, and moving them there.

``plan`` says what a placement takes and which one fits; ``cost`` and ``estimates`` count; ``choice`` plans for the
files and the memory of this machine; ``placement`` and ``offload`` carry a plan out. What is exported here loads no
torch.
"""

from libs.one_to_all.memory.options import ClipSize, MemoryOptions, memory_options
from libs.one_to_all.memory.plan import MemoryPlan, Placement

__all__ = ["ClipSize", "MemoryOptions", "MemoryPlan", "Placement", "memory_options"]

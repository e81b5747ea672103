"""What blocks take of the host's memory while they lie there, alone or shared by several processes. Pure.

What does not belong here: plans (``memory_plan``), and moving blocks (``block_offload``).
"""

from collections import Counter

from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.memory.cost import bytes_by_block, fp8_bytes_by_block


def page_locked_bytes(byte_count: int) -> int:
    """What torch takes of the host's memory for one page-locked tensor: it rounds up to a power of two."""
    return 1 << max(0, byte_count - 1).bit_length()


def block_sizes(network: NetworkConfig, lora_bytes: int, *, fp8: bool) -> Counter[str]:
    """Bytes of each block of the three lists, by its path; with what a LoRA puts beside FP8 weights."""
    sizes = bytes_by_block(network, fp8=fp8)
    if fp8:  # a LoRA concerns all main blocks alike, and hardly anything else
        for index in range(network.num_layers):
            sizes[f"blocks.{index}"] += -(-lora_bytes // network.num_layers)
    return sizes


def shared_bytes(network: NetworkConfig, lora_bytes: int, *, fp8: bool) -> tuple[int, int]:
    """What processes can have in common, which is not rounded up, and what each then has of its own, page-locked.

    Beside FP8 weights and their scales that is what a LoRA may change, and the LoRA.
    """
    sizes = block_sizes(network, lora_bytes, fp8=fp8)
    if not fp8:
        return sizes.total(), 0
    common = fp8_bytes_by_block(network)
    own = [size - common[path] for path, size in sizes.items()]
    return common.total(), sum(page_locked_bytes(size) for size in own if size)

"""The network: from noisy latents and conditions to a velocity. Everything here needs torch.

Begin with ``transformer``, whose ``forward`` reads from top to bottom; ``blocks``, ``attention``, ``modulation``,
``rope``, ``encoders`` and ``reference_extractor`` are its parts.
"""

from libs.one_to_all.network.activation_cache import ActivationCache
from libs.one_to_all.network.attention import OneToAllAttention
from libs.one_to_all.network.attention_backends import candidates, choose_attention, probe_attention
from libs.one_to_all.network.block_cache import cached_blocks, use_block_cache
from libs.one_to_all.network.transformer import REPLACED_LATENT_FRAMES, OneToAllTransformer3DModel

__all__ = [
    "REPLACED_LATENT_FRAMES",
    "ActivationCache",
    "OneToAllAttention",
    "OneToAllTransformer3DModel",
    "cached_blocks",
    "candidates",
    "choose_attention",
    "probe_attention",
    "use_block_cache",
]

"""The First-Block cache of diffusers on this network: on for one chunk, with a state of its own per guidance pass.

The sampler opens a ``cache_context`` named after each pass; diffusers keeps one state per name. The control branch's
residuals are added *inside* the main blocks (``blocks``), so they are part of what is stored and replayed. See
``libs.one_to_all.sampling.approximation`` for the thresholds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import FirstBlockCacheConfig
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK
from diffusers.models.cache_utils import CacheMixin
from torch import nn

from libs.errors import InputError


def use_block_cache(transformer: CacheMixin, threshold: float | None) -> None:
    """Give the network an empty cache, or (None) none at all; a cache that it had is dropped with its memory.

    A filled cache holds three tensors of the size of the stream [B, N, D] per guidance pass.

    Raises:
        InputError: the network is divided among processes; each would decide by its own tokens what to compute.
    """
    if transformer.is_cache_enabled:
        transformer.disable_cache()
    if threshold is None:
        return
    if getattr(transformer, "_parallel_config", None) is not None:
        raise InputError("a block cache does not work with a network divided among processes: ask for quality: exact")
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))


@contextmanager
def cached_blocks(transformer: CacheMixin, threshold: float | None) -> Iterator[None]:
    """An empty cache inside the context (see :func:`use_block_cache`), none after it, however it ends."""
    use_block_cache(transformer, threshold)
    ours = transformer._cache_config
    try:
        yield
    finally:
        if ours is not None and transformer._cache_config is ours:  # else another chunk was begun meanwhile
            transformer.disable_cache()


def replays_other_blocks(first_block: nn.Module) -> bool:
    """Whether the last call of ``first_block`` decided to replay all other blocks from the cache."""
    registry = getattr(first_block, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(_FBC_LEADER_BLOCK_HOOK)
    return hook is not None and not hook.state_manager.get_state().should_compute

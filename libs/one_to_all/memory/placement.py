"""Carries out a memory plan on loaded networks, whatever plan they followed before.

What does not belong here: which plan (``memory_plan``), moving blocks while they compute (``block_offload``), dropping
the text encoder after the prompt (``engine``, between two steps of a clip).
"""

import torch

from libs.one_to_all.device import HOST
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.network.transformer import OneToAllTransformer3DModel
from libs.one_to_all.weights.loading import LoadedNetworks


class TransformerPlacement:
    """Where the transformer lies.

    Args:
        transformer: anywhere; a plan is carried out by :meth:`follow`.
        device: where it computes.
    """

    def __init__(self, transformer: OneToAllTransformer3DModel, device: torch.device) -> None:
        self._transformer = transformer
        self._device = device
        self._offload: BlockOffload | None = None

    def follow(self, plan: MemoryPlan) -> None:
        """Keep its blocks on the host, or all of it on the device."""
        offloaded = plan.transformer == "offloaded"
        if offloaded and self._offload is None:
            self._offload = BlockOffload(self._transformer, self._device)
        elif not offloaded and self._offload is not None:
            self._offload.remove()
            self._offload = None

    def parameters_changed(self) -> None:
        """After parameters were added to it or taken from it: those of offloaded blocks move with them."""
        if self._offload is not None:
            self._offload.repack()

    def release_memory(self) -> None:
        """Between two passes: give back what one that was interrupted had on the device."""
        if self._offload is not None:
            self._offload.end_pass()

    @property
    def moving(self) -> list[torch.Tensor]:
        """Parameters that come to the device only to compute."""
        return [] if self._offload is None else self._offload.tensors

    @property
    def host_bytes(self) -> int:
        """What these take of the host's memory."""
        return 0 if self._offload is None else self._offload.host_bytes


class Placement:
    """Where the parts of one engine lie.

    Args:
        networks: on any device; a plan is carried out by :meth:`follow`.
        device: where they compute.
    """

    def __init__(self, networks: LoadedNetworks, device: torch.device) -> None:
        self._networks = networks
        self._device = device
        self._transformer = TransformerPlacement(networks.transformer, device)

    def follow(self, plan: MemoryPlan) -> None:
        """Move what the plan wants elsewhere; first what leaves the device, then what comes to it."""
        networks = self._networks
        if plan.transformer == "offloaded":
            self._transformer.follow(plan)
        networks.prompt_encoder.move_to(HOST if plan.text_encoder == "on the host" else self._device)
        if plan.vae_tiling:
            networks.vae.enable_tiling()
        else:
            networks.vae.disable_tiling()
        if plan.transformer == "resident":
            self._transformer.follow(plan)

    def parameters_changed(self) -> None:
        """See :meth:`TransformerPlacement.parameters_changed`."""
        self._transformer.parameters_changed()

    def release_memory(self) -> None:
        """See :meth:`TransformerPlacement.release_memory`."""
        self._transformer.release_memory()

    def bytes_on(self, device: torch.device) -> int:
        """Of weights on ``device``, between two passes."""
        networks = self._networks
        models = (networks.transformer, networks.vae, networks.prompt_encoder.text_encoder)
        tensors = [tensor for model in models if model is not None for tensor in model.parameters()]
        moving = {id(tensor) for tensor in self._transformer.moving}
        at_rest = sum(tensor.nbytes for tensor in tensors if tensor.device == device and id(tensor) not in moving)
        return at_rest + (self._transformer.host_bytes if device == HOST != self._device else 0)

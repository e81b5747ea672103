"""Carries out a memory plan: moves loaded networks to where its placement wants them, wherever they were before.

See ``plan`` for the placements, ``offload`` for moving blocks while they compute, and ``libs.one_to_all.engine`` for
dropping the text encoder after the prompt.
"""

import torch

from libs.one_to_all.device import HOST
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.memory.plan import Placement
from libs.one_to_all.weights.loading import LoadedNetworks


class PlacedNetworks:
    """The networks of one engine, and where they lie.

    Args:
        networks: on any device; :meth:`place` moves them.
        device: where they compute.
    """

    def __init__(self, networks: LoadedNetworks, device: torch.device) -> None:
        self._networks = networks
        self._device = device
        self.offload: BlockOffload | None = None
        """The transformer's block offload; None while the transformer is resident."""

    def place(self, placement: Placement) -> None:
        """Move the networks; first what leaves the device, then what comes to it."""
        networks = self._networks
        if placement.transformer == "offloaded" and self.offload is None:
            self.offload = BlockOffload(networks.transformer, self._device)
        networks.prompt_encoder.move_to(HOST if placement.text_encoder == "on the host" else self._device)
        if placement.vae_tiling:
            networks.vae.enable_tiling()
        else:
            networks.vae.disable_tiling()
        if placement.transformer == "resident" and self.offload is not None:
            self.offload.remove()
            self.offload = None

    def parameters_changed(self) -> None:
        """Let parameters that were added to offloaded blocks move with them."""
        if self.offload is not None:
            self.offload.repack()

    def release_memory(self) -> None:
        """Give back what an interrupted pass left on the device."""
        if self.offload is not None:
            self.offload.end_pass()

    def bytes_on(self, device: torch.device) -> int:
        """Bytes of weights on ``device``, between two passes."""
        networks = self._networks
        models = (networks.transformer, networks.vae, networks.prompt_encoder.text_encoder)
        tensors = [tensor for model in models if model is not None for tensor in model.parameters()]
        offloaded = set() if self.offload is None else {id(tensor) for tensor in self.offload.tensors}
        resident = sum(tensor.nbytes for tensor in tensors if tensor.device == device and id(tensor) not in offloaded)
        host_bytes = 0 if self.offload is None else self.offload.host_bytes
        return resident + (host_bytes if device == HOST != self._device else 0)

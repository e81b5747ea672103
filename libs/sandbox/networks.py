"""Where the networks of a sandbox repository come from: constructed by code, or trained and kept as weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKLWan

from libs.errors import InputError
from libs.model_repo.variants import ModelVariant
from libs.sandbox.autoencoder import build_autoencoder
from libs.sandbox.network import build_transformer
from libs.sandbox.pose_graphs import detection_network, pose_network
from libs.sandbox.sizes import NETWORK
from libs.sandbox.trained import WEIGHTS, kept_file, trained_autoencoder, trained_transformer_state, weights_digest


class SandboxNetworks(Protocol):
    """All that is not the same in every sandbox repository."""

    def transformer(self, variant: ModelVariant, seed: int) -> Mapping[str, torch.Tensor]:
        """The weights by name."""

    def autoencoder(self) -> AutoencoderKLWan:
        """The video autoencoder in float32."""

    def detector(self) -> bytes:
        """The person detector as ONNX."""

    def pose_network(self) -> bytes:
        """The pose network as ONNX."""

    def digest(self) -> str:
        """Stands for everything the networks are made from, beside this package's sources."""


class ConstructedNetworks:
    """Networks whose weights are written down by code; see ``network`` and ``autoencoder``."""

    def transformer(self, variant: ModelVariant, seed: int) -> Mapping[str, torch.Tensor]:
        """The weights by name."""
        return build_transformer(variant.network, variant.sampling, seed).state_dict()

    def autoencoder(self) -> AutoencoderKLWan:
        """The video autoencoder in float32."""
        return build_autoencoder()

    def detector(self) -> bytes:
        """The graph that finds a puppet by its contrast."""
        return detection_network()

    def pose_network(self) -> bytes:
        """The graph that finds coloured markers."""
        return pose_network()

    def digest(self) -> str:
        """Nothing beside the sources."""
        return "constructed"


class TrainedNetworks:
    """Networks from kept weights.

    Args:
        folder: of the weights and their lock.
    """

    def __init__(self, folder: Path = WEIGHTS) -> None:
        self._folder = folder

    def transformer(self, variant: ModelVariant, seed: int) -> Mapping[str, torch.Tensor]:  # noqa: ARG002
        """The weights by name; there is but one set of them, so that ``seed`` changes the text encoder only.

        Raises:
            InputError: the variant has another size than the trained network.
        """
        if variant.network != NETWORK:
            raise InputError(f"{variant.name}: {variant.network} is not the size of the trained network, {NETWORK}")
        return trained_transformer_state(self._folder)

    def autoencoder(self) -> AutoencoderKLWan:
        """The video autoencoder in float32."""
        return trained_autoencoder(self._folder)

    def detector(self) -> bytes:
        """The person detector as ONNX."""
        return kept_file(self._folder, "detector").read_bytes()

    def pose_network(self) -> bytes:
        """The pose network as ONNX."""
        return kept_file(self._folder, "pose").read_bytes()

    def digest(self) -> str:
        """Of the weights' lock."""
        return weights_digest(self._folder)


CONSTRUCTED = ConstructedNetworks()

"""Loading the networks of one model repository from disk; nothing is ever downloaded.

Each error names the file or folder, and the command that mends it. See ``libs.one_to_all.engine_cache`` for keeping
loaded networks.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from libs.errors import ModelFilesError, OneToAllError
from libs.model_repo.files.parameters import FP8_DTYPES, TensorInfo
from libs.model_repo.layout import WAN_PARTS, RepositoryLayout
from libs.model_repo.verification.verify import mending_command
from libs.one_to_all.finite import is_finite
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.sampling.prompts import PromptEncoder
from libs.one_to_all.sampling.schedule import TRAIN_TIMESTEPS, build_scheduler
from libs.one_to_all.weights.checkpoint import assign_checkpoint, assign_shared_checkpoint, tensors_of_checkpoint
from libs.one_to_all.weights.fp8 import dequantize_other_layers, hold_weights_in_fp8, problem_of_scales
from libs.one_to_all.weights.lora import fuse_lora
from libs.one_to_all.weights.lora_file import LoraFile


@dataclass(frozen=True, eq=False)
class LoadedNetworks:
    """The networks of an engine; the text encoder may be on another device than the rest."""

    transformer: OneToAllTransformer3DModel
    vae: AutoencoderKLWan
    prompt_encoder: PromptEncoder
    scheduler: FlowMatchEulerDiscreteScheduler


def load_networks(
    layout: RepositoryLayout,
    device: torch.device,
    dtype: torch.dtype,
    lora: LoraFile | None = None,
    *,
    transformer_on: torch.device | None = None,
    text_encoder_on: torch.device | None = None,
) -> LoadedNetworks:
    """Load everything of ``layout`` in ``dtype``, and fuse ``lora`` into the transformer, which then is not FP8.

    Args:
        layout: where the files lie.
        device: for all networks.
        dtype: of all networks; weights of an FP8 variant stay in FP8.
        lora: fused into the transformer; None for no LoRA.
        transformer_on: another device for the transformer's weights.
        text_encoder_on: another device for the text encoder.

    Raises:
        ModelFilesError: names the file or folder that is missing or wrong, and the command that mends it.
    """
    scheduler = load_scheduler(layout)  # the cheap parts first: their errors need not wait for 40 GB
    prompt_encoder = load_prompt_encoder(layout, text_encoder_on or device, dtype)
    vae = load_vae(layout, device, dtype)
    transformer = load_transformer(layout, transformer_on or device, dtype, lora)
    return LoadedNetworks(transformer, vae, prompt_encoder, scheduler)


def load_transformer(
    layout: RepositoryLayout, device: torch.device, dtype: torch.dtype, lora: LoraFile | None = None
) -> OneToAllTransformer3DModel:
    """The fine-tuned network on ``device``, in evaluation mode; weights of an FP8 variant stay in FP8.

    Raises:
        ModelFilesError: see ``assign_checkpoint`` and ``fuse_lora``.
    """
    variant = layout.variant
    command = mending_command(variant, "checkpoint", [])
    with torch.device("meta"):
        transformer = OneToAllTransformer3DModel(**asdict(variant.network))
    if variant.weight_format == "fp8_scaled":
        try:
            hold_weights_in_fp8(transformer, _fp8_tensors(layout))
        except ModelFilesError as error:
            raise ModelFilesError(f"{error}; to repair it: `{command}`") from None
    assign_checkpoint(transformer, layout.root, device, dtype, command)
    dequantize_other_layers(transformer, dtype)
    if lora is not None:
        fuse_lora(transformer, lora)
    return transformer.eval()


def _fp8_tensors(layout: RepositoryLayout) -> dict[str, TensorInfo]:
    """Dtype and shape of the tensors of an FP8 checkpoint, after checking that it is one, with its scales."""
    tensors = tensors_of_checkpoint(layout.root)
    if not any(tensor.dtype in FP8_DTYPES for tensor in tensors.values()):
        raise ModelFilesError(f"{layout.root}: holds no weight in FP8, as {layout.variant.name} should")
    problem = problem_of_scales(tensors)
    if problem is not None:
        raise ModelFilesError(f"{layout.root}: {problem}")
    return tensors


def load_vae(layout: RepositoryLayout, device: torch.device, dtype: torch.dtype) -> AutoencoderKLWan:
    """The Wan VAE, in evaluation mode."""
    folder = layout.wan_part("vae")
    with _errors_name(layout, folder):
        vae, report = AutoencoderKLWan.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
        _refuse_missing(folder, report["missing_keys"])
        _refuse_not_finite(folder, vae)
    return vae.to(device).eval().requires_grad_(False)


def load_prompt_encoder(layout: RepositoryLayout, device: torch.device, dtype: torch.dtype) -> PromptEncoder:
    """Tokenizer and UMT5 text encoder."""
    folder = layout.wan_part("tokenizer")
    with _errors_name(layout, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def load_text_encoder(device: torch.device) -> UMT5EncoderModel:
        return _load_text_encoder(layout, device, dtype)

    return PromptEncoder(tokenizer, load_text_encoder(device), reload=load_text_encoder)


def _load_text_encoder(layout: RepositoryLayout, device: torch.device, dtype: torch.dtype) -> UMT5EncoderModel:
    folder = layout.wan_part("text_encoder")
    with _errors_name(layout, folder):
        config = UMT5Config.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            text_encoder = UMT5EncoderModel(config)
        # As a module the embedding has one name; checkpoints have it under the other one, or under both.
        text_encoder.encoder.embed_tokens = text_encoder.shared
        try:
            assign_shared_checkpoint(text_encoder, folder, device, dtype)
        except ModelFilesError as error:
            raise ModelFilesError(f"{folder}: cannot be loaded ({error})") from error.__cause__
    return text_encoder.eval().requires_grad_(False)


def load_scheduler(layout: RepositoryLayout) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler this network needs, after checking the number of training steps in the repository.

    A Wan repository describes the scheduler of its text-to-video pipeline; class and shift differ from what this
    network is sampled with, the number of training steps must not differ.
    """
    folder = layout.wan_part("scheduler")
    with _errors_name(layout, folder):
        config = FlowMatchEulerDiscreteScheduler.load_config(folder, local_files_only=True)
        if config.get("num_train_timesteps", TRAIN_TIMESTEPS) != TRAIN_TIMESTEPS:
            raise ModelFilesError(
                f"{folder}: was made for {config['num_train_timesteps']} training steps, expected {TRAIN_TIMESTEPS}"
            )
    return build_scheduler()


def weight_files(layout: RepositoryLayout) -> list[Path]:
    """The files that determine what :func:`load_networks` gives, sorted: shards, their index and the Wan parts."""
    files = [layout.index, *layout.root.glob("*.safetensors")]
    for part in WAN_PARTS:
        files += layout.wan_part(part).glob("*")
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def _refuse_missing(folder: Path, names: Iterable[str]) -> None:
    """Raise for missing parameters, which the libraries fill with random numbers and a warning."""
    missing = sorted(names)
    if missing:
        raise ModelFilesError(f"{folder}: lacks {len(missing)} parameters, the first is {missing[0]}")


def _refuse_not_finite(folder: Path, model: torch.nn.Module) -> None:
    """Raise for NaN and infinity, which make a clip black or nearly right; the libraries do not check."""
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            raise ModelFilesError(f"{folder}: {name} holds values that are not finite (NaN or infinity)")


@contextmanager
def _errors_name(layout: RepositoryLayout, folder: Path) -> Iterator[None]:
    """Turn the many errors of the libraries about one folder into one that names the command that mends it."""
    command = mending_command(layout.variant, "wan_resources", [])
    if not folder.is_dir():
        raise ModelFilesError(f"{folder}: the folder is missing; to repair it: `{command}`")
    try:
        yield
    except OneToAllError as error:
        raise ModelFilesError(f"{error}; to repair it: `{command}`") from None
    except Exception as error:  # the libraries raise OSError, ValueError, KeyError, SafetensorError, ...
        reason = " ".join(str(error).split())
        raise ModelFilesError(f"{folder}: cannot be loaded ({reason}); to repair it: `{command}`") from error

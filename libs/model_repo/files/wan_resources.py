"""Do the Wan resources of a repository load: VAE, text encoder, tokenizer and scheduler?

Weights are compared by their headers with what the real classes of diffusers and transformers hold on the meta device,
so no weight is read. Those libraries are imported when a check runs, never when this module is.

See ``libs.one_to_all.weights.loading`` for loading them.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libs.errors import ModelFilesError
from libs.files.json_file import read_json_file
from libs.messages.printable import printable
from libs.model_repo.files.parameters import PLAIN_DTYPES, Shape, TensorInfo
from libs.model_repo.files.repository import files_below, wan_name
from libs.model_repo.files.safetensors_header import IncompleteSafetensorsError, read_header, read_index
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.report import Problem, State

_VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TEXT_ENCODER_WEIGHTS = "model.safetensors"
_TIED = "encoder.embed_tokens.weight"  # the same tensor as shared.weight; files hold one of the names, or both
_SAMPLE_PROMPT = "A person dances in the rain."
_COUNTS_OF_LAYERS = frozenset({"num_layers", "num_decoder_layers", "num_res_blocks", "dim_mult"})
_MOST_LAYERS = 200
_LARGEST_NUMBER = 10_000_000
_LARGEST_TOKENIZER_FILE = 256 * 1024 * 1024


def check_wan_resources(layout: RepositoryLayout) -> list[Problem]:
    """Everything that is wrong with the four folders; empty when they are sound."""
    problems = []
    for part, check in _CHECKS.items():
        folder = layout.wan_part(part)
        if not files_below(folder):
            problems.append(_problem(layout, part, "", "incomplete", f"{part}/ is missing or empty"))
        else:
            problems += check(layout, folder)
    return problems


def _check_vae(layout: RepositoryLayout, folder: Path) -> list[Problem]:
    config, problems = _read_config(layout, "vae", folder / "config.json")
    if config is None:
        return problems
    if config.get("z_dim") != layout.variant.network.in_channels:
        message = f"vae has {config.get('z_dim')} latent channels, {layout.variant.network.in_channels} expected"
        return [_problem(layout, "vae", "config.json", "mismatch", message)]

    def expected() -> dict[str, Shape]:
        import torch  # noqa: PLC0415 - heavy, and only this check needs it
        from diffusers import AutoencoderKLWan  # noqa: PLC0415

        with torch.device("meta"):
            return _shapes(AutoencoderKLWan.from_config(config))

    return _check_weights(layout, "vae", folder, _VAE_WEIGHTS, expected)


def _check_text_encoder(layout: RepositoryLayout, folder: Path) -> list[Problem]:
    config, problems = _read_config(layout, "text_encoder", folder / "config.json")
    if config is None:
        return problems
    if config.get("d_model") != layout.variant.network.text_dim:
        message = f"text_encoder has width {config.get('d_model')}, {layout.variant.network.text_dim} expected"
        return [_problem(layout, "text_encoder", "config.json", "mismatch", message)]

    def expected() -> dict[str, Shape]:
        import torch  # noqa: PLC0415 - heavy, and only this check needs it
        from transformers import UMT5Config, UMT5EncoderModel  # noqa: PLC0415

        with torch.device("meta"):
            shapes = _shapes(UMT5EncoderModel(UMT5Config.from_dict(config)))
        shapes.pop(_TIED, None)
        return shapes

    return _check_weights(layout, "text_encoder", folder, _TEXT_ENCODER_WEIGHTS, expected)


def _check_tokenizer(layout: RepositoryLayout, folder: Path) -> list[Problem]:
    for name, path in files_below(folder).items():
        if path.stat().st_size > _LARGEST_TOKENIZER_FILE:
            message = (
                f"tokenizer/{name} has {path.stat().st_size:,} bytes, at most {_LARGEST_TOKENIZER_FILE:,} expected"
            )
            return [_problem(layout, "tokenizer", name, "mismatch", message)]
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415 - heavy, and only this check needs it

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokens = tokenizer(_SAMPLE_PROMPT).input_ids
        size = len(tokenizer)
    except Exception as error:  # whatever a damaged tokenizer makes the library raise
        return [_problem(layout, "tokenizer", "", "mismatch", f"tokenizer/ does not load: {_first_line(error)}")]
    if not tokens:
        return [_problem(layout, "tokenizer", "", "mismatch", "tokenizer/ gives no tokens for a plain sentence")]
    config, _ = _read_config(layout, "text_encoder", layout.wan_part("text_encoder") / "config.json")
    vocabulary = (config or {}).get("vocab_size", size)
    if size > vocabulary:
        message = f"tokenizer/ has {size:,} tokens, the text encoder only knows {vocabulary:,}"
        return [_problem(layout, "tokenizer", "", "mismatch", message)]
    return []


def _check_scheduler(layout: RepositoryLayout, folder: Path) -> list[Problem]:
    name = "scheduler_config.json"
    config, problems = _read_config(layout, "scheduler", folder / name)
    if config is None:
        return problems
    try:
        import diffusers  # noqa: PLC0415 - heavy, and only this check needs it

        class_name = str(config.get("_class_name"))
        scheduler_class = getattr(diffusers, class_name, None) if class_name.endswith("Scheduler") else None
        if scheduler_class is None:
            raise ModelFilesError(f"diffusers has no scheduler {class_name!r}")
        scheduler_class.from_config(config)
    except Exception as error:  # whatever a damaged configuration makes the library raise
        return [_problem(layout, "scheduler", name, "mismatch", f"scheduler/ does not load: {_first_line(error)}")]
    return []


_CHECKS: dict[str, Callable[[RepositoryLayout, Path], list[Problem]]] = {
    "vae": _check_vae,
    "text_encoder": _check_text_encoder,
    "tokenizer": _check_tokenizer,
    "scheduler": _check_scheduler,
}


def _read_config(layout: RepositoryLayout, part: str, path: Path) -> tuple[dict[str, Any] | None, list[Problem]]:
    try:
        config = read_json_file(path, "configuration", f"{part}/{path.name}")
        if not isinstance(config, dict):
            raise ModelFilesError(f"{part}/{path.name} is not a JSON object")
        _check_numbers(config, f"{part}/{path.name}")
    except FileNotFoundError:
        return None, [_problem(layout, part, path.name, "incomplete", f"{part}/{path.name} is missing")]
    except ModelFilesError as error:
        return None, [_problem(layout, part, path.name, "mismatch", str(error))]
    return config, []


def _check_numbers(config: dict[str, Any], what: str) -> None:
    """Refuse numbers that no network here has: building one of a billion layers would never end."""
    for key, value in config.items():
        most = _MOST_LAYERS if key in _COUNTS_OF_LAYERS else _LARGEST_NUMBER
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= most:
                raise ModelFilesError(f"{what} has {key}: {printable(repr(number), 40)}, at most {most:,} expected")


def _shapes(model: Any) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_weights(
    layout: RepositoryLayout, part: str, folder: Path, single: str, expected: Callable[[], dict[str, Shape]]
) -> list[Problem]:
    """Weights in one file, or in shards with an index of that file's name, against the shapes of the real class."""
    index = folder / f"{single}.index.json"
    try:
        shards = sorted(set(read_index(index).values()))
    except FileNotFoundError:
        shards = [single]
    except ModelFilesError as error:
        return [_problem(layout, part, index.name, "mismatch", str(error))]
    problems: list[Problem] = []
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        try:
            tensors |= read_header(folder / shard)
        except FileNotFoundError:
            problems.append(_problem(layout, part, shard, "incomplete", f"{part}/{shard} is missing"))
        except IncompleteSafetensorsError as error:
            problems.append(_problem(layout, part, shard, "incomplete", str(error)))
        except ModelFilesError as error:
            problems.append(_problem(layout, part, shard, "mismatch", str(error)))
    if problems:
        return problems
    try:
        shapes = expected()
    except Exception as error:  # whatever a damaged configuration makes the library raise
        message = f"{part}/config.json does not make a model: {_first_line(error)}"
        return [_problem(layout, part, "config.json", "mismatch", message)]
    if _TIED in tensors:
        embedding = tensors.pop(_TIED)
        tensors.setdefault("shared.weight", embedding)
    return _compare(layout, part, single, shapes, tensors)


def _compare(
    layout: RepositoryLayout, part: str, file: str, expected: dict[str, Shape], found: dict[str, TensorInfo]
) -> list[Problem]:
    problems = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            message = f"{part}: {name} is missing"
        elif name not in expected:
            message = f"{part}: {name} is not a parameter of this model"
        elif found[name].shape != expected[name]:
            message = f"{part}: {name} has shape {list(found[name].shape)}, expected {list(expected[name])}"
        elif found[name].dtype not in PLAIN_DTYPES:
            message = f"{part}: {name} has dtype {found[name].dtype}, expected one of {', '.join(sorted(PLAIN_DTYPES))}"
        else:
            continue
        problems.append(_problem(layout, part, file, "mismatch", message))
    return problems


def _first_line(error: Exception) -> str:
    logging.getLogger(__name__).debug("loading failed", exc_info=error)
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def _problem(layout: RepositoryLayout, part: str, file: str, state: State, message: str) -> Problem:
    name = wan_name(layout, part, file) if file else wan_name(layout, part)
    return Problem("wan_resources", name, state, message)

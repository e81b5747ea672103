"""Finding and reading the network's golden files, by what is in them.

Every name, size, seed and network size is taken from the index files. What does not belong here: comparisons.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from golden_folders import COMMITTED_FOLDER
from safetensors.torch import load_file

from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.network import OneToAllTransformer3DModel


@dataclass(frozen=True)
class GoldenCase:
    """One case of an index file; ``index`` is the whole file and ``case`` the case's own entry in it."""

    path: Path
    index: dict[str, Any]
    case: Any = None

    def file(self, name: str) -> Path:
        """A file named by the index, which lies beside it."""
        return self.path.parent / name


@lru_cache(maxsize=64)
def _content(path: Path) -> Any:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return json.loads(raw)
    except (ValueError, OSError, EOFError) as error:
        # passed over, the file's kind would be reported as absent
        raise pytest.UsageError(f"{path}: is no readable JSON ({error})") from None


def index_files(folder: Path, *fields: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All JSON files below ``folder`` that are objects with all of ``fields``; hidden files do not count."""
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.json.gz")]):
        content = None if path.name.startswith(".") else _content(path)
        if isinstance(content, dict) and all(field in content for field in fields):
            yield path, content


def index_name(folder: Path, path: Path) -> str:
    """How an index is called in case ids: its path below the root folder, without suffixes."""
    return str(path.relative_to(folder)).removesuffix(".gz").removesuffix(".json")


def needed(path: Path) -> Path:
    """``path``, a file of another kind; the test is skipped with this reason where the folder lacks it."""
    if not path.is_file():
        pytest.skip(f"needs {path.name}, which {path.parent} lacks")
    return path


def named_cases(*fields: str, having: str = "") -> Callable[[Path], Iterator[tuple[str, GoldenCase]]]:
    """Discovery of index files with ``cases``; with ``having`` only of cases where that entry is not empty."""

    def discover(folder: Path) -> Iterator[tuple[str, GoldenCase]]:
        for path, index in index_files(folder, "cases", *fields):
            for case in index["cases"]:
                if not having or case.get(having):
                    yield f"{index_name(folder, path)}-{case['name']}", GoldenCase(path, index, case)

    return discover


def whole_files(*fields: str) -> Callable[[Path], Iterator[tuple[str, GoldenCase]]]:
    """Discovery of index files that are one case each."""

    def discover(folder: Path) -> Iterator[tuple[str, GoldenCase]]:
        for path, index in index_files(folder, *fields):
            yield index_name(folder, path), GoldenCase(path, index)

    return discover


def bound(text: str, name: str, default: float) -> float:
    """The bound a tolerance text gives for ``name`` ("<= 1e-4 on out"), else the specification's own."""
    found = re.search(rf"<=\s*([0-9.]+(?:e-?[0-9]+)?) on [^.;<]*?\b{re.escape(name)}\b", text)
    return float(found.group(1)) if found else default


@lru_cache(maxsize=8)
def tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file."""
    return load_file(path)


def network_config(index: dict[str, Any]) -> NetworkConfig:
    """Network size from the configurations in a transformer index."""
    config = index["config"]
    main = config["transformer"]
    names = ("num_attention_heads", "num_layers", "ffn_dim", "attention_head_dim", "in_channels", "out_channels")
    names += ("text_dim", "freq_dim", "rope_max_seq_len")
    return NetworkConfig(
        **{name: main[name] for name in names},
        num_control_layers=config["controlnet"]["num_layers"],
        num_reference_layers=config["refextractor"]["num_layers"],
    )


def network_config_of_shapes(shapes: dict[str, Any]) -> NetworkConfig:
    """Network size from a state dict's shapes; head dim and RoPE length leave no trace there."""

    def count(pattern: str) -> int:
        return len({found.group(1) for name in shapes if (found := re.match(pattern, name))})

    dim = shapes["scale_shift_table"][-1]
    head_dim = NetworkConfig.__dataclass_fields__["attention_head_dim"].default
    return NetworkConfig(
        num_attention_heads=dim // head_dim,
        num_layers=count(r"blocks\.(\d+)\."),
        ffn_dim=shapes["blocks.0.ffn.net.0.proj.weight"][0],
        num_control_layers=count(r"controlnet\.blocks\.(\d+)\."),
        num_reference_layers=count(r"refextractor\.blocks\.(\d+)\."),
        in_channels=shapes["patch_embedding.weight"][1],
        out_channels=shapes["proj_out.weight"][0] // 4,
        text_dim=shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        freq_dim=shapes["condition_embedder.time_embedder.linear_1.weight"][1],
    )


def transformer(index_path: Path, dtype: torch.dtype) -> OneToAllTransformer3DModel:
    """The network of a transformer index with its weights, strictly loaded, in evaluation mode."""
    index = _content(index_path)
    return _transformer(index_path.parent / index["weights_file"], network_config(index), dtype)


def transformer_of_weights(folder: Path, weights_file: str) -> OneToAllTransformer3DModel:
    """The network whose weights lie in ``weights_file``, in float32.

    Its size is in the index that names this file; in a folder without such an index, in the shapes of the weights.
    """
    path = needed(folder / weights_file)
    for index_path, index in index_files(folder, "weights_file", "config"):
        if index_path.parent / index["weights_file"] == path:
            return transformer(index_path, torch.float32)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors(path).items()}
    return _transformer(path, network_config_of_shapes(shapes), torch.float32)


@lru_cache(maxsize=4)
def _transformer(weights: Path, config: NetworkConfig, dtype: torch.dtype) -> OneToAllTransformer3DModel:
    with torch.device("meta"):
        model = OneToAllTransformer3DModel(**asdict(config))
    model.load_state_dict({name: tensor.float().to(dtype) for name, tensor in load_file(weights).items()}, assign=True)
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def vae_of_weights(folder: Path, weights_file: str) -> AutoencoderKLWan:
    """The VAE whose weights lie in ``weights_file``, in float32.

    Configured by the pipeline index that names this file; in a folder without pipeline runs, by the default set's.
    """
    path = needed(folder / weights_file)
    own = [index for _, index in index_files(folder, "vae_config") if index["vae_weights_file"] == weights_file]
    default = [index for _, index in index_files(COMMITTED_FOLDER, "vae_config")]
    vae = AutoencoderKLWan(**(own or default)[0]["vae_config"])
    vae.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return vae.eval().requires_grad_(False)


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference; the shapes must agree, a NaN is a NaN."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    return float((actual.double() - expected.double()).abs().max())

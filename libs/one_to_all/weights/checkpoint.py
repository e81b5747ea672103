"""Loading safetensors shards into a model made on the meta device, after checking that they fit it exactly.

All headers are checked before the first tensor is read. Tensors are then read from all shards side by side, straight to
where they stay (``reading``): the peak is the finished model and a few buffers, never two models. See
``libs.model_repo.verification.verify`` for comparing digests.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from libs.errors import ModelFilesError
from libs.model_repo.files.parameters import TensorInfo
from libs.model_repo.files.safetensors_header import StoredTensor, read_header, read_index, read_stored_tensors
from libs.model_repo.layout import INDEX_NAME
from libs.one_to_all.weights.fp8 import keeps_its_dtype
from libs.one_to_all.weights.reading import WeightSource, read_weights

SINGLE_FILE_NAME = "model.safetensors"
_SHOWN_NAMES = 5


def assign_checkpoint(
    model: nn.Module, folder: Path, device: torch.device, dtype: torch.dtype, mending_command: str
) -> None:
    """Give ``model`` (on the meta device) the weights in ``folder``: an index with its shards, or a single file.

    Parameters are then on ``device`` in ``dtype``, without gradients. Nothing refers to the files afterwards, so a file
    that changes cannot change a loaded model, and results do not depend on how tensors are aligned in it.

    Raises:
        ModelFilesError: a shard is missing, cut off or not what the index says; a parameter is missing, unknown, of
            another shape, or not finite. The message names the file and ends with ``mending_command``.
    """
    try:
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        sources = [_source(path, name, tensor, dtype) for path, name, tensor in _checked_tensors(folder, shapes)]
        model.load_state_dict(read_weights(sources, device), assign=True)
    except ModelFilesError as error:
        raise ModelFilesError(f"{error}; to repair it: `{mending_command}`") from error.__cause__
    model.requires_grad_(False)


def assign_shared_checkpoint(model: nn.Module, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give ``model`` its weights where parameters have several names, of which one is enough in the files.

    Raises:
        ModelFilesError: see :func:`assign_checkpoint`; the message does not name the command that mends it.
    """
    stored = {
        name: (folder / shard, tensor)
        for shard in sorted(set(_weight_map(folder).values()))
        for name, tensor in _stored_tensors(folder / shard).items()
    }
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    sources: dict[str, list[str]] = {}
    for group in names.values():
        found = next((name for name in group if name in stored), None)
        if found is None:
            raise ModelFilesError(f"lacks the parameter {group[0]}")
        sources[found] = group
    unexpected = sorted(stored.keys() - shapes.keys())
    if unexpected:
        raise ModelFilesError(f"holds {len(unexpected)} parameters that the model does not have: {_shown(unexpected)}")
    for name, (path, tensor) in stored.items():
        if tensor.info.shape != shapes[name]:
            raise ModelFilesError(
                f"{path}: {name} has shape {list(tensor.info.shape)}, the model needs {list(shapes[name])}"
            )
    tensors = read_weights([_source(stored[name][0], name, stored[name][1], dtype) for name in sources], device)
    model.load_state_dict({name: tensors[found] for found, group in sources.items() for name in group}, assign=True)


def tensors_of_checkpoint(folder: Path) -> dict[str, TensorInfo]:
    """Dtype and shape of every tensor in the shards of ``folder``, by name, from their headers.

    Raises:
        ModelFilesError: a shard is missing or cut off.
    """
    shards = sorted(set(_weight_map(folder).values()))
    return {name: tensor.info for shard in shards for name, tensor in _stored_tensors(folder / shard).items()}


def _stored_tensors(shard: Path) -> dict[str, StoredTensor]:
    if not shard.is_file():
        raise ModelFilesError(f"{shard}: is missing")
    return read_stored_tensors(shard)


def _source(path: Path, name: str, tensor: StoredTensor, dtype: torch.dtype) -> WeightSource:
    source = WeightSource(name, path, tensor, dtype)
    return replace(source, dtype=source.stored_dtype) if keeps_its_dtype(name, source.stored_dtype) else source


def _checked_tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> list[tuple[Path, str, StoredTensor]]:
    """Shard, name and position of every tensor, after comparing index, headers and the model's parameters."""
    weight_map = _weight_map(folder)
    missing = sorted(expected.keys() - weight_map.keys())
    if missing:
        raise ModelFilesError(f"{folder / INDEX_NAME}: lacks {len(missing)} parameters of the model: {_shown(missing)}")
    unexpected = sorted(weight_map.keys() - expected.keys())
    if unexpected:
        raise ModelFilesError(
            f"{folder / INDEX_NAME}: names {len(unexpected)} parameters that the model does not have: "
            f"{_shown(unexpected)}"
        )
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, []).append(name)
    for shard, names in shards.items():
        if not (folder / shard).is_file():
            raise ModelFilesError(f"{folder / shard}: is missing, and {INDEX_NAME} puts {len(names)} parameters there")
    tensors: list[tuple[Path, str, StoredTensor]] = []
    for shard, names in shards.items():
        path = folder / shard
        header = read_stored_tensors(path)
        if header.keys() != set(names):
            different = sorted(header.keys() ^ set(names))
            raise ModelFilesError(f"{path}: holds other parameters than {INDEX_NAME} says: {_shown(different)}")
        for name in names:
            shape = header[name].info.shape
            if shape != expected[name]:
                raise ModelFilesError(f"{path}: {name} has shape {list(shape)}, the model needs {list(expected[name])}")
            tensors.append((path, name, header[name]))
    return tensors


def _weight_map(folder: Path) -> dict[str, str]:
    index, single = folder / INDEX_NAME, folder / SINGLE_FILE_NAME
    if index.is_file():
        return read_index(index)
    if single.is_file():
        return dict.fromkeys(read_header(single), SINGLE_FILE_NAME)
    raise ModelFilesError(f"{index}: is missing")


def _shown(names: list[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")

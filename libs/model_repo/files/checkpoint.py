"""Is the checkpoint of a repository the one its variant needs? Headers and index only; no tensor is read.

See ``libs.model_repo.verification.verify`` for digests.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path

from libs.errors import ModelFilesError
from libs.files.json_file import read_json_file
from libs.model_repo.files.parameters import TensorInfo, compare_tensors
from libs.model_repo.files.repository import CONFIGURATION_NAME
from libs.model_repo.files.safetensors_header import IncompleteSafetensorsError, read_header, read_index
from libs.model_repo.layout import INDEX_NAME, RepositoryLayout
from libs.model_repo.verification.report import Problem, State

SINGLE_FILE_NAME = "model.safetensors"


def check_checkpoint(layout: RepositoryLayout) -> list[Problem]:
    """Everything that is wrong with index, shards, parameter names, shapes and dtypes; empty for a sound checkpoint.

    A checkpoint is an index with its shards, or one ``model.safetensors`` without an index.
    """
    if not layout.root.is_dir():
        return [_problem("", "incomplete", f"{layout.root}: the folder does not exist")]
    problems = _check_configuration(layout.root / CONFIGURATION_NAME)
    try:
        index = _index_of(layout)
    except IncompleteSafetensorsError as error:
        return [*problems, _problem(INDEX_NAME, "incomplete", str(error))]
    except ModelFilesError as error:
        return [*problems, _problem(INDEX_NAME, "mismatch", str(error))]
    shards = sorted(set(index.values()))
    tensors: dict[str, dict[str, TensorInfo]] = {}
    for shard in shards:
        try:
            tensors[shard] = read_header(layout.root / shard)
        except FileNotFoundError:
            problems.append(_problem(shard, "incomplete", f"{shard} is missing"))
        except IncompleteSafetensorsError as error:
            problems.append(_problem(shard, "incomplete", str(error)))
        except ModelFilesError as error:
            problems.append(_problem(shard, "mismatch", str(error)))
    problems += _check_index_against_shards(index, tensors)
    problems += _check_surplus(layout.root, shards)
    if len(tensors) == len(shards):
        problems += _check_parameters(layout, tensors)
    return problems


def _index_of(layout: RepositoryLayout) -> dict[str, str]:
    """Tensor name -> shard."""
    with suppress(FileNotFoundError):
        return read_index(layout.index)
    with suppress(FileNotFoundError):
        return dict.fromkeys(read_header(layout.root / SINGLE_FILE_NAME), SINGLE_FILE_NAME)
    raise IncompleteSafetensorsError(f"{layout.index.name} is missing")


def _check_configuration(path: Path) -> list[Problem]:
    """``configuration.json`` is a note of the hub that not every hub has; where it is, it must be JSON."""
    try:
        read_json_file(path, "configuration", path.name)
    except FileNotFoundError:
        return []
    except ModelFilesError as error:
        return [_problem(path.name, "mismatch", str(error))]
    return []


def _check_index_against_shards(index: dict[str, str], shards: dict[str, dict[str, TensorInfo]]) -> list[Problem]:
    problems = []
    for name, shard in index.items():
        if shard in shards and name not in shards[shard]:
            problems.append(_problem(shard, "mismatch", f"{shard} lacks {name}, which {INDEX_NAME} puts there"))
    for shard, tensors in shards.items():
        for name in tensors:
            if index.get(name) != shard:
                problems.append(_problem(shard, "mismatch", f"{shard} holds {name}, which {INDEX_NAME} does not say"))
    return problems


def _check_surplus(root: Path, shards: list[str]) -> list[Problem]:
    return [
        _problem(path.name, "mismatch", f"{path.name} belongs to no index; other programs would load it: remove it")
        for path in sorted(root.glob("*.safetensors"))
        if path.name not in shards and not path.name.startswith(".")
    ]


def _check_parameters(layout: RepositoryLayout, shards: dict[str, dict[str, TensorInfo]]) -> list[Problem]:
    shard_of = {name: shard for shard, tensors in shards.items() for name in tensors}
    counts = Counter(name for tensors in shards.values() for name in tensors)
    problems = [
        _problem(shard_of[name], "mismatch", f"{name} is stored in {count} shards")
        for name, count in counts.items()
        if count > 1
    ]
    found = {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}
    for difference in compare_tensors(layout.variant, found):
        shard = shard_of.get(difference.name, INDEX_NAME)
        problems.append(_problem(shard, "mismatch", f"{shard}: {difference.message}"))
    return problems


def _problem(file: str, state: State, message: str) -> Problem:
    return Problem("checkpoint", file, state, message)

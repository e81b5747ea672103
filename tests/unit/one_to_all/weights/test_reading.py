"""Tensors read by several threads in pieces: every byte at its place, every dtype, and files that fail."""

import os
import time
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import save_file

from libs.errors import ModelFilesError
from libs.model_repo.files.safetensors_header import read_stored_tensors
from libs.one_to_all.weights import reading
from libs.one_to_all.weights.reading import WeightSource, read_weights

CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Tensors of all shapes and dtypes in two files, read in pieces of 1000 bytes."""
    monkeypatch.setattr(reading, "PIECE_BYTES", 1000)
    torch.manual_seed(0)
    tensors = {
        "large": torch.randn(301, 47),
        "half": torch.randn(999).half(),
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(0, 5),
        "bfloat16": torch.randn(64, 64).bfloat16(),
        "fp8": torch.randn(70, 30).to(torch.float8_e4m3fn),
        "double": torch.randn(500).double(),
    }
    names = list(tensors)
    for number in range(2):
        save_file({name: tensors[name] for name in names[number::2]}, tmp_path / f"{number}.safetensors")
    return tmp_path, tensors


def _sources(folder, dtype=None):
    sources = [
        WeightSource(name, path, tensor, torch.float32)
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_stored_tensors(path).items()
    ]
    return [replace(source, dtype=dtype or source.stored_dtype) for source in sources]


def test_every_value_arrives(stored):
    folder, tensors = stored
    read = read_weights(_sources(folder), CPU)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].double(), tensor.double())


def test_files_are_read_in_turn_and_each_from_its_beginning_to_its_end(stored, monkeypatch):
    folder, _ = stored
    monkeypatch.setattr(reading, "READERS", 1)
    reads = []
    preadv = os.preadv

    def watched(descriptor, buffers, offset):
        reads.append((descriptor, offset))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", watched)
    read_weights(_sources(folder), CPU)
    files = {
        descriptor: [place for place, read in enumerate(reads) if read[0] == descriptor] for descriptor, _ in reads
    }
    assert len(files) == 2
    for places in files.values():
        offsets = [reads[place][1] for place in places]
        assert offsets == sorted(offsets)
    shorter = min(map(len, files.values()))
    assert shorter > 2
    assert all(reads[place][0] != reads[place + 1][0] for place in range(2 * shorter - 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_converted_as_torch_converts_them(stored, dtype):
    folder, tensors = stored
    read = read_weights(_sources(folder, dtype), CPU)
    assert all(torch.equal(read[name], tensor.to(dtype)) for name, tensor in tensors.items())


@pytest.mark.parametrize("position", [0, 600, -1])
def test_a_value_that_is_not_finite_is_found_in_any_piece(tmp_path, monkeypatch, position):
    monkeypatch.setattr(reading, "PIECE_BYTES", 1000)
    tensor = torch.randn(2000)
    tensor[position] = float("inf")
    save_file({"good": torch.randn(2000), "bad": tensor}, tmp_path / "0.safetensors")
    with pytest.raises(ModelFilesError, match=r"0\.safetensors: bad holds values that are not finite"):
        read_weights(_sources(tmp_path), CPU)


def test_a_file_that_becomes_shorter(stored):
    folder, _ = stored
    sources = _sources(folder)
    os.truncate(folder / "1.safetensors", 2000)
    open_files = psutil.Process().num_fds()
    with pytest.raises(ModelFilesError, match=r"1\.safetensors: ends inside .*while it was read"):
        read_weights(sources, CPU)
    assert psutil.Process().num_fds() == open_files


def test_a_disk_that_fails_ends_all_threads(stored, monkeypatch):
    folder, _ = stored
    preadv, sources, calls = os.preadv, _sources(folder), []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        time.sleep(0.3)  # long enough for the others to hear of it
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", fail_once)
    with pytest.raises(ModelFilesError, match=r"safetensors: cannot be read .*Input/output error"):
        read_weights(sources, CPU)
    assert len(calls) < 5 * reading.READERS  # of 75


def test_finite_values_with_an_infinite_sum_are_read(tmp_path):
    save_file({"large": torch.full((2000,), 3e38)}, tmp_path / "0.safetensors")
    assert (read_weights(_sources(tmp_path), CPU)["large"] == 3e38).all()


def test_short_reads_are_continued(stored, monkeypatch):
    folder, tensors = stored
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, offset: preadv(file, [views[0][:77]], offset))
    read = read_weights(_sources(folder), CPU)
    assert all(torch.equal(read[name].double(), tensor.double()) for name, tensor in tensors.items())


def test_whole_numbers_are_refused_before_anything_is_read(stored):
    folder, _ = stored
    source = _sources(folder)[0]
    whole = replace(source, stored=source.stored._replace(info=source.stored.info._replace(dtype="I32")))
    with pytest.raises(ModelFilesError, match=r"is torch\.int32, not a floating point tensor"):
        read_weights([whole], CPU)

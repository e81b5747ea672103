"""Headers against the safetensors library, and headers that lie."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from libs.errors import ModelFilesError
from libs.model_repo.files.parameters import TensorInfo
from libs.model_repo.files.safetensors_header import IncompleteSafetensorsError, read_header, read_index


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"x": np.zeros((2, 3), np.float32), "y": np.zeros((), np.int64), "z": np.zeros((0, 4), np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    assert read_header(path) == {
        "x": TensorInfo("F32", (2, 3)),
        "y": TensorInfo("I64", ()),
        "z": TensorInfo("F16", (0, 4)),
    }


@given(st.data())
def test_every_truncation_and_every_growth_shows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = save({"x": np.arange(10, dtype=np.float32), "y": np.ones((3, 3), np.float16)})
    path = tmp_path_factory.mktemp("header") / "a.safetensors"
    keep = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:keep])
    with pytest.raises(IncompleteSafetensorsError):
        read_header(path)
    path.write_bytes(content + b"\0" * data.draw(st.integers(1, 9)))
    with pytest.raises(ModelFilesError, match="announces only"):
        read_header(path)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_header_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("header") / "a.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)
    except ModelFilesError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]},
        {"dtype": "F32", "shape": "no", "data_offsets": [0, 8]},
        {"shape": [2]},
        [],
    ],
)
def test_a_contradictory_entry_is_an_error(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelFilesError):
        read_header(path)


def test_an_index_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"weight_map": {"x": "../other.safetensors"}}))
    with pytest.raises(ModelFilesError, match="plain file name"):
        read_index(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', b"\xff\xfe"])
def test_a_broken_index_is_an_error(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelFilesError):
        read_index(path)

"""Graph signatures against the onnx package, truncation, and weights in other files."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.errors import ModelFilesError
from libs.model_repo.files.onnx_graph import IncompleteOnnxError, read_onnx_graph


def test_gives_the_shapes_the_package_gives(tmp_path: Path, graph_writer: Callable[..., None]) -> None:
    path = tmp_path / "graph.onnx"
    graph_writer(path, [1, 3, 8, 8], [1, 40000])
    graph = read_onnx_graph(path)
    assert graph.inputs == {"input": (1, 3, 8, 8)}
    assert graph.outputs == {"output": (1, 40000)}
    assert graph.node_count == len(onnx.load(str(path)).graph.node)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60, deadline=None
)
@given(st.floats(0, 1, exclude_max=True))
def test_every_truncation_shows(tmp_path: Path, graph_writer: Callable[..., None], part: float) -> None:
    path = tmp_path / "graph.onnx"
    if not path.is_file():
        graph_writer(path, [1, 3, 8, 8], [1, 40000])
    content = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    # a file may end after the graph: what follows it (the operator set) is a few bytes and optional in the format
    cut.write_bytes(content[: int(part * (len(content) - 16))])
    with pytest.raises(ModelFilesError, match=str(cut)):
        read_onnx_graph(cut)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_any_bytes_give_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFilesError, match=str(path)):
        read_onnx_graph(path)


def test_external_weights_must_be_there_and_long_enough(tmp_path: Path, graph_writer: Callable[..., None]) -> None:
    path = tmp_path / "graph.onnx"
    graph_writer(path, [1, 3, 8, 8], [1, 40000], external=True)
    assert read_onnx_graph(path).external_files == {"weights.bin": 160000}
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(IncompleteOnnxError, match=r"weights\.bin: has 159,999 bytes"):
        read_onnx_graph(path)
    weights.unlink()
    with pytest.raises(IncompleteOnnxError, match=r"weights\.bin: is missing"):
        read_onnx_graph(path)

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from libs.errors import DeviceError, ModelFilesError
from libs.pose.networks.sessions import NetworkSession

SIZE = (8, 6)


def _graph(path, batch, constant_batch=None, element=TensorProto.FLOAT, shape=None):
    """A graph that gives each picture's values doubled; with ``constant_batch`` it only works for that many."""
    inputs = helper.make_tensor_value_info("images", element, shape or [batch, 3, *SIZE])
    outputs = helper.make_tensor_value_info("out", element, None)
    nodes = [helper.make_node("Add", ["images", "images"], ["sum"])]
    constants = []
    if constant_batch:
        constants = [helper.make_tensor("shape", TensorProto.INT64, [2], [constant_batch, 3 * SIZE[0] * SIZE[1]])]
        nodes.append(helper.make_node("Reshape", ["sum", "shape"], ["out"]))
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["out"]))
    graph = helper.make_graph(nodes, "double", [inputs], [outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 3, *SIZE), dtype=np.float32)


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize("batch", ["batch", 1, 2, 4])
def test_any_batch_axis_gives_the_same(tmp_path, images, batch, bind):
    session = NetworkSession(_graph(tmp_path / "net.onnx", batch), SIZE, bind=bind)
    np.testing.assert_array_equal(session.run(images), images * 2)
    assert session.fixed_batch == (None if batch == "batch" else batch)


@pytest.mark.parametrize("bind", [False, True])
def test_free_batch_axis_that_is_not_free(tmp_path, images, caplog, bind):
    session = NetworkSession(_graph(tmp_path / "net.onnx", "batch", constant_batch=1), SIZE, bind=bind)
    np.testing.assert_array_equal(session.run(images), images.reshape(5, -1) * 2)
    assert session.fixed_batch == 1
    assert "one by one" in caplog.text


def test_bound_results_are_not_reused_by_the_session(tmp_path, images):
    """Input memory is kept from run to run; what an earlier run gave must not change with the next."""
    session = NetworkSession(_graph(tmp_path / "net.onnx", "batch"), SIZE, bind=True)
    first = session.run(images)
    second = session.run(images + 1)
    fewer = session.run(images[:2])
    np.testing.assert_array_equal(first, images * 2)
    np.testing.assert_array_equal(second, (images + 1) * 2)
    np.testing.assert_array_equal(fewer, images[:2] * 2)
    strided = np.repeat(images, 2, axis=0)[::2]
    np.testing.assert_array_equal(session.run(strided), images * 2)


def test_bound_on_cuda_only_unless_asked(tmp_path):
    session = NetworkSession(_graph(tmp_path / "net.onnx", "batch"), SIZE)
    assert session.provider == "CPUExecutionProvider"
    assert session._bound is None


@pytest.mark.parametrize("bind", [False, True])
def test_half_precision_input(tmp_path, images, bind):
    session = NetworkSession(_graph(tmp_path / "net.onnx", "batch", element=TensorProto.FLOAT16), SIZE, bind=bind)
    result = session.run(images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, images * 2, rtol=2e-3)


@pytest.mark.parametrize("bind", [False, True])
def test_graph_that_cannot_run_at_all(tmp_path, images, bind):
    session = NetworkSession(_graph(tmp_path / "net.onnx", 1, constant_batch=7), SIZE, bind=bind)
    with pytest.raises(ModelFilesError, match=r"net\.onnx"):
        session.run(images)


@pytest.mark.parametrize("shape", [[1, 3, 9, 6], [1, 4, 8, 6], [1, 144]])
def test_other_input_is_refused(tmp_path, shape):
    with pytest.raises(ModelFilesError, match=r"net\.onnx.*3, 8, 6"):
        NetworkSession(_graph(tmp_path / "net.onnx", 1, shape=shape), SIZE)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(ModelFilesError, match="is missing"):
        NetworkSession(tmp_path / "none.onnx", SIZE)
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelFilesError, match=r"bad\.onnx"):
        NetworkSession(tmp_path / "bad.onnx", SIZE)


def test_cuda_that_is_not_there_is_an_error(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="ONE_TO_ALL_DEVICE"):
        NetworkSession(_graph(tmp_path / "net.onnx", 1), SIZE, "cuda")


def test_unknown_device(tmp_path):
    with pytest.raises(DeviceError, match="tpu"):
        NetworkSession(_graph(tmp_path / "net.onnx", 1), SIZE, "tpu")


@pytest.mark.gpu
def test_cuda_is_really_used(tmp_path, images):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    session = NetworkSession(_graph(tmp_path / "net.onnx", "batch"), SIZE, "cuda")
    assert session.provider == "CUDAExecutionProvider"
    np.testing.assert_array_equal(session.run(images), images * 2)

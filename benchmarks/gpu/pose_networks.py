"""The pose networks at full size with random weights: in batches through IO bindings, against one frame at a time.

ViTPose-H is built as it is: 32 blocks of width 1280, two transposed convolutions, 133 heatmaps. In place of YOLOv10m
stands a chain of convolutions of the same arithmetic (59 GFLOP a frame, as its authors give it). Weights are stored in
float16 and widened when a graph is opened, which keeps a file below protobuf's 2 GB. What does not belong here:
decoding, drawing (``benchmarks/pose.py``).
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from measuring.part_run import PartRun
from measuring.record import Figure
from onnx import TensorProto, helper, numpy_helper

from libs.pose.networks.sessions import NetworkSession, prepare_cuda

ROUNDS = 5
_BATCH = 8
_VIT = {"blocks": 32, "width": 1280, "heads": 16, "channels": 256}
_SMALL_VIT = {"blocks": 2, "width": 32, "heads": 2, "channels": 16}
_HEATMAPS = 133
_PATCH = 16
_DETECTOR_CHANNELS = (48, 96, 192, 384, 576)
_DETECTOR_DEPTH = (1, 4, 5, 5, 3)
"""3x3 convolutions behind each halving of the 640 x 640 input: 59 GFLOP together, counted."""


class _Graph:
    """Collects nodes and random weights; every method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def numbers(self, values: object, dtype: type = np.int64) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """Random, as small as what it is applied to asks for."""
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        values = self._random.standard_normal(shape, dtype=np.float32) * fan_in**-0.5
        return self.node("Cast", self.numbers(values, np.float16), to=TensorProto.FLOAT)

    def linear(self, states: str, inputs: int, outputs: int) -> str:
        return self.node("MatMul", states, self.weight(inputs, outputs))

    def normed(self, states: str, width: int) -> str:
        ones, zeros = self.numbers(np.ones(width), np.float32), self.numbers(np.zeros(width), np.float32)
        return self.node("LayerNormalization", states, ones, zeros, axis=-1)

    def bytes(self, side: tuple[int, int], output: str) -> bytes:
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *side])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def vitpose(blocks: int, width: int, heads: int, channels: int) -> bytes:
    """[N, 3, 256, 192] -> heatmaps [N, 133, 64, 48]."""
    graph, head = _Graph(0), width // heads
    states = graph.node("Conv", "input", graph.weight(width, 3, _PATCH, _PATCH), strides=[_PATCH, _PATCH])
    states = graph.node("Reshape", states, graph.numbers([0, width, -1]))
    states = graph.node("Transpose", states, perm=[0, 2, 1])
    split = graph.numbers([0, 0, heads, head])
    for _ in range(blocks):
        normed = graph.normed(states, width)
        query, key, value = (graph.node("Reshape", graph.linear(normed, width, width), split) for _ in range(3))
        query, value = (graph.node("Transpose", one, perm=[0, 2, 1, 3]) for one in (query, value))
        scores = graph.node("MatMul", query, graph.node("Transpose", key, perm=[0, 2, 3, 1]))
        scores = graph.node("Mul", scores, graph.numbers(head**-0.5, np.float32))
        attended = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        attended = graph.node("Transpose", attended, perm=[0, 2, 1, 3])
        attended = graph.node("Reshape", attended, graph.numbers([0, 0, width]))
        states = graph.node("Add", states, graph.linear(attended, width, width))
        hidden = graph.node("Gelu", graph.linear(graph.normed(states, width), width, 4 * width))
        states = graph.node("Add", states, graph.linear(hidden, 4 * width, width))
    states = graph.node("Transpose", graph.normed(states, width), perm=[0, 2, 1])
    states = graph.node("Reshape", states, graph.numbers([0, width, 256 // _PATCH, 192 // _PATCH]))
    for inputs in (width, channels):
        weight = graph.weight(inputs, channels, 4, 4)
        states = graph.node("Relu", graph.node("ConvTranspose", states, weight, strides=[2, 2], pads=[1, 1, 1, 1]))
    states = graph.node("Conv", states, graph.weight(_HEATMAPS, channels, 1, 1))
    return graph.bytes((256, 192), states)


def detector(scale: float = 1.0) -> bytes:
    """[N, 3, 640, 640] -> feature maps; ``scale`` of the channels."""
    graph, states, inputs = _Graph(1), "input", 3
    for channels, depth in zip((max(8, int(scale * one)) for one in _DETECTOR_CHANNELS), _DETECTOR_DEPTH, strict=True):
        for index in range(depth):
            stride = 2 if index == 0 else 1
            weight = graph.weight(channels, inputs, 3, 3)
            states = graph.node("Conv", states, weight, strides=[stride, stride], pads=[1, 1, 1, 1])
            states, inputs = graph.node("Mul", states, graph.node("Sigmoid", states)), channels
    return graph.bytes((640, 640), states)


def _network(run: PartRun, name: str, make: Callable[[], bytes], side: tuple[int, int]) -> Iterator[Figure]:
    if run.device.type == "cuda":
        prepare_cuda(str(run.device))  # an installation for the CPU says so before a graph of a gigabyte is made
    content = make()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.onnx")
        path.write_bytes(content)
        ours = NetworkSession(path, side, str(run.device), bind=True)
        plain = NetworkSession(path, side, str(run.device), bind=False)
    images = np.random.default_rng(0).standard_normal((_BATCH, 3, *side), dtype=np.float32)
    first = run.clock.wall(lambda: ours.run(images))
    other = run.clock.wall(lambda: ours.run(images[:-3]))
    different = np.abs(ours.run(images) - np.concatenate([plain.run(one[None]) for one in images])).max()
    largest = float(np.abs(plain.run(images[:1])).max())
    calls = {
        "ours": lambda: ours.run(images),
        "batches": lambda: plain.run(images),
        "plain": lambda: [plain.run(one[None]) for one in images],
    }
    seconds = {way: timing.median / _BATCH for way, timing in run.clock.timings(calls).items()}
    yield Figure(f"{name}, a batch of {_BATCH}, bound", 1000 * seconds["ours"], "ms a frame")
    yield Figure(f"… without binding over with, {name}", seconds["batches"] / seconds["ours"], "times")
    yield Figure(f"… one frame at a time over ours, {name}", seconds["plain"] / seconds["ours"], "times")
    yield Figure(f"… first batch, {name}", first, "s", note=f"a batch of another size {other:.2f} s")
    yield Figure(f"… largest difference, of the largest value, {name}", float(different) / largest)


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    vit, scale = (_SMALL_VIT, 0.1) if run.small else (_VIT, 1.0)
    run.record.take("ViTPose-H", lambda: _network(run, "ViTPose-H", lambda: vitpose(**vit), (256, 192)))
    run.record.take("detector", lambda: _network(run, "detector", lambda: detector(scale), (640, 640)))

"""Two small ONNX networks with the interfaces of YOLOv10 and ViTPose that really find a puppet's coloured markers.

Nothing is trained: the detector boxes everything that has a marker's colour, the pose network takes, for each of 24
anchors, the centroid of its colour around the place where that colour is densest, extends the anchors to 133
key-points with the matrices of ``keypoints`` (one linear layer), and renders a Gaussian per key-point, whose logarithm
the pose stage's decoding inverts exactly. Weights are colours and matrices. What does not belong here: onnxruntime,
crops and decoding (``libs.pose``).

Interfaces (docs/specification.md#detector, #crop and #heatmap-decoding):

- detector: ``images`` float32 [N,3,640,640] RGB in [0,1] -> ``output0`` [N,300,6], rows x1,y1,x2,y2,score,class;
- pose: ``input`` float32 [N,3,256,192], channels B,G,R normalised with the statistics of R,G,B ->
  ``heatmaps`` [N,133,64,48]; heat-map cell i stands for crop pixel 4i.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from libs.sandbox.keypoints import ANCHOR_COUNT, KEYPOINT_COUNT, keypoint_map
from libs.sandbox.markers import MARKER_COLOURS, MATCH_DISTANCE, RGB_TO_YCBCR
from libs.sandbox.puppet import DRIVER, full_figure, puppet_anchors
from libs.sandbox.skeleton import Pose

_OPSET = 17
_IR_VERSION = 8

DETECTOR_SIZE = 640
DETECTION_ROWS = 300
CROP_HEIGHT, CROP_WIDTH = 256, 192
CELL = 4
"""Crop pixels per heat-map cell."""

_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])
_HEATMAP_SIGMA = 2.0  # cells, as in ViTPose's training targets
_SMOOTHING = 5  # pixels: side of the square in which a colour must be dense
_CROP_OFFSET = 0.25
"""Added to crop positions. Cropping maps pixel centres (frame + 0.5 to crop + 0.5), decoding maps pixel indices; for a
person k times the crop's size they differ by (k - 1) / 2k crop pixels, between 0 and 0.5. A trained network learns the
average of it."""
_COVERED = 0.3  # local mean above which a pixel counts as part of a marker, for the detector
_CENTROID_REACH = 5.0  # pixels around the densest place that count for the centroid
_FULL_SCORE_MASS = 3.0  # so many well matching pixels make a marker certain
_SCORE_SEEN, _SCORE_UNSEEN = 1.0, 0.03
_LEAST_CONTRAST = 0.2  # of 1: brightest minus darkest value
_GUESS_SCORE = 0.06  # the pose stage drops what scores 0.05 or less


class _GraphBuilder:
    """Collects nodes and constants; every method returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def reduce_sum(self, values: str, axes: Sequence[int], keepdims: int = 1) -> str:
        """ReduceSum takes its axes as an input since opset 13."""
        return self.node("ReduceSum", values, self.constant(axes, np.int64), keepdims=keepdims)

    def model(self, name: str, inputs: tuple[str, list[int | str]], outputs: tuple[str, list[int | str]]) -> bytes:
        """The checked model, serialised deterministically."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, inputs[1])],
            [helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, outputs[1])],
            self._constants,
        )
        model = helper.make_model(
            graph, producer_name="sandbox", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def _closeness(graph: _GraphBuilder, image: str, matrix: np.ndarray, offset: np.ndarray) -> str:
    """How well each pixel matches each marker colour: [N,24,H,W] in [0,1], 0 beyond ``MATCH_DISTANCE``.

    ``matrix`` and ``offset`` take the channels of ``image`` to Y'CbCr. The squared distance to colour c is
    |y|^2 - 2 c.y + |c|^2: one 1x1 convolution for all colours.
    """
    colours = MARKER_COLOURS / 255.0 @ RGB_TO_YCBCR.T
    ycbcr = graph.node("Conv", image, graph.constant(matrix[:, :, None, None]), graph.constant(offset))
    squared_norm = graph.reduce_sum(graph.node("Mul", ycbcr, ycbcr), [1])
    weights = graph.constant(-2.0 * colours[:, :, None, None])
    cross = graph.node("Conv", ycbcr, weights, graph.constant((colours**2).sum(axis=1)))
    squared_distance = graph.node("Add", cross, squared_norm)
    scaled = graph.node("Mul", squared_distance, graph.constant(-1.0 / MATCH_DISTANCE**2))
    return graph.node("Relu", graph.node("Add", scaled, graph.constant(1.0)))


def _dense(graph: _GraphBuilder, closeness: str) -> str:
    """Local mean of the closeness: large inside a marker, small on a thin edge that happens to have its colour."""
    side, pad = _SMOOTHING, _SMOOTHING // 2
    return graph.node(
        "AveragePool", closeness, kernel_shape=[side, side], pads=[pad] * 4, strides=[1, 1], count_include_pad=1
    )


def pose_network() -> bytes:
    """The pose network as a serialised ONNX model."""
    graph = _GraphBuilder()
    # undo the normalisation, and reorder B,G,R: v = x * std + mean, then Y'CbCr of the reversed channels
    matrix = RGB_TO_YCBCR[:, ::-1]
    closeness = _closeness(graph, "input", matrix * _STD[None, :], matrix @ _MEAN)
    anchors, certainty = _anchor_positions(graph, closeness)

    keypoints = keypoint_map()
    flipped = graph.node("Gather", anchors, graph.constant([1, 0], np.int64), axis=2)
    turned = graph.node("Mul", flipped, graph.constant([-1.0, 1.0]))
    positions = graph.node(
        "Add",
        graph.node("MatMul", graph.constant(keypoints.affine), anchors),
        graph.node("MatMul", graph.constant(keypoints.turned), turned),
    )
    support = graph.node("Gather", certainty, graph.constant(keypoints.support, np.int64), axis=1)  # [N,133,4]
    least = graph.node("ReduceMin", support, axes=[2], keepdims=1)  # [N,133,1]
    score = graph.node(
        "Add",
        graph.node("Mul", least, graph.constant(_SCORE_SEEN - _SCORE_UNSEEN)),
        graph.constant(_SCORE_UNSEEN),
    )

    height, width = CROP_HEIGHT // CELL, CROP_WIDTH // CELL
    across = _bell(graph, positions, 0, width, [1, 1, width])  # [N,133,48]
    along = _bell(graph, positions, 1, height, [1, 1, height])  # [N,133,64]
    along = graph.node("Mul", along, score)
    graph.node(
        "Mul",
        graph.node("Unsqueeze", along, graph.constant([3], np.int64)),
        graph.node("Unsqueeze", across, graph.constant([2], np.int64)),
        output="heatmaps",
    )
    return graph.model(
        "sandbox_pose",
        ("input", ["batch", 3, CROP_HEIGHT, CROP_WIDTH]),
        ("heatmaps", ["batch", KEYPOINT_COUNT, height, width]),
    )


def _anchor_positions(graph: _GraphBuilder, closeness: str) -> tuple[str, str]:
    """Crop positions [N,24,2] (x, y) of the anchors and how certain each is, [N,24] in [0,1]."""
    flat = graph.node("Reshape", _dense(graph, closeness), graph.constant([0, ANCHOR_COUNT, -1], np.int64))
    densest = graph.node("ArgMax", flat, axis=2, keepdims=1)  # [N,24,1]
    width = graph.constant(CROP_WIDTH, np.int64)
    peak_x = graph.node("Cast", graph.node("Mod", densest, width), to=TensorProto.FLOAT)
    peak_y = graph.node("Cast", graph.node("Div", densest, width), to=TensorProto.FLOAT)

    columns, rows = np.arange(CROP_WIDTH), np.arange(CROP_HEIGHT)
    near_x = _near(graph, peak_x, columns)  # [N,24,192]
    near_y = _near(graph, peak_y, rows)  # [N,24,256]
    rows_near = graph.node("Unsqueeze", near_y, graph.constant([3], np.int64))
    columns_near = graph.node("Unsqueeze", near_x, graph.constant([2], np.int64))
    local = graph.node("Mul", graph.node("Mul", closeness, rows_near), columns_near)
    over_columns = graph.reduce_sum(local, [2], keepdims=0)  # [N,24,192]
    over_rows = graph.reduce_sum(local, [3], keepdims=0)  # [N,24,256]
    mass = graph.reduce_sum(over_columns, [2])  # [N,24,1]

    # a colour that is nowhere to be seen falls back to where that joint of a standing figure would be
    little = 1e-3
    divisor = graph.node("Add", mass, graph.constant(little))
    resting = _resting_anchors() * little
    coordinates = []
    for axis, (profile, places) in enumerate(((over_columns, columns), (over_rows, rows))):
        moment = graph.reduce_sum(graph.node("Mul", profile, graph.constant(places)), [2])
        moment = graph.node("Add", moment, graph.constant(resting[:, axis][None, :, None]))
        coordinates.append(graph.node("Div", moment, divisor))
    certainty = graph.node(
        "Clip",
        graph.node("Mul", mass, graph.constant(1.0 / _FULL_SCORE_MASS)),
        graph.constant(0.0),
        graph.constant(1.0),
    )
    return graph.node("Concat", *coordinates, axis=2), graph.node("Squeeze", certainty, graph.constant([2], np.int64))


def _near(graph: _GraphBuilder, centre: str, places: np.ndarray) -> str:
    """1 where a pixel index is within reach of ``centre`` [N,24,1], else 0: [N,24,len(places)]."""
    away = graph.node("Abs", graph.node("Sub", graph.constant(places[None, None]), centre))
    return graph.node("Cast", graph.node("LessOrEqual", away, graph.constant(_CENTROID_REACH)), to=TensorProto.FLOAT)


def _bell(graph: _GraphBuilder, positions: str, axis: int, cells: int, shape: list[int]) -> str:
    """One factor of the Gaussians: [N,133,cells]."""
    centre = graph.node("Gather", positions, graph.constant([axis], np.int64), axis=2)  # [N,133,1]
    centre = graph.node("Add", centre, graph.constant(_CROP_OFFSET))
    centre = graph.node("Mul", centre, graph.constant(1.0 / CELL))
    away = graph.node("Sub", graph.constant(np.arange(cells).reshape(shape)), centre)
    exponent = graph.node("Mul", graph.node("Mul", away, away), graph.constant(-0.5 / _HEATMAP_SIGMA**2))
    return graph.node("Exp", exponent)


def _resting_anchors() -> np.ndarray:
    """Crop positions of a standing driver puppet's anchors, [24, 2]."""
    return puppet_anchors(DRIVER, Pose(), full_figure(DRIVER, CROP_WIDTH, CROP_HEIGHT, fill=0.8))


def detection_network() -> bytes:
    """The detector as a serialised ONNX model: one row for the puppet, the other 299 empty.

    A picture of something else than a puppet gets a row for the whole picture, just above the pose stage's threshold:
    the sandbox takes any picture with some contrast for one of a person, so that real media run through the graph.
    """
    graph = _GraphBuilder()
    half = graph.node("AveragePool", "images", kernel_shape=[2, 2], strides=[2, 2])
    closeness = _closeness(graph, half, RGB_TO_YCBCR, np.zeros(3))
    any_marker = graph.node("ReduceMax", _dense(graph, closeness), axes=[1], keepdims=0)  # [N,320,320]
    size = DETECTOR_SIZE // 2
    low_x, high_x = _extent(graph, any_marker, 1, size)
    low_y, high_y = _extent(graph, any_marker, 2, size)
    width, height = graph.node("Sub", high_x, low_x), graph.node("Sub", high_y, low_y)

    def moved(edge: str, extent: str, share: float) -> str:
        shifted = graph.node("Add", edge, graph.node("Mul", extent, graph.constant(share)))
        inside = graph.node("Clip", shifted, graph.constant(0.0), graph.constant(float(size)))
        return graph.node("Mul", inside, graph.constant(2.0))

    # markers end at the eyes and toes; head, fingers and soles reach further
    edges = [
        moved(low_x, width, -0.06),
        moved(low_y, height, -0.19),
        moved(high_x, width, 0.06),
        moved(high_y, height, 0.06),
    ]
    found = graph.node("Greater", graph.node("Min", width, height), graph.constant(0.0))
    brightest, darkest = (
        graph.node(operator, "images", axes=[1, 2, 3], keepdims=0) for operator in ("ReduceMax", "ReduceMin")
    )
    contrast = graph.node("Sub", brightest, darkest)  # [N]
    something = graph.node("Greater", contrast, graph.constant(_LEAST_CONTRAST))
    something = graph.node("Unsqueeze", something, graph.constant([1], np.int64))
    guess = graph.node("Where", something, graph.constant(_GUESS_SCORE), graph.constant(0.0))
    score = graph.node("Where", found, graph.constant(0.92), guess)
    whole = (0.0, 0.0, float(DETECTOR_SIZE), float(DETECTOR_SIZE))
    edges = [graph.node("Where", found, edge, graph.constant(limit)) for edge, limit in zip(edges, whole, strict=True)]
    person = graph.node("Mul", score, graph.constant(0.0))  # class 0
    row = graph.node("Concat", *edges, score, person, axis=1)  # [N,6]
    row = graph.node("Unsqueeze", row, graph.constant([1], np.int64))
    graph.node("Pad", row, graph.constant([0, 0, 0, 0, DETECTION_ROWS - 1, 0], np.int64), output="output0")
    return graph.model(
        "sandbox_detector",
        ("images", ["batch", 3, DETECTOR_SIZE, DETECTOR_SIZE]),
        ("output0", ["batch", DETECTION_ROWS, 6]),
    )


def _extent(graph: _GraphBuilder, density: str, reduced_axis: int, size: int) -> tuple[str, str]:
    """First and last pixel [N,1] along the other axis that a marker covers; last <= first where there is none."""
    profile = graph.node("ReduceMax", density, axes=[reduced_axis], keepdims=0)  # [N,size]
    covered = graph.node("Greater", profile, graph.constant(_COVERED))
    places = graph.constant(np.arange(size)[None])
    first = graph.node("Where", covered, places, graph.constant(float(size)))
    last = graph.node("Where", covered, places, graph.constant(0.0))
    return (
        graph.node("ReduceMin", first, axes=[1], keepdims=1),
        graph.node("ReduceMax", last, axes=[1], keepdims=1),
    )


def pass_through_network() -> bytes:
    """A valid network that does nothing, for files of the upstream layout that nothing here runs (DWPose)."""
    graph = _GraphBuilder()
    graph.node("Identity", "input", output="output")
    return graph.model("sandbox_pass_through", ("input", ["batch", 3, 8, 8]), ("output", ["batch", 3, 8, 8]))

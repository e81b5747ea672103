"""The sandbox's person detector and whole-body pose network, with the interfaces of YOLOv10 and ViTPose.

Both are small U-shaped networks. The detector marks the middle of each figure on a grid and says how far its edges
are; the pose network gives one heat map per key-point. ``export`` writes them as ONNX with weights in half precision.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from libs.files.atomic_write import atomic_write
from libs.pose.keypoints import WHOLEBODY_COUNT
from libs.pose.networks.crop import INPUT_HEIGHT, INPUT_WIDTH
from libs.pose.networks.detector import INPUT_SIZE

DETECTION_ROWS = 300
GRID = 32
"""Cells of the detector's grid along each side."""
SMALL_SIZE = 128
"""The detector looks at its input reduced to this many pixels along each side."""

_OPSET = 17
_MIXED = 64  # key-points lie too close for fewer: a map is a mixture of these
_SELDOM = -3.0  # logit: one cell in twenty
_QUARTER = -1.26  # softplus of it is 0.25


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


def _bias(layer: nn.Conv2d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x plus what two convolutions make of it."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class _UShape(nn.Module):
    """Pictures [B, 3, H, W] -> features [B, widths[0], H/4, W/4]."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, widths[0], 6, 4, 1)
        self.down = nn.ModuleList(_convolution(a, b, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.before = nn.ModuleList(_Residual(width) for width in widths)
        self.after = nn.ModuleList(_Residual(width) for width in widths[:-1])

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Down to the coarsest grid and up again, adding what was seen on the way."""
        x = F.relu(self.patches(pictures))
        seen = []
        for block, sampler in zip(self.before, self.down, strict=False):
            x = block(x)
            seen.append(x)
            x = F.relu(sampler(x))
        x = self.before[-1](x)
        for block, sampler in zip(reversed(list(self.after)), reversed(list(self.up)), strict=True):
            x = block(seen.pop() + F.interpolate(sampler(x), scale_factor=2.0, mode="nearest"))
        return x


class PoseNetwork(nn.Module):
    """Crops [B, 3, 256, 192] as the pose stage normalises them -> heat maps [B, 133, 64, 48]."""

    def __init__(self, widths: tuple[int, ...] = (32, 48, 80, 112)) -> None:
        super().__init__()
        self.body = _UShape(widths)
        self.mix = nn.Conv2d(widths[0], _MIXED, 1)
        self.head = nn.Conv2d(_MIXED, WHOLEBODY_COUNT, 1)
        with torch.no_grad():  # silent at first: most of a map is zero
            self.head.weight.mul_(0.05)
            _bias(self.head).zero_()

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Heat maps: about 1 where a key-point is, 0 where it cannot be."""
        maps: torch.Tensor = self.head(F.relu(self.mix(self.body(crops))))
        return maps


class Detector(nn.Module):
    """Pictures [B, 3, 640, 640] in 0..1 -> rows x1, y1, x2, y2, score, class [B, 300, 6]."""

    def __init__(self, widths: tuple[int, ...] = (24, 32, 48, 80)) -> None:
        super().__init__()
        self.body = _UShape(widths)
        self.head = nn.Conv2d(widths[0], 5, 1)
        with torch.no_grad():  # at first nobody is anywhere, and a box has half the picture's size
            self.head.weight.mul_(0.1)
            _bias(self.head).copy_(torch.tensor([_SELDOM, *[_QUARTER] * 4]))

    def grid(self, small: torch.Tensor) -> torch.Tensor:
        """Small pictures [B, 3, 128, 128] -> [B, 5, 32, 32]: logit of a middle, then its distances to the box's
        left, upper, right and lower edge, in parts of the picture."""
        raw = self.head(self.body(2 * small - 1))
        return torch.cat((raw[:, :1], F.softplus(raw[:, 1:])), dim=1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The boxes with the highest scores; places beside a higher score have none."""
        grid = self.grid(F.avg_pool2d(pictures, INPUT_SIZE // SMALL_SIZE))
        score = torch.sigmoid(grid[:, :1])
        peak = (score >= F.max_pool2d(score, 3, 1, 1)).to(score.dtype)
        best, place = (score * peak).flatten(1).topk(DETECTION_ROWS, dim=1)
        middle = (torch.arange(GRID, dtype=score.dtype) + 0.5) / GRID
        x, y = middle.view(1, 1, -1).expand(1, GRID, GRID), middle.view(1, -1, 1).expand(1, GRID, GRID)
        left, top, right, bottom = grid[:, 1:].unbind(1)
        edges = torch.stack((x - left, y - top, x + right, y + bottom), dim=-1).flatten(1, 2).clamp(0, 1) * INPUT_SIZE
        boxes = edges.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
        return torch.cat((boxes, best.unsqueeze(-1), torch.zeros_like(best).unsqueeze(-1)), dim=-1)


def export(network: nn.Module, path: Path) -> None:
    """Write ``network`` as ONNX; weights in half precision, computed in single."""
    pose = isinstance(network, PoseNetwork)
    shape = (1, 3, INPUT_HEIGHT, INPUT_WIDTH) if pose else (1, 3, INPUT_SIZE, INPUT_SIZE)
    name, output = ("input", "heatmaps") if pose else ("images", "output0")
    with atomic_write(path) as temporary:
        torch.onnx.export(
            network.eval(),
            (torch.zeros(shape),),
            temporary,
            input_names=[name],
            output_names=[output],
            dynamic_axes={name: {0: "batch"}, output: {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
            # batch norms stay apart, so that training can go on from the file; onnxruntime joins them when it loads
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        model = onnx.load(temporary)
        _halve_weights(model.graph)
        onnx.checker.check_model(model, full_check=True)
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Store the weights as float16, each behind a cast to float32."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

"""Are the pose networks of a repository there, and do their graphs have the interfaces the pose stage uses?

See ``libs.pose.networks`` for running them.
"""

from collections.abc import Callable
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.files.onnx_graph import Extent, IncompleteOnnxError, OnnxGraph, read_onnx_graph
from libs.model_repo.files.repository import detector_name, pose_estimator_name, pretrained_name
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.report import Problem, State

_DETECTOR_INPUT = (None, 3, 640, 640)
_POSE_INPUT = (None, 3, 256, 192)
_HEATMAPS = (None, 133, 64, 48)


def check_pose_models(layout: RepositoryLayout) -> list[Problem]:
    """Everything that is wrong with the three sets of ONNX files; empty when they are sound.

    The DWPose networks are part of the upstream layout but nothing here runs them: a variant made by code need not have
    them.
    """
    problems = _check_graph(detector_name(), layout.detector, _detector_interface)
    problems += _check_graph(pose_estimator_name(layout), layout.pose_estimator, _pose_interface)
    networks = sorted(layout.dwpose.glob("*.onnx")) if layout.dwpose.is_dir() else []
    if not networks and not layout.variant.made_by_code and not _base_is_made_by_code(layout):
        problems.append(_problem(pretrained_name("DWPose"), "incomplete", "DWPose/*.onnx is missing"))
    for path in networks:
        problems += _check_graph(pretrained_name("DWPose", path.name), path, lambda _: None)
    return problems


def _base_is_made_by_code(layout: RepositoryLayout) -> bool:
    return layout.variant.base == "sandbox"


def _check_graph(name: str, path: Path, interface: Callable[[OnnxGraph], str | None]) -> list[Problem]:
    try:
        graph = read_onnx_graph(path)
    except FileNotFoundError:
        return [_problem(name, "incomplete", f"{name} is missing")]
    except IncompleteOnnxError as error:
        return [_problem(name, "incomplete", str(error))]
    except ModelFilesError as error:
        return [_problem(name, "mismatch", str(error))]
    wrong = interface(graph)
    return [_problem(name, "mismatch", f"{name}: {wrong}")] if wrong else []


def _detector_interface(graph: OnnxGraph) -> str | None:
    """YOLOv10 with ([B, n, 6]) or without ([B, 84, n]) its own selection (docs/specification.md#detector)."""
    wrong = _input_problem(graph, _DETECTOR_INPUT)
    if wrong:
        return wrong
    shape = next(iter(graph.outputs.values()))
    if len(shape) != 3 or (shape[2] not in (6, None) and shape[1] not in (84, None)):
        return f"its output has shape {_shown(shape)}, expected [B, n, 6] or [B, 84, n]"
    return None


def _pose_interface(graph: OnnxGraph) -> str | None:
    """ViTPose-H whole body: 133 heatmaps of 64 x 48 (docs/specification.md#heatmap-decoding)."""
    wrong = _input_problem(graph, _POSE_INPUT)
    if wrong:
        return wrong
    shape = next(iter(graph.outputs.values()))
    return None if _fits(shape, _HEATMAPS) else f"its output has shape {_shown(shape)}, expected {_shown(_HEATMAPS)}"


def _input_problem(graph: OnnxGraph, expected: tuple[Extent, ...]) -> str | None:
    if len(graph.inputs) != 1:
        return f"it has {len(graph.inputs)} inputs, expected one"
    shape = next(iter(graph.inputs.values()))
    return None if _fits(shape, expected) else f"its input has shape {_shown(shape)}, expected {_shown(expected)}"


def _fits(shape: tuple[Extent, ...], expected: tuple[Extent, ...]) -> bool:
    """Equal rank, and equal wherever both extents are fixed."""
    return len(shape) == len(expected) and all(
        found is None or wanted is None or found == wanted for found, wanted in zip(shape, expected, strict=True)
    )


def _shown(shape: tuple[Extent, ...]) -> str:
    return "[" + ", ".join("any" if extent is None else str(extent) for extent in shape) + "]"


def _problem(file: str, state: State, message: str) -> Problem:
    return Problem("pose_models", file, state, message)

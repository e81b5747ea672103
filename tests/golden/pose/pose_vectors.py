"""Finding and reading the golden vectors of the pose stage; tolerances of the specification.

A folder's kinds of files come from its ``MANIFEST.json``, or from the file names where there is none. What does not
belong here: comparisons of one particular kind.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_folders import COMMITTED_FOLDER, golden_cases
from PIL import Image

from libs.pose.record import PoseRecord
from libs.pose.track import PoseTrack

# docs/specification.md#tolerances.
KEYPOINT_PIXELS = 2e-3
NORMALISED = 2e-5
RATIO = 1e-4
DRAWING_FRACTION = 1e-3
WHOLE_FRACTION = 2e-3
NETWORK_NOISE = 1e-5
"""onnxruntime results move by about 1e-6 with another CPU or thread count."""

_KIND_OF_PATTERN = (
    ("estimate_bbox_select*.npz", "bbox_select"),
    ("estimate_det84_function*.npz", "det84"),
    ("estimate_crop*.npz", "crop"),
    ("estimate_*.npz", "estimate"),
    ("decode_*.npz", "decode"),
    ("metas_*.npz", "metas"),
    ("dwpose_*.npz", "dwpose"),
    ("align_ref_*.npz", "align_ref"),
    ("align_pick_*.npz", "pick"),
    ("align_pose_units*.npz", "ratios"),
    ("align_pose_*.npz", "align_pose"),
    ("draw_index*.json", "draw_list"),
    ("warp_*.npz", "warp"),
    ("resizecrop*.npz", "resizecrop"),
    ("misc_*.npz", "misc"),
    ("whole_*.json", "whole"),
    ("errors*.json", "errors"),
)


@dataclass(frozen=True)
class Vectors:
    """One golden file and its neighbours."""

    path: Path

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    @cached_property
    def document(self) -> Any:
        return json.loads(self.path.read_text())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def neighbour(self, name: str) -> "Vectors":
        return Vectors(self.path.parent / name)

    def track(self, name: str) -> PoseTrack:
        """The track in a neighbour of kind ``metas``; the test is skipped with this reason where it is missing."""
        found = self.neighbour(name)
        if not found.path.is_file():
            pytest.skip(f"needs {name}, which {self.path.parent} lacks")
        return track_of(found)

    def picture(self, name: str) -> np.ndarray:
        return read_picture(self.path.parent / name)

    def network(self, name: str) -> Path:
        """An ONNX graph of this folder, or of the committed set where this folder has none."""
        own = self.path.parent / "onnx" / name
        return own if own.is_file() else committed_network(name)


def committed_network(name: str) -> Path:
    """An ONNX graph of the committed set."""
    return COMMITTED_FOLDER / "pose" / "onnx" / name


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


def files_of(kind: str) -> Callable[[Path], Iterator[tuple[str, Vectors]]]:
    """The discoverer of all files of ``kind``: case ids are paths below the root folder."""

    def discover(root: Path) -> Iterator[tuple[str, Vectors]]:
        for path in _pose_files(root).get(kind, []):
            yield str(path.relative_to(root)), Vectors(path)

    return discover


def pose_cases(kind: str) -> list[Any]:
    """Parameters of one case per file of ``kind``."""
    return golden_cases(f"pose {kind}", files_of(kind))


@lru_cache
def _pose_files(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in sorted({root, *(path for path in root.rglob("*") if path.is_dir())}):
        for name, kind in {**_kinds_by_name(folder), **_kinds_by_manifest(folder)}.items():
            if (folder / name).is_file():
                found.setdefault(kind, []).append(folder / name)
    return found


def _kinds_by_manifest(folder: Path) -> dict[str, str]:
    manifest = folder / "MANIFEST.json"
    if not manifest.is_file():
        return {}
    files = json.loads(manifest.read_text()).get("files", {})
    return {name: entry["kind"] for name, entry in files.items() if isinstance(entry, dict) and "kind" in entry}


def _kinds_by_name(folder: Path) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for pattern, kind in _KIND_OF_PATTERN:
        for path in sorted(folder.glob(pattern)):
            kinds.setdefault(path.name, kind)
    kinds.pop("estimate_index.json", None)
    return kinds


def track_of(vectors: Vectors) -> PoseTrack:
    """The track in a ``metas_*`` file's outputs."""
    frames = len(vectors["out_width"])
    return PoseTrack(
        int(vectors["out_width"][0]),
        int(vectors["out_height"][0]),
        body=vectors["out_keypoints_body"],
        left_hand=vectors["out_keypoints_left_hand"],
        right_hand=vectors["out_keypoints_right_hand"],
        face=vectors["out_keypoints_face"],
        boxes=np.zeros((frames, 5), np.float32),
    )


def record_from(arrays: dict[str, np.ndarray], prefix: str) -> PoseRecord:
    """The record stored as ``<prefix>bodies_candidate`` and so on."""
    return PoseRecord(
        body=arrays[f"{prefix}bodies_candidate"],
        body_score=arrays[f"{prefix}bodies_score"][:, 0],
        body_present=_presence(arrays[f"{prefix}bodies_subset"][:, 0]),
        hands=arrays[f"{prefix}hands"],
        hands_score=arrays[f"{prefix}hands_score"],
        face=arrays[f"{prefix}faces"][:, 0],
        face_score=arrays[f"{prefix}faces_score"][:, 0],
    )


def _presence(subset: np.ndarray) -> np.ndarray:
    """Which joints are there, from rows that hold each joint's own number, or -1."""
    present = subset != -1
    np.testing.assert_array_equal(subset, np.where(present, np.arange(subset.shape[1]), -1))
    return present


def difference(found: Any, expected: Any) -> float:
    """The largest absolute difference; infinite where shapes, or places that are no numbers, differ."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if found.shape != expected.shape or not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    return float(np.nanmax(np.abs(found - expected), initial=0.0))


def relative_difference(found: Any, expected: Any) -> float:
    """The largest difference relative to the expected value."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-12), initial=0.0))


def record_difference(found: PoseRecord, expected: PoseRecord) -> float:
    """The largest difference of coordinates and scores; infinite where presence or precision differs."""
    same_kind = np.array_equal(found.body_present, expected.body_present) and all(
        getattr(found, name).dtype == getattr(expected, name).dtype for name in ("body", "hands", "face")
    )
    if not same_kind:
        return float("inf")
    names = ("body", "body_score", "hands", "hands_score", "face", "face_score")
    return max(difference(getattr(found, name), getattr(expected, name)) for name in names)


def differing_fraction(found: np.ndarray, expected: np.ndarray) -> float:
    """Which part of all values differs at all; 1 where shapes differ."""
    return float(np.mean(found != expected)) if found.shape == expected.shape else 1.0

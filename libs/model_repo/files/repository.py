"""The names by which the files of one repository are known, and what is on the disk under them.

A *file name* here is a POSIX path relative to the repository as :mod:`libs.model_repo.layout` draws it
(``pretrained_models/DWPose/dw.onnx``), even where settings put the pretrained files elsewhere. See
``libs.model_repo.verification.verify`` for judging the files.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Literal

from libs.errors import ModelFilesError
from libs.messages.printable import printable
from libs.model_repo.layout import DETECTOR_PATH, INDEX_NAME, POSE_ESTIMATOR_PATH, WAN_PARTS, RepositoryLayout

Part = Literal["checkpoint", "pose_models", "wan_resources"]
PARTS: tuple[Part, ...] = ("checkpoint", "pose_models", "wan_resources")

LOCK_NAME = "one-to-all.lock.json"
CONFIGURATION_NAME = "configuration.json"
STAGING_NAME = ".download"
"""Folder beside the files it will become; whatever lies in it is not part of the repository."""
LEFTOVER_TRANSFORMER = "transformer"

_PRETRAINED = "pretrained_models"
_LONGEST_PATH = 2000
_LONGEST_PART = 255
_POSE_FOLDERS = ("DWPose", "process_checkpoint")


def path_of(layout: RepositoryLayout, name: str) -> Path:
    """The path of the file called ``name``.

    Raises:
        ModelFilesError: the name leads out of the repository (``..``, absolute, empty, a back slash).
    """
    parts = safe_parts(name)
    if parts[0] != _PRETRAINED:
        return layout.root.joinpath(*parts)
    if len(parts) > 2 and parts[1] == layout.variant.wan_folder:
        return layout.wan.joinpath(*parts[2:])
    return layout.pretrained.joinpath(*parts[1:])


def safe_parts(name: str) -> tuple[str, ...]:
    """The parts of a relative POSIX path from outside (a listing, a lock file).

    Raises:
        ModelFilesError: the path could lead out of the folder it is joined to.
    """
    if not is_possible_name(name):
        raise ModelFilesError(f"refused the file name {printable(name)!r}: no file can have it")
    path = PurePosixPath(name)
    wrong = path.is_absolute() or not path.parts or ".." in name.split("/") or "\\" in name
    if wrong or (len(name) > 1 and name[1] == ":"):
        raise ModelFilesError(f"refused the file name {printable(name)!r}: it leads out of the repository folder")
    return path.parts


def is_possible_name(name: str) -> bool:
    """Whether a file system takes ``name``: no part is longer than 255 bytes, and none holds what is no text."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
    return (
        b"\0" not in encoded and len(encoded) <= _LONGEST_PATH and max(map(len, encoded.split(b"/"))) <= _LONGEST_PART
    )


def pretrained_name(*parts: str) -> str:
    """The name of a pretrained file: ``pretrained_name("DWPose", "dw.onnx")``."""
    return "/".join((_PRETRAINED, *parts))


def wan_name(layout: RepositoryLayout, *parts: str) -> str:
    """The name of a file among the Wan resources: ``wan_name(layout, "vae", "config.json")``."""
    return pretrained_name(layout.variant.wan_folder, *parts)


def part_of(name: str) -> Part:
    """Which part of a repository the file called ``name`` belongs to."""
    parts = safe_parts(name)
    if parts[0] != _PRETRAINED:
        return "checkpoint"
    return "pose_models" if len(parts) > 1 and parts[1] in _POSE_FOLDERS else "wan_resources"


def detector_name() -> str:
    """The name of the person detector."""
    return pretrained_name(*DETECTOR_PATH.parts)


def pose_estimator_name(layout: RepositoryLayout) -> str:
    """The name of the pose network: the file, or the graph inside the folder of that name."""
    parts = list(POSE_ESTIMATOR_PATH.parts)
    if layout.pose_estimator.name != parts[-1]:
        parts.append(layout.pose_estimator.name)
    return pretrained_name(*parts)


def files_of_part(layout: RepositoryLayout, part: Part) -> dict[str, Path]:
    """Name -> path of the files that are there, sorted by name; staging, hidden and half-written files left out."""
    if part == "checkpoint":
        names = {path.name: path for path in _children(layout.root) if _is_checkpoint_file(path)}
    elif part == "pose_models":
        names = {
            pretrained_name(folder, relative): path
            for folder in _POSE_FOLDERS
            for relative, path in files_below(layout.pretrained / folder).items()
        }
    else:
        names = {
            wan_name(layout, sub_folder, relative): path
            for sub_folder in WAN_PARTS
            for relative, path in files_below(layout.wan / sub_folder).items()
        }
    return dict(sorted(names.items()))


def files_below(folder: Path) -> dict[str, Path]:
    """Relative POSIX name -> path of every visible regular file below ``folder``; empty if there is no such folder."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not is_leftover(name) and path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    return found


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_checkpoint_file(path: Path) -> bool:
    known = path.suffix == ".safetensors" or path.name in (CONFIGURATION_NAME, INDEX_NAME)
    return known and not is_leftover(path.name) and path.is_file()


def is_leftover(name: str) -> bool:
    """True for names of files that some program left half written, and for hidden files."""
    return name.startswith(".") or name.endswith((".incomplete", ".partial", ".part", ".lock", ".tmp"))

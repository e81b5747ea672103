"""What computes here: versions of the libraries, and the commit of the code.

See ``libs.one_to_all.device`` for devices, which need torch.
"""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from libs.provenance.record import CodeState
from libs.settings import REPOSITORY_ROOT

_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "pillow",
    "numpy",
    "av",
)
_CODE_FOLDERS = ("libs", "orchestration")
_GIT_SECONDS = 20


def library_versions() -> dict[str, str]:
    """Name -> version of Python and of those libraries that are installed and may change a clip's pixels."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_state(root: Path = REPOSITORY_ROOT) -> CodeState | None:
    """The commit checked out at ``root``, and whether code there differs from it; None where there is no checkout.

    A folder inside another project's checkout (an installed package) does not count. New files count as a difference.
    """
    if shutil.which("git") is None:
        return None
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root.resolve():
        return None
    changes = _git(root, "status", "--porcelain", "--", *_CODE_FOLDERS)
    return CodeState(commit=commit, dirty=changes != "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None when it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

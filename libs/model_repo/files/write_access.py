"""Model folders that cannot be written to (a read-only mount, another owner): complete ones are used as they are.

What is written beside the files otherwise (the lock between processes, the lock file of files that no lock knows yet,
remembered digests) then lies in the folder ``writable_root`` of the layout, below DATA_DIR.
"""

import hashlib
import os
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout


def can_write(folder: Path) -> bool:
    """Whether this process can put files into ``folder``, or make it."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def writable_folder(layout: RepositoryLayout) -> Path:
    """The folder for what cannot be written into the repository, its own for each repository on this machine.

    Raises:
        ModelFilesError: the layout has no such place.
    """
    if layout.writable_root is None:
        raise ModelFilesError(f"{layout.root}: cannot be written to")
    path = hashlib.sha256(os.fsencode(layout.root.resolve())).hexdigest()[:16]
    return layout.writable_root / f"{layout.root.name}-{path}"


def require_write_access(layout: RepositoryLayout, what_for: str) -> None:
    """Check that the repository can be written to.

    Raises:
        ModelFilesError: it cannot; says ``what_for`` it must, and the way out.
    """
    for folder in (layout.root, layout.pretrained):
        if not can_write(folder):
            raise ModelFilesError(
                f"{folder}: cannot be written to (a read-only mount, or another owner), and {what_for}; do this where "
                "it can be written, or set MODELS_DIR to another folder"
            )

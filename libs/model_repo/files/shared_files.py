"""Files that another variant's repository has as well: found by digest, shared as hard links.

Pose networks are the same for all variants, Wan resources for both 1.3b ones.
"""

import errno
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import path_of
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import VARIANTS
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.model_repo.verification.lock import read_lock
from libs.settings import Settings

_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}


def sibling_layouts(layout: RepositoryLayout, settings: Settings) -> list[RepositoryLayout]:
    """The repositories of the other variants that are on this machine."""
    others = (layout_of(variant, settings) for name, variant in VARIANTS.items() if name != layout.variant.name)
    return [other for other in others if other.root.is_dir()]


def locked_in_other_folders(siblings: Iterable[RepositoryLayout]) -> dict[str, Path]:
    """SHA-256 -> a file that some sibling's lock says has it; the file itself has not been looked into."""
    found: dict[str, Path] = {}
    for sibling in siblings:
        try:
            lock = read_lock(sibling)
        except ModelFilesError as error:  # a sibling's trouble is not this repository's
            logging.getLogger(__name__).warning("%s", error)
            continue
        for name, locked in lock.files.items() if lock else ():
            path = path_of(sibling, name)
            if path.is_file() and path.stat().st_size == locked.size:
                found[locked.sha256] = path
    return found


def link_shared(target: Path, sha256: str, elsewhere: Mapping[str, Path], cache: DigestCache) -> bool:
    """Make ``target`` a hard link to a file with this digest; False if there is none or it cannot be linked to.

    The file's digest is taken from the cache or by reading it: a lock entry alone is not believed.
    """
    source = elsewhere.get(sha256)
    if source is None or sha256_of_files([source], cache)[source] != sha256:
        return False
    return hard_link(source, target)


def hard_link(source: Path, target: Path) -> bool:
    """Put a hard link to ``source`` in the place of ``target``; False where the file system cannot.

    A symbolic link is followed first: the link is made to the bytes.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), temporary)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    try:
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # replacing a link by another to the same file leaves both
    return True

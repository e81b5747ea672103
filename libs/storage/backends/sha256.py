"""SHA-256 of files, streamed.

See ``libs.model_repo.verification.digests`` for digests of model repositories with their cache.
"""

import hashlib
from pathlib import Path

SHA256_PATTERN = r"^[0-9a-f]{64}$"


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; reads it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

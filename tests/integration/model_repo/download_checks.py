"""Names and checks that the download tests share."""

import hashlib
from pathlib import Path

from local_hub import LocalHub

from libs.model_repo.files.repository import Part, files_of_part
from libs.model_repo.hubs.sources import sources_of
from libs.model_repo.hubs.transfer import HubBackoff
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.lock import read_lock

IMPATIENT = HubBackoff(attempts=3, first_pause_seconds=0.05, longest_pause_seconds=0.2)
SHARD = "model-00001-of-00002.safetensors"
CHECKPOINT_REPO = "MochunniaN1/One-to-All-1.3b_1"
WAN_REPO = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wanted(layout: RepositoryLayout, part: Part, server: LocalHub) -> dict[str, bytes]:
    """What a complete part holds, from what the hub has."""
    return {
        source.name_of(path): content
        for source in sources_of(layout.variant, part)
        for path, content in server.repositories[source.repository.repo_id].files.items()
        if source.wants(path)
    }


def assert_nothing_wrong_stands(layout: RepositoryLayout, server: LocalHub, part: Part = "checkpoint") -> None:
    """Whatever is under a final name, and whatever the lock says, are the hub's bytes."""
    expected = wanted(layout, part, server)
    for name, path in files_of_part(layout, part).items():
        assert path.read_bytes() == expected[name], name
    lock = read_lock(layout)
    for name, entry in lock.of_part(part).items() if lock else ():
        assert entry.sha256 == hashlib.sha256(expected[name]).hexdigest(), name


def assert_complete(layout: RepositoryLayout, server: LocalHub, part: Part = "checkpoint") -> None:
    """Exactly the hub's files are there, all are locked, and nothing is left of the download."""
    assert_nothing_wrong_stands(layout, server, part)
    expected = wanted(layout, part, server)
    assert files_of_part(layout, part).keys() == expected.keys()
    lock = read_lock(layout)
    assert lock is not None
    assert lock.of_part(part).keys() == expected.keys()
    leftovers = [path for path in layout.root.rglob("*") if path.is_file() and "incomplete" in path.name]
    assert leftovers == []

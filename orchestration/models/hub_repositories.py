"""The hub repositories of model files as observed external assets: roots of every clip's lineage.

What is observed is what the lock file says: repository and revision per part, as they were resolved when the files were
fetched. No hub is asked. See ``libs.model_repo.hubs.download`` for fetching.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import dagster as dg

from libs.model_repo.files.repository import Part
from libs.model_repo.verification.lock import LockedFile, RepositoryLock
from orchestration.partitions import MODEL_VARIANTS
from orchestration.policies import MODELS_GROUP, OWNERS
from orchestration.storage.observed import observation, observed_versions

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAGES = {"huggingface": "https://huggingface.co/{}", "modelscope": "https://modelscope.cn/models/{}"}


def _spec(name: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        description=description,
        partitions_def=MODEL_VARIANTS,
        group_name=MODELS_GROUP,
        owners=OWNERS,
        kinds={"huggingface"},
    )


checkpoint_repository = _spec("checkpoint_repository", "The hub repository of the fine-tuned transformer.")
pose_repositories = _spec("pose_repositories", "The hub repositories of person detector and pose network.")
wan_repository = _spec("wan_repository", "The hub repository of Wan2.1, of which VAE and text encoder are used.")

HUB_REPOSITORIES = [checkpoint_repository, pose_repositories, wan_repository]

REPOSITORY_OF_PART: dict[Part, str] = {
    "checkpoint": "checkpoint_repository",
    "pose_models": "pose_repositories",
    "wan_resources": "wan_repository",
}


def repository_version(files: Mapping[str, LockedFile]) -> str:
    """The repositories and revisions that ``files`` came from, e.g. ``Wan-AI/Wan2.2-Animate-14B@<commit>``.

    A revision that is not a commit (ModelScope's branches, files made by code or copied by hand) does not fix the
    bytes, so 12 digits of the files' own digest follow.
    """
    return "; ".join(
        f"{source}{f'@{revision}' if revision else ''}{'' if _is_commit(revision) else f' {_digest(entries)}'}"
        for (source, revision, _), entries in sorted(_by_origin(files).items())
    )


def observe_repository(part: Part, variant: str, files: Mapping[str, LockedFile]) -> dg.AssetObservation:
    """What the lock says of the origin of one part's ``files``."""
    rows = [
        dg.TableRecord(
            {
                "repository": source,
                "revision": revision,
                "hub": hub,
                "page": _PAGES[hub].format(source) if hub in _PAGES else "",
                "files": len(entries),
                "bytes": sum(entry.size for entry in entries.values()),
            }
        )
        for (source, revision, hub), entries in sorted(_by_origin(files).items())
    ]
    metadata: dict[str, dg.MetadataValue] = {"origin": dg.MetadataValue.table(rows)}
    return observation(REPOSITORY_OF_PART[part], variant, repository_version(files), metadata)


def observe_new_origins(
    instance: dg.DagsterInstance, variant: str, lock: RepositoryLock | None
) -> Iterator[dg.AssetObservation]:
    """Parts whose origin is no longer the one observed last: the command line fetched another revision."""
    for part, asset in REPOSITORY_OF_PART.items():
        files = lock.of_part(part) if lock else {}
        if files and observed_versions(instance, asset, [variant]).get(variant) != repository_version(files):
            yield observe_repository(part, variant, files)


def _by_origin(files: Mapping[str, LockedFile]) -> dict[tuple[str, str, str], dict[str, LockedFile]]:
    """(source, revision, hub) -> the files from there."""
    found: dict[tuple[str, str, str], dict[str, LockedFile]] = defaultdict(dict)
    for name, file in files.items():
        found[file.source, file.revision or "", file.hub or ""][name] = file
    return found


def _is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def _digest(files: Mapping[str, LockedFile]) -> str:
    rows = sorted((name, file.sha256) for name, file in files.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

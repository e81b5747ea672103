"""The observed version of a part's origin."""

from dataclasses import replace

from libs.model_repo.verification.lock import LockedFile
from orchestration.models.hub_repositories import observe_repository, repository_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = LockedFile(5, "a" * 64, "Wan-AI/Wan2.1", COMMIT, "huggingface")


def test_a_commit_is_the_version() -> None:
    assert repository_version({"one": FILE, "two": replace(FILE, sha256="b" * 64)}) == f"Wan-AI/Wan2.1@{COMMIT}"


def test_without_a_fixed_revision_the_bytes_decide() -> None:
    for revision in ("master", None):
        file = replace(FILE, revision=revision, hub="modelscope")
        version = repository_version({"one": file})
        assert version != repository_version({"one": replace(file, sha256="b" * 64)})
        assert version == repository_version({"one": replace(file)})


def test_several_repositories_are_all_named_and_shown() -> None:
    other = replace(FILE, source="FrancisRing/StableAnimator")
    made = LockedFile(7, "c" * 64, "made by libs.sandbox")
    observed = observe_repository("pose_models", "14b", {"one": FILE, "two": other, "three": made})
    assert observed.asset_key.to_user_string() == "pose_repositories"
    assert observed.partition == "14b"
    assert str(observed.data_version).split("; ")[:2] == [f"{other.source}@{COMMIT}", f"{FILE.source}@{COMMIT}"]
    rows = [record.data for record in observed.metadata["origin"].value.records]  # type: ignore[union-attr]
    assert [row["page"] for row in rows] == [
        "https://huggingface.co/FrancisRing/StableAnimator",
        "https://huggingface.co/Wan-AI/Wan2.1",
        "",
    ]

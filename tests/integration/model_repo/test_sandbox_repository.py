"""The sandbox's repository, written by the real code, through lock, both verification levels, and a broken shard."""

from pathlib import Path

import pytest

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.lock import lock_repository
from libs.model_repo.verification.verify import verify_repository
from libs.settings import Settings


@pytest.fixture
def sandbox(tmp_path: Path) -> RepositoryLayout:
    from libs.sandbox.repository import write_sandbox_repository

    settings = Settings(models_dir=tmp_path / "models", data_dir=tmp_path / "data", _env_file=None)
    layout = layout_of("sandbox", settings)
    write_sandbox_repository(layout)
    return layout


def test_the_sandbox_is_complete_until_a_byte_of_a_shard_changes(sandbox: RepositoryLayout) -> None:
    lock_repository(sandbox, source="made by libs.sandbox")
    fast, full = verify_repository(sandbox), verify_repository(sandbox, "full")
    assert (fast.state, full.state) == ("complete", "complete"), full.parts
    assert fast.content_digest == full.content_digest is not None
    shard = next(iter(sorted(sandbox.root.glob("model-*.safetensors"))))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    broken = verify_repository(sandbox)
    assert broken.part("checkpoint").state == "mismatch"
    assert broken.part("pose_models").state == "complete"
    assert broken.part("checkpoint").command == "one-to-all models download sandbox"

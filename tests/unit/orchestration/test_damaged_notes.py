"""What is stored for later is read in a guard: what is damaged is said, and stops nothing that it does not concern."""

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from libs.errors import ModelFilesError
from libs.model_repo.verification.report import VerificationReport
from libs.settings import Settings
from libs.stages.model_verification import REPORT_FILE, VERSIONS_FILE, stored_verification
from libs.storage.artifacts import ArtifactFiles
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.folder import FolderObjectStore
from orchestration.fleet.launching.active_runs import ActiveRunQuery
from orchestration.models import model_verification
from orchestration.recovery.batches import require_not_stopped, stopped_at, stopped_key

DEEP = b"[" * 100_000
DAMAGED = [b"", b"{", b"null", b"[]", b'"stopped"', b"{}", b"\xff\xfe", DEEP]


@pytest.mark.parametrize("note", DAMAGED, ids=lambda note: repr(note[:12]))
def test_a_damaged_note_of_a_stopped_batch_is_ignored(
    tmp_path: Path, note: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    objects = FolderObjectStore(tmp_path)
    objects.put_bytes(stopped_key("nightly-2026-12-01"), note)
    with caplog.at_level(logging.WARNING):
        assert stopped_at(objects, "nightly-2026-12-01") is None
    assert "one-to-all stop-batch nightly-2026-12-01" in caplog.text
    require_not_stopped(objects, "nightly-2026-12-01", "dance")


class _Redis:
    """What an active run query needs of a connection to a queue that holds some messages."""

    def __init__(self, messages: list[bytes]) -> None:
        self.client = SimpleNamespace(lrange=lambda *_: messages)

    @contextmanager
    def connection_for_read(self) -> Any:
        yield self

    @contextmanager
    def channel(self) -> Any:
        yield self


def test_what_is_no_message_hides_no_run_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    messages = [json.dumps({"headers": {"id": "run-1"}}).encode(), *DAMAGED, b'{"headers": {"id": "run-2"}}']
    waiting = ActiveRunQuery(_Redis(messages)).waiting(["gpu"])  # type: ignore[arg-type]
    assert waiting == {"run-1", "run-2"}
    assert len(caplog.records) == len(DAMAGED)


@pytest.mark.parametrize("damaged", [REPORT_FILE, VERSIONS_FILE])
@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": 1}', DEEP], ids=["cut", "list", "number", "deep"])
def test_a_stored_verification_that_cannot_be_read_is_made_again(tmp_path: Path, damaged: str, content: bytes) -> None:
    store = store_from_settings(Settings(_env_file=None, data_dir=tmp_path / "data"))
    report = VerificationReport("sandbox", str(tmp_path), "fast", "2026-12-01T00:00:00+00:00", parts=(), files=())
    folder = tmp_path / "verification"
    folder.mkdir()
    (folder / REPORT_FILE).write_text(report.to_json())
    (folder / VERSIONS_FILE).write_text('{"one": "two"}')
    store.publish("model_verification", "sandbox", ArtifactFiles(folder), {})
    found = stored_verification(store, "sandbox")
    assert found is not None
    assert found.versions == {"one": "two"}
    (folder / damaged).write_bytes(content)
    store.publish("model_verification", "sandbox", ArtifactFiles(folder), {})
    with pytest.raises(ModelFilesError, match=r"verification of sandbox cannot be read .* partition 'sandbox' again"):
        stored_verification(store, "sandbox")
    assert model_verification.previous_verification(store, "sandbox") is None

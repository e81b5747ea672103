"""Output of runs in the bucket: errors of the store cost no run, and what is deleted is gone, no more and no less."""

from pathlib import Path

import pytest
from dagster._check import CheckError
from dagster._core.storage.compute_log_manager import ComputeIOType

from libs.errors import SettingsError
from orchestration.fleet.compute_logs import BucketComputeLogManager
from tests.s3_server import S3Server

KEY = ["run-1", "compute_logs", "step"]


@pytest.fixture
def environment(s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3_server.environment(s3_bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return s3_server


def printed(manager: BucketComputeLogManager, log_key: list[str], text: str) -> None:
    with manager.local_manager.capture_logs(log_key):
        path = manager.local_manager.get_captured_local_path(log_key, "out")
        Path(path).write_text(text)
    manager._on_capture_complete(log_key)


@pytest.mark.s3
def test_output_is_read_and_deleted_where_it_belongs(environment: S3Server) -> None:
    manager = BucketComputeLogManager()
    others = [["run-10", "compute_logs", "step"], ["run-1", "compute_logs", "step-2"]]
    for key in (KEY, *others):
        printed(manager, key, "hello")
    assert manager.get_log_data_for_type(KEY, ComputeIOType.STDOUT, 0, None) == (b"hello", 5)
    manager.delete_logs(log_key=KEY)
    assert not manager.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT)
    assert not manager.has_local_file(KEY, ComputeIOType.STDOUT)
    assert all(manager.cloud_storage_has_logs(key, ComputeIOType.STDOUT) for key in others)
    manager.delete_logs(prefix=["run-1"])
    assert [manager.cloud_storage_has_logs(key, ComputeIOType.STDOUT) for key in others] == [True, False]
    with pytest.raises(CheckError, match="Must pass in"):
        manager.delete_logs(prefix=[])


@pytest.mark.s3
def test_the_address_of_a_log_is_one_that_browsers_reach(
    environment: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_PUBLIC_ENDPOINT", "http://localhost:9999")
    manager = BucketComputeLogManager()
    assert manager.download_url_for_type(KEY, ComputeIOType.STDERR) is None
    printed(manager, KEY, "hello")
    address = manager.download_url_for_type(KEY, ComputeIOType.STDERR)
    assert address is not None
    assert address.startswith("http://localhost:9999/")
    assert environment.secret_key not in address


@pytest.mark.s3
def test_an_upload_that_fails_is_tried_again_at_the_next_turn(
    environment: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("S3_BUCKET_NAME", "bucket-that-went-away")
    manager = BucketComputeLogManager()
    with manager.local_manager.capture_logs(KEY):
        Path(manager.local_manager.get_captured_local_path(KEY, "out")).write_text("hello")
        manager.on_progress(KEY)
        assert "run-1/compute_logs/step could not be uploaded" in caplog.text
        assert "correct S3_BUCKET_NAME" in caplog.text
        manager._s3_session.create_bucket(Bucket="bucket-that-went-away")
        manager.on_progress(KEY)
        assert manager.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT, partial=True)
    manager._on_capture_complete(KEY)
    assert manager.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT)
    assert not manager.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT, partial=True)


def test_an_instance_without_a_bucket_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "")
    with pytest.raises(SettingsError, match="S3_ENDPOINT is not set, but this Dagster instance keeps the output"):
        BucketComputeLogManager()

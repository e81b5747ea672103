"""What is wrong with a host sends the run back and pauses the worker; what is wrong with a request does not."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from redis.exceptions import ConnectionError as RedisAwayError

from libs.errors import StorageUnavailableError
from libs.model_repo.layout import layout_of
from libs.model_repo.verification import verify
from libs.model_repo.verification.digests import DigestCache
from libs.model_repo.verification.lock import lock_path, lock_repository, read_lock
from libs.model_repo.verification.verify import verify_repository
from libs.settings import Settings
from libs.stages import model_verification
from libs.stages.model_verification import versions_in_use
from orchestration.fleet.launching.code_version import digest_of
from orchestration.fleet.worker import guard
from orchestration.fleet.worker_list import describe
from orchestration.fleet.working import host_check, run_gate
from orchestration.fleet.working.draining import Draining
from orchestration.fleet.working.host_check import HostCheck, Unfit, full_disk, missing_models
from orchestration.fleet.working.run_gate import RunGate
from orchestration.fleet.working.worker_panel import HOST_UNFIT

REDIS = "redis://127.0.0.1:1/0"


def test_the_same_files_are_the_same_code_wherever_they_lie(tmp_path: Path) -> None:
    for host in ("a", "b"):
        (tmp_path / host / "libs").mkdir(parents=True)
        (tmp_path / host / "libs" / "media.py").write_text("x = 1\n")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "b" / "libs" / "media.py").write_text("x = 2\n")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")
    (tmp_path / "b" / "libs" / "media.py").rename(tmp_path / "b" / "libs" / "sound.py")
    (tmp_path / "b" / "libs" / "sound.py").write_text("x = 1\n")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")


def test_other_code_than_the_code_locations_takes_no_runs() -> None:
    check = HostCheck(REDIS, code="new")
    assert check.other_code(lambda _: "new") is None
    assert check.other_code(lambda _: None) is None, "nobody says"
    reason = check.other_code(lambda _: "old")
    assert reason is not None
    assert "runs code new, the code location old" in reason
    assert check.other_code() is None, "Redis is away: nothing can be concluded"
    with pytest.raises(RedisAwayError):
        host_check.announced_code(REDIS)


def test_a_disk_below_the_limit_is_named(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "not" / "there", min_free_disk_gb=10**6)
    reason = full_disk(settings)
    assert reason is not None
    assert f"free for {tmp_path / 'not' / 'there'} (MIN_FREE_DISK_GB=1e+06)" in reason
    assert full_disk(settings.changed(min_free_disk_gb="0")) is None


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunGate, list[Any], dg.DagsterInstance]]:
    """A gate whose host check says what the test wants, and what it tells its worker and sends."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    told: list[Any] = []
    gate = RunGate(None, SimpleNamespace(), "gpu-0@host", "gpu", host=HostCheck(REDIS))  # type: ignore[arg-type]
    monkeypatch.setattr(gate, "_tell", lambda command, **said: told.append((command, said)))
    monkeypatch.setattr(run_gate, "send_run", lambda _, run_id, queue: told.append((f"sent to {queue}", run_id)))
    with dg.DagsterInstance.get() as instance:
        yield gate, told, instance


def test_a_run_that_this_host_cannot_make_goes_back_untouched(
    gated: tuple[RunGate, list[Any], dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told, instance = gated
    unfit = Unfit("14b is not ready here", "14b")
    monkeypatch.setattr(HostCheck, "why_unfit", lambda *_: unfit)
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING)
    assert not gate.admits(run.run_id)
    assert told == [(HOST_UNFIT, {"reason": unfit.reason, "variant": "14b"}), ("sent to gpu", run.run_id)]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTING
    assert "14b is not ready here" in "\n".join(entry.message for entry in instance.all_logs(run.run_id))
    canceled = create_run_for_test(instance, status=dg.DagsterRunStatus.CANCELING)
    assert gate.admits(canceled.run_id), "to be told so, which any host can"

    monkeypatch.setattr(HostCheck, "why_unfit", lambda *_: None)
    assert gate.admits(run.run_id)


def test_a_clip_goes_back_from_a_host_with_a_full_disk(
    gated: tuple[RunGate, list[Any], dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, told, instance = gated
    monkeypatch.setattr(host_check, "announced_code", lambda _: None)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MIN_FREE_DISK_GB", "1000000")
    tags = {"dagster-celery/queue": "gpu"}
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING, tags=tags)
    assert not gate.admits(run.run_id)
    (command, said), sent = told
    assert command == HOST_UNFIT
    assert f"GB are free for {tmp_path} (MIN_FREE_DISK_GB=1e+06): free some" in said["reason"]
    assert sent == ("sent to gpu", run.run_id)


def test_a_failed_host_check_does_not_stop_runs(
    gated: tuple[RunGate, list[Any], dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told, instance = gated

    def fail(*_: object) -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(HostCheck, "why_unfit", fail)
    assert gate.admits(create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING).run_id)
    assert told == []


def test_work_for_the_cpu_is_done_on_a_full_disk(
    gated: tuple[RunGate, list[Any], dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what frees it."""
    _, _, instance = gated
    monkeypatch.setattr(host_check, "full_disk", lambda _: "0.1 GB are free")
    check = HostCheck(REDIS)
    assert check.why_unfit(create_run_for_test(instance, tags={"dagster-celery/queue": "cpu"})) is None
    unfit = check.why_unfit(create_run_for_test(instance, tags={"dagster-celery/queue": "gpu"}))
    assert unfit == Unfit("0.1 GB are free")


def test_the_pause_ends_when_the_files_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"14b": ["14b is not ready here", None], "sandbox": [None]}
    monkeypatch.setattr(host_check, "missing_models", lambda variant, _: answers[variant].pop(0))
    monkeypatch.setattr(host_check, "full_disk", lambda _: None)
    guards = guard(None, REDIS, "gpu-0@host", "gpu", Draining(list))
    guards.lacking.update(answers)
    assert guards.host_watch._probe() == "14b is not ready here"
    assert guards.host_watch._probe() is None
    assert guards.lacking == set()
    assert guards.gpu_watch is None


def test_the_list_says_that_it_is_the_host() -> None:
    state = {"queue": "gpu", "runs": [], "trouble": "14b is not ready here", "since": 60.0, "of": "host"}
    said = describe(state, 240.0)
    assert said == "queue gpu  takes no runs for 3 min, since its host cannot make them: 14b is not ready here"


# --- model files, with a real repository ---


@pytest.fixture(scope="module")
def sandbox_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from libs.sandbox.repository import write_sandbox_repository

    folder = tmp_path_factory.mktemp("models")
    layout = layout_of("sandbox", Settings(_env_file=None, models_dir=folder))
    write_sandbox_repository(layout)
    lock_repository(layout)
    return folder


def stored(monkeypatch: pytest.MonkeyPatch, report: Any, versions: dict[str, str] | None = None) -> None:
    verified = model_verification.StoredVerification(report, versions or {}) if report else None
    monkeypatch.setattr(model_verification, "stored_verification", lambda *_: verified)


@pytest.mark.slow
def test_missing_and_unlocked_files_are_the_hosts_fault(
    sandbox_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Settings(_env_file=None, models_dir=sandbox_models, data_dir=tmp_path / "data")
    report = verify_repository(layout_of("sandbox", there), level="fast")
    assert report.state == "complete"
    here = Settings(_env_file=None, models_dir=tmp_path / "models", data_dir=tmp_path / "data")

    stored(monkeypatch, None)
    assert missing_models("sandbox", here) is None, "no host has them: the run says so"
    stored(monkeypatch, report)
    assert missing_models("sandbox", there) is None
    missing = missing_models("sandbox", here)
    assert missing is not None
    assert "`one-to-all models prepare sandbox` on this host" in missing

    shutil.copytree(sandbox_models, tmp_path / "models", dirs_exist_ok=True)
    lock_path(layout_of("sandbox", here)).unlink()
    unlocked = missing_models("sandbox", here)
    assert unlocked is not None
    assert "never verified here" in unlocked

    def away(*_: object) -> None:
        raise StorageUnavailableError("the store does not answer")

    monkeypatch.setattr(model_verification, "stored_verification", away)
    assert missing_models("sandbox", here) is None, "nothing can be concluded"


@pytest.mark.slow
@pytest.mark.parametrize("is_hashed_here", [True, False])
def test_other_files_than_the_verified_ones_are_the_hosts_fault(
    sandbox_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hashed_here: bool
) -> None:
    """Also where nobody has hashed the large ones on this host: its lock file says what they are."""
    there = layout_of("sandbox", Settings(_env_file=None, models_dir=sandbox_models))
    report = verify_repository(there, level="fast")
    stored(monkeypatch, report, versions_in_use(report, read_lock(there)))
    here = Settings(_env_file=None, models_dir=tmp_path / "models", data_dir=tmp_path / "data")
    shutil.copytree(sandbox_models, here.models_dir, dirs_exist_ok=True)
    assert missing_models("sandbox", here) is None
    layout = layout_of("sandbox", here)
    weights = max(layout.root.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    lock_repository(layout, replace_entries=True)
    if not is_hashed_here:
        DigestCache.beside(layout).path.unlink()
        monkeypatch.setattr(verify, "_HASHED_EVEN_IF_FAST", 0)  # as for the files of a real variant
    reason = missing_models("sandbox", here)
    assert reason is not None
    assert "sandbox is not the verified one here" in reason
    assert ("its lock file names other files" in reason) is not is_hashed_here

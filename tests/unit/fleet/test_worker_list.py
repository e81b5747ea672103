"""How many workers there should be, which one is drained, and when draining ends."""

import pytest

from libs.settings import Settings
from orchestration.fleet import drain, worker_list
from orchestration.fleet.worker_list import describe, missing_workers
from orchestration.fleet.working.draining import QUIET_POLLS, Draining


def state(queue: str = "gpu", **more: object) -> dict[str, object]:
    return {"queue": queue, "runs": [], "trouble": None, "since": None, "draining": False, **more}


ALL = [("cpu@a", state("cpu")), ("gpu@a", state()), ("gpu@b", state("gpu-80gb"))]


def test_a_worker_that_does_not_answer_is_missed() -> None:
    assert missing_workers(ALL, 2, 1) == []
    assert missing_workers(ALL[:2], 2, 1) == ["1 of 2 GPU workers answer and take runs"]
    assert missing_workers(ALL[1:], 2, 1) == ["0 of 1 CPU workers answer and take runs"]
    assert missing_workers([*ALL[:2], ("gpu@b", state(draining=True))], 2, 1) != [], "a drained one takes no runs"
    assert missing_workers([*ALL[:2], ("gpu@b", {"error": "unknown command"})], 2, 1) != []


@pytest.mark.parametrize(("answering", "status"), [(ALL, 0), (ALL[:2], 1), ([], 1)])
def test_the_exit_status_says_whether_all_are_there(
    answering: list, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(_env_file=None, redis_url="redis://127.0.0.1:6379/0")
    monkeypatch.setattr(worker_list, "load_settings", lambda: settings)
    monkeypatch.setattr(worker_list, "worker_states", lambda *_: answering)
    assert worker_list.main(["--gpu-workers", "2"]) == status
    assert ("of 2 GPU workers" in capsys.readouterr().err) is bool(status)


def test_the_list_shows_that_a_worker_is_drained() -> None:
    assert describe(state(draining=True, runs=["a1"]), 0) == "queue gpu  is drained: executes a1, takes no more runs"


def test_a_worker_is_found_without_its_host_where_that_is_clear() -> None:
    assert drain.full_name("gpu-0", ["cpu@a", "gpu-0@a"]) == "gpu-0@a"
    assert drain.full_name("gpu@b", ["gpu@a", "gpu@b"]) == "gpu@b"
    assert drain.full_name("gpu", ["gpu@a", "gpu@b"]) is None
    assert drain.full_name("gpu-9", ["gpu@a"]) is None


@pytest.mark.parametrize("stay", [False, True])
def test_a_drained_worker_ends_once_it_is_idle(stay: bool) -> None:
    """Idle at several looks: a message may still have been on its way."""
    looks = [["a1"], [], ["a2"], *[[]] * QUIET_POLLS]
    ended: list[int] = []
    draining = Draining(lambda: looks.pop(0), end=lambda: ended.append(1), wait=lambda _: None)
    draining.begun = True
    draining._stay = stay
    draining._finish()
    assert looks == []
    assert ended == ([] if stay else [1])
    assert (draining.over, draining.stays) == (not stay, stay)

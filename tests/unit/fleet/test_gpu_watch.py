"""A worker's GPU stops answering and answers again: when it is asked, what its run and its queue get to know."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from kombu.exceptions import OperationalError

from libs.settings import Settings
from orchestration.fleet import worker, worker_list
from orchestration.fleet.gpus.gpu_check import NO_CUDA, GpuCheck, UsedGpus, ask_gpus
from orchestration.fleet.gpus.gpu_requirement import required_gpus
from orchestration.fleet.gpus.gpu_watch import GpuWatch
from orchestration.fleet.worker_list import describe
from orchestration.fleet.working import run_gate
from orchestration.fleet.working.draining import Draining
from orchestration.fleet.working.run_gate import TELL_SECONDS, RunGate
from orchestration.fleet.working.worker_panel import GPU_LOST, GPU_WORKS
from tests.waiting import HANG_SECONDS

DEAD = "cuda:0: CUDA unknown error"


class Watched:
    """A watch over a GPU that answers as ``answers`` says; waits for nothing, and notes for how long it would."""

    def __init__(
        self,
        answers: list[str | None],
        before: Callable[[], None] = lambda: None,
        reading: Callable[[], None] = lambda: None,
    ) -> None:
        self.waited: list[float] = []
        self.done = threading.Event()
        self.read_on = 0

        def answer() -> str | None:
            before()
            return answers.pop(0)

        def read_on() -> None:
            self.read_on += 1
            reading()
            self.done.set()

        self.watch = GpuWatch(answer, read_on, wait=self.waited.append)

    def takes_runs_again(self) -> bool:
        """Within a while, and the worker reads its queue before it says so."""
        assert self.done.wait(HANG_SECONDS)
        self.done.clear()
        for thread in threading.enumerate():
            if thread.name == "gpu-watch":
                thread.join(HANG_SECONDS)
        return self.watch.trouble is None


def test_a_silent_gpu_is_asked_at_growing_intervals_until_it_answers() -> None:
    watched = Watched([DEAD] * 8 + [None])
    watched.watch.report_loss("an illegal memory access")
    assert watched.takes_runs_again()
    assert watched.waited == [2, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_card_that_answers_but_loses_every_clip_is_left_alone_for_longer_each_time() -> None:
    """The first time all that was needed could be a new process; a clip that is made ends it."""
    watched = Watched([None] * 4)
    for _ in range(3):
        watched.watch.report_loss("an uncorrectable bit")
        assert watched.takes_runs_again()
    assert watched.waited == [2, 10, 20]
    watched.watch.report_success()
    watched.watch.report_loss("an uncorrectable bit")
    assert watched.takes_runs_again()
    assert watched.waited == [2, 10, 20, 2]


def test_a_loss_while_the_gpu_is_asked_is_not_forgotten() -> None:
    losses = iter(["another process died, too"])

    def lose() -> None:
        for reason in losses:
            watched.watch.report_loss(reason)

    watched = Watched([None, None], lose)
    watched.watch.report_loss("the first")
    assert watched.takes_runs_again()
    assert len(watched.waited) == 2
    assert watched.read_on == 1, "not before it was asked again"


def test_a_loss_while_the_worker_begins_to_read_stops_it_again() -> None:
    losses = iter(["another process died, too"])
    seen = []

    def lose() -> None:
        for reason in losses:
            before = watched.watch.trouble
            watched.watch.report_loss(reason)
            seen.append((before, watched.watch.trouble))

    watched = Watched([None, None], reading=lose)
    watched.watch.report_loss("the first")
    assert watched.takes_runs_again()
    assert (watched.waited, watched.read_on) == ([2, 10], 2)
    ((first, second),) = seen
    assert second.reason == "another process died, too"
    assert second.since == first.since, "it has taken no runs since the first"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        yield instance


class Gated:
    """A gate before a GPU that answers as ``answers`` says, in a process that tells its worker and sends runs back."""

    def __init__(
        self, patch: pytest.MonkeyPatch, answers: list[str | None], *, troubles: bool = False, gpus: int = 1
    ) -> None:
        self.told: list[tuple[str, str]] = []
        self.answers = answers
        check = SimpleNamespace(probe=lambda: answers.pop(0), gpus=UsedGpus(0, gpus))
        self.gate = RunGate(check, SimpleNamespace(), "gpu-0@host", "gpu", had_troubles=lambda: troubles)  # type: ignore[arg-type]
        patch.setattr(self.gate, "_tell", lambda command, **said: self.told.append((command, said.get("reason", ""))))
        patch.setattr(run_gate, "send_run", lambda _, run_id, queue: self.told.append((f"sent to {queue}", run_id)))


def test_a_run_goes_back_untouched_after_the_worker_has_stopped_reading(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = Gated(monkeypatch, [DEAD, DEAD, None])
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING)
    assert not gated.gate.admits(run.run_id)
    assert gated.told == [(GPU_LOST, DEAD), ("sent to gpu", run.run_id)]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTING
    (message,) = [entry.message for entry in instance.all_logs(run.run_id) if DEAD in entry.message]
    assert "gpu-0@host" in message
    assert not gated.gate.admits(run.run_id), "asked again, since it did not answer"
    assert gated.gate.admits(run.run_id)


def test_a_run_that_was_canceled_while_the_gpu_was_asked_is_brought_to_its_end(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = Gated(monkeypatch, [DEAD])
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.CANCELING)
    assert gated.gate.admits(run.run_id)
    assert gated.told == [(GPU_LOST, DEAD)]


@pytest.mark.parametrize(("initialized", "gpus", "asked"), [(True, 1, 1), (False, 1, 2), (True, 2, 2)])
def test_the_gpu_is_asked_before_the_first_run_and_after_one_that_failed_without_it(
    initialized: bool, gpus: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several GPUs this process uses but one: the loss of another shows in no error of its own."""
    gated = Gated(monkeypatch, [None, None, None], gpus=gpus)
    torch = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: initialized))
    monkeypatch.setitem(run_gate.sys.modules, "torch", torch)
    assert gated.gate.admits("first")
    gated.gate.note_end("SUCCESS")
    assert gated.gate.admits("second")
    gated.gate.note_end("FAILURE")
    assert gated.gate.admits("third")
    assert 3 - len(gated.answers) == asked
    assert gated.told == []


def test_a_clip_after_a_loss_ends_the_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = Gated(monkeypatch, [], troubles=True)
    for status in ("FAILURE", "SUCCESS", "SUCCESS"):
        gated.gate.note_end(status)
    assert gated.told == [(GPU_WORKS, "")]


def test_a_process_tells_its_worker_also_when_redis_is_away_for_a_while() -> None:
    waited: list[float] = []
    answers = [OperationalError("away"), OperationalError("away"), [], [{"gpu-0@host": {"ok": "noted"}}]]

    def broadcast(command: str, **options: object) -> object:
        assert (command, options["destination"]) == (GPU_LOST, ["gpu-0@host"])
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    outbox = SimpleNamespace(connection_for_write=contextlib.nullcontext, control=SimpleNamespace(broadcast=broadcast))
    check = SimpleNamespace(gpus=UsedGpus())
    RunGate(check, outbox, "gpu-0@host", "gpu", wait=waited.append).report_loss(DEAD)  # type: ignore[arg-type]
    assert answers == []
    assert waited == [TELL_SECONDS] * 2, "an unanswered one has waited itself"


def test_a_worker_that_does_not_hear_it_yet_is_told_again_to_read_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of Redis, what is sent before it listens there again is lost."""
    answers = [OperationalError("away"), [], [{"gpu-0@host": {"ok": "add consumer gpu"}}]]

    def broadcast(command: str, **options: object) -> object:
        assert (command, options["arguments"]) == ("add_consumer", {"queue": "gpu"})
        assert (options["destination"], options["reply"]) == (["gpu-0@host"], True)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    outbox = SimpleNamespace(connection_for_write=contextlib.nullcontext, control=SimpleNamespace(broadcast=broadcast))
    monkeypatch.setattr(worker, "make_celery_app", lambda *_, **__: outbox)
    monkeypatch.setattr(worker, "BROKER_PAUSE_SECONDS", 0.0)
    watch = worker.guard(UsedGpus(), "redis://host", "gpu-0@host", "gpu", Draining(list)).gpu_watch
    assert watch is not None
    watch._read_on()
    assert answers == []


@pytest.mark.parametrize(
    ("device", "queue", "visible", "named", "listed", "reason", "gpus"),
    [
        ("cuda", "gpu", None, False, None, DEAD, UsedGpus(0, 1)),
        ("cuda:2", "gpu", None, False, None, DEAD, UsedGpus(2, 1)),
        ("cuda", "cpu", "", False, True, None, None),
        ("cpu", "gpu", "0", True, True, None, None),
        ("auto", "gpu", None, False, True, None, UsedGpus(0, 1)),
        ("auto", "gpu", None, False, False, None, UsedGpus(0, 1)),
        ("auto", "gpu", None, False, True, DEAD, UsedGpus(0, 1)),
        ("auto", "gpu", "0", True, False, DEAD, UsedGpus(0, 1)),
        ("auto", "gpu", "0", True, None, DEAD, UsedGpus(0, 1)),
        ("auto", "gpu", None, False, False, DEAD, None),
        ("auto", "gpu", "0", True, True, NO_CUDA, None),
        ("auto", "gpu", "", False, True, None, None),
        ("auto", "gpu", None, False, None, None, None),
    ],
)
def test_what_auto_means_is_settled_when_a_worker_starts(
    device: str,
    queue: str,
    visible: str | None,
    named: bool,
    listed: bool | None,
    reason: str | None,
    gpus: UsedGpus | None,
) -> None:
    settings = Settings(_env_file=None, one_to_all_device=device, one_to_all_parallel=None)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = required_gpus(
        settings, queue, environment, named=named, probe=lambda _: reason, machine_has_gpus=lambda: listed
    )
    assert found == gpus


@pytest.mark.slow
def test_gpus_are_probed_in_a_separate_process() -> None:
    """Without CUDA in this installation of torch, and with a process that ends before it can say anything."""
    assert GpuCheck(UsedGpus()).probe() == ask_gpus(UsedGpus())
    assert "invalid literal" in GpuCheck(UsedGpus(first="x")).probe()  # type: ignore[arg-type]


def test_a_process_that_hangs_is_ended_and_counts_as_silence() -> None:
    assert GpuCheck(UsedGpus(), seconds=0.01).probe() == "no answer within 0 s"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (4096.0, None),
        (4095.0, "cuda:1 computes wrong sums: 4095.0 for 4096"),
        (RuntimeError("CUDA error: out of memory\nmore"), None),
        (RuntimeError("CUDA unknown error\nmore"), "cuda:1: CUDA unknown error"),
    ],
)
def test_what_counts_as_an_answer(
    answer: float | Exception, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def item() -> float:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ones(_: int, device: str) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(sum=lambda: SimpleNamespace(item=item))

    backends = SimpleNamespace(cuda=SimpleNamespace(is_built=lambda: True))
    monkeypatch.setitem(run_gate.sys.modules, "torch", SimpleNamespace(ones=ones, backends=backends))
    assert ask_gpus(UsedGpus(1, 2)) == reason
    assert asked == (["cuda:1", "cuda:2"] if reason is None else ["cuda:1"])


def test_the_list_says_why_a_worker_takes_no_runs() -> None:
    state = {"queue": "gpu", "runs": [], "trouble": None, "since": None}
    assert describe(state, 0) == "queue gpu  idle"
    assert describe({**state, "runs": ["a1"]}, 0) == "queue gpu  executes a1"
    paused = describe({**state, "trouble": DEAD, "since": 60.0}, 240.0)
    assert paused == f"queue gpu  takes no runs for 3 min, since its GPU does not work: {DEAD}"
    assert "unknown" in describe({"error": "unknown command"}, 0)


def test_without_an_address_the_list_says_which_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_list, "load_settings", lambda: Settings(_env_file=None))
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert worker_list.main([]) == 1
    assert capsys.readouterr().err.startswith("REDIS_URL is not set")

"""The inbox through the daemon's own handler: nothing that one person puts there stops the others."""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster._core.scheduler.instigation import TickStatus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.requests.documents.batch import parse_submission
from tests.integration.orchestration.conftest import world_in
from tests.integration.orchestration.sensor_ticks import SensorTicks, sensor_ticks
from tests.waiting import HANG_SECONDS

AN_HOUR_AGO = 3600.0


@pytest.fixture
def ticks(empty_world: Any) -> Iterator[SensorTicks]:
    put_media(empty_world, "puppet.png", "dance.mp4")
    with sensor_ticks(empty_world) as ticks:
        yield ticks


def fields(request_id: str, **more: Any) -> dict[str, Any]:
    return {"id": request_id, "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", **more}


def put(world: Any, name: str, content: Any, age: float = AN_HOUR_AGO) -> None:
    """Put a document into the inbox that was written ``age`` seconds ago."""
    world.put(name, content if isinstance(content, bytes) else json.dumps(content).encode())
    path = world.data_dir / "artifacts" / "inbox" / name
    os.utime(path, (time.time() - age,) * 2)


def put_media(world: Any, *names: str) -> None:
    for name in names:
        put(world, name, f"content of {name}".encode(), age=2 * AN_HOUR_AGO)


def rejected(world: Any) -> dict[str, str]:
    return {rejection.name: rejection.reason for rejection in world.inbox.rejections()}


def test_of_two_documents_that_want_one_new_id_the_first_is_accepted(ticks: SensorTicks) -> None:
    put(ticks.world, "anna/walk.json", fields("walk", seed=1))
    put(ticks.world, "ben/walk.json", fields("walk", seed=2))
    put(ticks.world, "list.json", [fields("run"), fields("walk", seed=3)])
    put(ticks.world, "zoe.json", fields("zoe"))
    ticks.tick()
    assert ticks.registered() == ["walk", "zoe"]
    assert [request_id for request_id, _ in ticks.runs()] == ["walk", "zoe"]
    assert ticks.world.requests.find("walk").request.seed == 1
    assert sorted(rejected(ticks.world)) == ["ben/walk.json", "list.json"]
    for reason in rejected(ticks.world).values():
        assert "id: 'walk' is taken: anna/walk.json" in reason
    ticks.tick()
    assert ticks.world.inbox.documents() == []


def test_a_document_that_asks_for_the_same_is_taken_as_the_same(ticks: SensorTicks) -> None:
    put(ticks.world, "anna/walk.json", fields("walk", seed=1))
    put(ticks.world, "list.json", [fields("run"), fields("walk", seed=1)])
    ticks.tick()
    ticks.tick()
    assert ticks.registered() == ["run", "walk"]
    assert len(ticks.runs()) == 2
    assert rejected(ticks.world) == {}
    assert ticks.world.inbox.documents() == []


def test_a_document_that_was_there_when_its_id_was_taken_does_not_replace_that_request(
    ticks: SensorTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many looks it takes until it has its turn; one that is written afterwards is meant to replace it."""
    monkeypatch.setattr("libs.requests.inbox.intake.ScanLimits.__init__.__defaults__", (1, 500, 25.0, 600.0, 5.0))
    put(ticks.world, "a.json", fields("a", seed=1))
    put(ticks.world, "team/a.json", fields("a", seed=2))
    put(ticks.world, "team/b.json", fields("b"))
    put(ticks.world, "z/a.json", fields("a", seed=1))
    for _ in range(6):
        ticks.tick()
    assert ticks.registered() == ["a", "b"]
    assert ticks.world.requests.find("a").request.seed == 1
    assert "id: 'a' is taken: a.json" in rejected(ticks.world)["team/a.json"]
    put(ticks.world, "team/a.json", fields("a", seed=3), age=0)
    for _ in range(3):
        ticks.tick()
    assert ticks.world.requests.find("a").request.seed == 3


def test_a_request_whose_partition_was_deleted_runs_when_it_is_submitted_again(ticks: SensorTicks) -> None:
    put(ticks.world, "a.json", fields("a"))
    ticks.tick()
    (run,) = ticks.queued()
    ticks.world.instance.report_run_canceled(run)
    ticks.world.instance.delete_dynamic_partition("animation_requests", "a")
    ticks.tick()
    put(ticks.world, "a.json", fields("a"))
    ticks.tick()
    assert ticks.registered() == ["a"]
    assert len(ticks.queued()) == 2
    ticks.tick()
    put(ticks.world, "a.json", fields("a"))
    ticks.tick()
    assert len(ticks.queued()) == 2, "the second one waits in the queue"


UNFORESEEN = {
    "bool.yaml": b"id: bool\nreference: puppet.png\ndriver: dance.mp4\nprompt: !!bool foo\n",
    "int.yaml": b'id: int\nreference: puppet.png\ndriver: dance.mp4\nseed: !!int ""\n',
    "time.yaml": b"id: time\nreference: puppet.png\ndriver: dance.mp4\nprompt: !!timestamp x\n",
    "hex.yaml": b"id: hex\nreference: puppet.png\ndriver: dance.mp4\nseed: 0x" + b"f" * 5000 + b"\n",
    "sixty.yaml": b"id: sixty\nreference: puppet.png\ndriver: dance.mp4\nsteps: 1" + b":00" * 300 + b".0\n",
    "long.json": json.dumps(fields("long", driver="舞" * 400)).encode(),
}


def test_an_error_in_one_document_does_not_stop_the_others(ticks: SensorTicks) -> None:
    for name, content in UNFORESEEN.items():
        put(ticks.world, name, content)
    put(ticks.world, "zoe.json", fields("zoe"))
    ticks.tick()
    assert ticks.registered() == ["zoe"]
    assert sorted(rejected(ticks.world)) == sorted(UNFORESEEN)
    assert all(rejected(ticks.world).values())
    assert "driver: " in rejected(ticks.world)["long.json"]
    assert "too long, at most 900" in rejected(ticks.world)["long.json"]


def test_an_unexpected_error_is_reported_to_the_person_and_logged(
    ticks: SensorTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(content: bytes, *, source: str) -> Any:
        if source == "odd.json":
            raise ZeroDivisionError("a fault of the software")
        return parse_submission(content, source=source)

    monkeypatch.setattr("libs.requests.inbox.intake.parse_submission", parse)
    put(ticks.world, "odd.json", fields("odd"))
    put(ticks.world, "zoe.json", fields("zoe"))
    logged: list[str] = []
    monkeypatch.setattr(
        "dagster._core.definitions.sensor_definition.SensorEvaluationContext.log",
        property(lambda _: _Log(logged)),
    )
    ticks.tick()
    assert ticks.registered() == ["zoe"]
    assert "because of an unexpected error" in rejected(ticks.world)["odd.json"]
    assert "ZeroDivisionError" not in rejected(ticks.world)["odd.json"]
    assert any("ZeroDivisionError: a fault of the software" in line for line in logged)


class _Log:
    def __init__(self, lines: list[str]) -> None:
        self.warning = self.error = lines.append


def test_a_folder_in_place_of_an_accepted_request_stops_only_that_document(ticks: SensorTicks) -> None:
    root = ticks.world.data_dir / "artifacts"
    (root / "requests" / "accepted" / "a.json").mkdir(parents=True)
    (root / "requests" / "documents" / "b.json").mkdir(parents=True)
    (root / "inbox" / "rejected" / "c.json").mkdir(parents=True)
    put(ticks.world, "a.json", fields("a"))
    put(ticks.world, "b.json", fields("b"))
    put(ticks.world, "c.json", b"{")
    put(ticks.world, "zoe.json", fields("zoe"))
    ticks.tick()
    ticks.tick()
    assert ticks.registered() == ["b", "zoe"]
    assert "it cannot be kept" in rejected(ticks.world)["a.json"]
    assert "neither YAML nor JSON" in rejected(ticks.world)["c.json"]
    assert ticks.world.inbox.documents() == []


def test_a_name_composed_in_one_way_is_found_in_the_other(ticks: SensorTicks) -> None:
    put_media(ticks.world, "Mu\u0308ller/ta\u0308nzerin.png", "caf\u00e9.mp4")
    composed = fields("composed", reference="M\u00fcller/t\u00e4nzerin.png", driver="cafe\u0301.mp4")
    put(ticks.world, "composed.json", composed)
    mixed = fields("mixed", reference="Mu\u0308ller/t\u00e4nzerin.png", driver="caf\u00e9.mp4")
    put(ticks.world, "mixed.json", mixed)
    ticks.tick()
    assert ticks.registered() == ["composed", "mixed"]


def test_a_link_is_never_followed(ticks: SensorTicks, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(fields("secret", prompt="password")))
    secret.chmod(0o600)
    inbox = ticks.world.data_dir / "artifacts" / "inbox"
    (inbox / "secret.json").symlink_to(secret)
    (inbox / "inside.json").symlink_to(inbox / "zoe.json")
    (inbox / "stolen.mp4").symlink_to(secret)
    (inbox / "folder").symlink_to(tmp_path)
    put(ticks.world, "zoe.json", fields("zoe"))
    put(ticks.world, "thief.json", fields("thief", driver="stolen.mp4"))
    put(ticks.world, "deep.json", fields("deep", driver="folder/secret.json"))
    ticks.tick()
    assert ticks.registered() == ["zoe"]
    reasons = rejected(ticks.world)
    assert sorted(reasons) == ["inside.json", "secret.json"]
    assert "symbolic link" in reasons["secret.json"]
    assert not (inbox / "secret.json").is_symlink()
    assert secret.exists()
    copied = [path for path in inbox.parent.rglob("*") if path.is_file() and "password" in path.read_text("latin-1")]
    assert [path.resolve() for path in copied] in ([], [secret])


def test_a_file_dated_in_the_future_holds_nothing_up(ticks: SensorTicks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.requests.inbox.intake.ScanLimits.__init__.__defaults__", (200, 500, 25.0, 600.0, 0.0))
    in_2099 = time.time() - 4_070_908_800
    ticks.world.put("camera.mp4", b"video")
    os.utime(ticks.world.data_dir / "artifacts" / "inbox" / "camera.mp4", (4_070_908_800,) * 2)
    put(ticks.world, "a.json", fields("a", driver="camera.mp4"))
    put(ticks.world, "b.json", fields("b", driver="camera.mp4"), age=in_2099)
    put(ticks.world, "bad.json", b"{", age=in_2099)
    ticks.tick()
    ticks.tick()
    assert ticks.registered() == ["a", "b"]
    assert sorted(rejected(ticks.world)) == ["bad.json"]


NAMES = ["a.json", "b.yaml", "c.yml", "x/a.json", "y/a.json", "list.json", "x/list.yaml", "é.json"]
IDS = ["a", "b", "c"]
requests_of_anybody = st.builds(
    lambda request_id, seed, driver: fields(request_id, seed=seed, driver=driver),
    st.sampled_from(IDS),
    st.sampled_from([1, 2]),
    st.sampled_from(["dance.mp4", "gone.mp4", "second.mp4"]),
)
contents = st.one_of(
    requests_of_anybody,
    st.lists(requests_of_anybody, min_size=1, max_size=3),
    st.sampled_from(list(UNFORESEEN.values())),
    st.binary(max_size=12),
    st.text(max_size=12).map(str.encode),
)
ages = st.sampled_from([0.0, 3.0, 700.0, 1e6, -1e6, -4e9])


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents=st.dictionaries(st.sampled_from(NAMES), st.tuples(contents, ages), min_size=1, max_size=6))
def test_no_file_in_the_inbox_makes_a_tick_fail_and_good_requests_are_made(
    tmp_path_factory: pytest.TempPathFactory, documents: dict[str, tuple[Any, float]]
) -> None:
    with world_in(tmp_path_factory.mktemp("inbox") / "world") as world, sensor_ticks(world) as ticks:
        put_media(world, "puppet.png", "dance.mp4", "second.mp4")
        for name, (content, age) in documents.items():
            put(world, name, content, age)
        put(world, "zoe.json", fields("zoe"), age=60)
        ticks.tick()
        ticks.tick()
        assert "zoe" in ticks.registered()
        runs = [request_id for request_id, _ in ticks.runs()]
        assert runs == ticks.registered(), "one run for each"
        assert {marker.request_id for marker in world.requests.pending_markers()} == set(runs)
        assert all(rejected(world).values())


ODD_NAMES = [
    "ta\u0308nzer [1].json",
    'it\'s "two" words.json',
    "\u821e/\u821e\u8e48.json",
    "--help.json",
    "[/red].json",
]


@pytest.mark.slow
def test_the_daemon_itself_makes_one_run_of_each_good_request(ticks: SensorTicks) -> None:
    """Dagster's threaded sensor daemon over a set of documents, the order of whose arrival is drawn by chance."""
    chance = random.Random(14)
    good = {f"dance-{number}": chance.randrange(1000) for number in range(16)}
    documents: dict[str, Any] = {f"{name}.json": fields(name, seed=seed) for name, seed in good.items()}
    same, other = chance.sample(sorted(good), 5), chance.sample(sorted(good), 5)
    documents |= {f"copy/{name}.json": fields(name, seed=good[name]) for name in same}
    documents |= {f"z/{name}.json": fields(name, seed=1000 + good[name]) for name in other}
    for number, name in enumerate(ODD_NAMES):
        pair = {f"odd-{number}-{half}": chance.randrange(1000) for half in "ab"}
        good |= pair
        documents[name] = [fields(request_id, seed=seed) for request_id, seed in pair.items()]
    bad = {f"bad/{name}": content for name, content in UNFORESEEN.items()}
    bad |= {f"bad/{number}.yaml": chance.randbytes(chance.randrange(1, 40)) for number in range(6)}
    arrivals = [*documents.items(), *bad.items()]
    chance.shuffle(arrivals)
    for name, content in arrivals:
        put(ticks.world, name, content)
    errors = ticks.run_daemon(lambda: len(ticks.queued()) >= len(good) and not ticks.world.inbox.documents())
    assert errors == []
    assert {tick.status for tick in ticks.ticks()} <= {TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.STARTED}
    assert ticks.registered() == sorted(good)
    assert [request_id for request_id, _ in ticks.runs()] == sorted(good), "one run for each"
    assert {name: ticks.world.requests.find(name).request.seed for name in good} == good
    assert sorted(rejected(ticks.world)) == sorted([*bad, *(f"z/{name}.json" for name in other)])
    assert ticks.world.inbox.documents() == []


DOCUMENTS = 120


@pytest.mark.slow
def test_each_good_document_of_two_people_becomes_one_pending_request_with_its_media(
    empty_world: Any,
) -> None:
    """A tenth is bad, a tenth is there twice; both people call their files by the same names."""
    chance = random.Random(13)
    own: dict[str, str] = {}
    bad: set[str] = set()
    with sensor_ticks(empty_world) as ticks:
        for person in ("anna", "ben"):
            content = {name: f"{name} of {person}".encode() for name in ("puppet.png", "dance.mp4")}
            for name, data in content.items():
                put(empty_world, name, data, age=2 * AN_HOUR_AGO)
            for number in range(DOCUMENTS // 2):
                request_id = f"{person}-{number:03}"
                name = f"{person}/{request_id}.json"
                request = fields(request_id, seed=chance.randrange(10), when="nightly")
                if number % 10 == 0:
                    bad.add(name)
                    put(empty_world, name, chance.choice([*UNFORESEEN.values(), b"{", {**request, "steps": 0}]))
                elif number % 10 == 1:  # what the document before it asks for, or somebody else's id for another clip
                    earlier = chance.choice(sorted(own)) if own else request_id
                    original = empty_world.requests.find(earlier)
                    put(empty_world, name, fields(request_id, when="nightly"))
                    own[request_id] = person
                    if original is None:
                        put(empty_world, f"{person}/z/{request_id}.json", fields(request_id, when="nightly"))
                    else:
                        copy = f"{person}/z{number:03}/{earlier}.json"
                        put(empty_world, copy, fields(earlier, seed=99, when="nightly"))
                        bad.add(copy)
                else:
                    put(empty_world, name, request)
                    own[request_id] = person
            deadline = time.monotonic() + 2 * HANG_SECONDS
            while empty_world.inbox.documents() and time.monotonic() < deadline:
                ticks.tick()
        assert {tick.status for tick in ticks.ticks()} <= {TickStatus.SUCCESS, TickStatus.SKIPPED}
        assert ticks.registered() == sorted(own)
    markers = [marker.request_id for marker in empty_world.requests.pending_markers()]
    assert sorted(markers) == sorted(own), "each is pending once"
    for request_id, person in own.items():
        media = empty_world.requests.find(request_id).media
        for name in ("puppet.png", "dance.mp4"):
            assert media[name].sha256 == hashlib.sha256(f"{name} of {person}".encode()).hexdigest()
    reasons = rejected(empty_world)
    assert set(reasons) == bad
    assert all(reasons.values())

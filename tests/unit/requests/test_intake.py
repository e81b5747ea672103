"""One look at the inbox after the other, on a real folder: what is accepted, refused, left, and in which order."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import InputError, StorageError, StorageUnavailableError
from libs.requests import intake
from libs.requests.accepted import AcceptedRequests
from libs.requests.inbox import Inbox
from libs.requests.intake import InboxIntake, Intake, IntakeLimits, IntakeState
from libs.storage.folder import FolderObjectStore

LATER = timedelta(minutes=1)
MUCH_LATER = timedelta(hours=1)


class Desk:
    """An inbox in a folder and somebody who looks at it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.objects = FolderObjectStore(folder)
        self.inbox = Inbox(self.objects)
        self.requests = AcceptedRequests(self.objects)
        self.limits = IntakeLimits(**limits)
        self.state = IntakeState()
        self.put("r.png", b"picture")
        self.put("d.mp4", b"video")

    def put(self, name: str, content: bytes | dict[str, Any] | list[Any]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.objects.put_bytes(f"inbox/{name}", data)

    def request(self, request_id: str, **fields: Any) -> None:
        self.put(f"{request_id}.json", request_fields(request_id, **fields))

    def look(self, after: timedelta = LATER) -> Intake:
        """Look; the state goes the way of a cursor."""
        intake = InboxIntake(self.inbox, self.requests, "sandbox", self.limits).look(
            self.state, datetime.now(UTC) + after
        )
        self.state = IntakeState.load(intake.state.model_dump_json(exclude_defaults=True))
        return intake

    def names(self, prefix: str) -> list[str]:
        return [info.key.removeprefix(prefix) for info in self.objects.list(prefix)]


def request_fields(request_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": request_id, "reference": "r.png", "driver": "d.mp4", **fields}


def ids(intake: Intake) -> list[str]:
    return [entry.request.id for entry in intake.accepted]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_an_accepted_document_leaves_one_look_later(desk: Desk) -> None:
    desk.request("a")
    assert ids(desk.look()) == ["a"]
    assert "a.json" in desk.names("inbox/"), "its run is only launched after this look"
    assert ids(desk.look()) == []
    assert desk.names("inbox/") == ["d.mp4", "r.png"]
    assert desk.names("requests/documents/") == ["a.json"]
    accepted = desk.requests.find("a")
    assert accepted is not None
    assert (accepted.request.model, accepted.document, accepted.revision) == ("sandbox", "a.json", 1)


def test_a_look_that_is_lost_is_repeated_with_the_same_result(desk: Desk) -> None:
    desk.request("a")
    state = desk.state
    first = desk.look()
    desk.state = state
    assert desk.look().accepted == first.accepted


def test_the_same_content_is_nothing_new_and_other_content_is(desk: Desk) -> None:
    keys = []
    for prompt in ("one", "one", "two", "one"):
        desk.request("a", prompt=prompt)
        keys.append(desk.look().accepted[0].run_key)
        desk.look()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3, "going back to an earlier content is a submission of its own"
    accepted = desk.requests.find("a")
    assert accepted is not None
    assert accepted.revision == 3


def test_other_media_of_the_same_name_are_other_content(desk: Desk) -> None:
    desk.request("a")
    before = desk.look().accepted[0]
    desk.look()
    desk.put("d.mp4", b"another video")
    desk.request("a")
    assert desk.look().accepted[0].content != before.content


def test_a_request_written_in_another_way_is_the_same_content(desk: Desk) -> None:
    desk.request("a", seed=42)
    before = desk.look().accepted[0]
    desk.look()
    desk.put("a.yaml", b"driver: ./d.mp4\nreference: r.png # the puppet\nid: a\npriority: 9\n")
    after = desk.look().accepted[0]
    assert after.run_key == before.run_key
    assert after.request.priority == 9


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", b"id: a\nreference: r.png\n", "driver: is required"),
        ("a.yaml", b"\xff\xfe", "not UTF-8"),
        ("a.json", b"{", "neither YAML nor JSON"),
        ("a.json", b'{"id": "a", "\\ud800": 1}', "valid string"),
        ("a.json", b"", "expected a mapping"),
        ("a.yml", b"id: b\nreference: r.png\ndriver: d.mp4", "id: is 'b', but the document is named for 'a'"),
        ("a.yml", b"batch: b\nreferences: [r.png]\ndrivers: [d.mp4]", "batch: is 'b'"),
        ("a.json", b" " * 1_000_001, "may have at most 1000000"),
        ("sub/deep.yaml", b"id: deep", "reference: is required"),
    ],
)
def test_a_bad_document_is_put_aside_with_its_reason_and_never_in_the_way_again(
    desk: Desk, name: str, content: bytes, expected: str
) -> None:
    desk.put(name, content)
    desk.request("good")
    intake = desk.look()
    assert ids(intake) == ["good"]
    assert [rejection.name for rejection in intake.rejected] == [name]
    assert expected in intake.rejected[0].reason
    assert desk.objects.get_bytes(f"inbox/rejected/{name}") == content
    text = desk.objects.get_bytes(f"inbox/rejected/{name}.error.txt").decode()
    assert expected in text
    assert text.startswith(f"{name} was not accepted")
    assert not desk.objects.exists(f"inbox/{name}")
    again = desk.look()
    assert not again.rejected
    assert not again.unreadable
    assert [rejection.name for rejection in desk.inbox.rejections()] == [name]
    assert expected in next(iter(desk.inbox.rejections())).reason


def test_a_corrected_document_takes_the_refused_one_away(desk: Desk) -> None:
    desk.put("a.json", b"{")
    desk.look()
    desk.request("a")
    desk.look()
    desk.look()
    assert not list(desk.inbox.rejections())
    assert not desk.names("inbox/rejected/")


def test_a_document_that_is_still_written_is_left_alone(desk: Desk) -> None:
    desk.put("a.yaml", b"id: a\nrefer")
    assert desk.look(timedelta(seconds=1)).waiting == ["a.yaml"]
    desk.put("a.yaml", b"id: a\nreference: r.png\ndriver: d.mp4\n")
    assert ids(desk.look(timedelta(seconds=1))) == ["a"]


def test_a_document_that_changes_while_it_is_accepted_is_looked_at_again(desk: Desk) -> None:
    desk.request("a")
    desk.look()
    desk.request("a", prompt="changed")
    intake = desk.look()
    assert ids(intake) == ["a"]
    assert intake.accepted[0].request.prompt == "changed"
    desk.look()
    assert desk.names("inbox/") == ["d.mp4", "r.png"]


def test_missing_media_are_waited_for_and_then_named(desk: Desk) -> None:
    desk.request("a", driver="late.mp4")
    desk.request("b", reference="never.png", driver="gone.mp4")
    assert desk.look().waiting == ["a.json", "b.json"]
    desk.put("late.mp4", b"video")
    intake = desk.look()
    assert (ids(intake), intake.waiting) == (["a"], ["b.json"])
    desk.look(MUCH_LATER)
    intake = desk.look(2 * MUCH_LATER)
    assert [rejection.name for rejection in intake.rejected] == ["b.json"]
    assert "reference: there is no file 'never.png'" in intake.rejected[0].reason
    assert "driver: there is no file 'gone.mp4'" in intake.rejected[0].reason
    assert " more" not in intake.rejected[0].reason


@pytest.mark.parametrize(("count", "expected"), [(20, "20.mp4"), (21, "and 1 more")])
def test_twenty_missing_media_are_named_and_the_others_counted(desk: Desk, count: int, expected: str) -> None:
    desk.put("list.json", [request_fields(f"a{n}", driver=f"{n}.mp4") for n in range(1, count + 1)])
    desk.look(MUCH_LATER)
    (rejection,) = desk.look(2 * MUCH_LATER).rejected
    *lines, last = rejection.reason.splitlines()
    assert expected in lines[-1]
    assert (sum("there is no file" in line for line in lines), len(lines)) == (20, count)
    assert last == "It waited 10 minutes for that."


def test_a_document_with_an_old_date_gets_the_same_grace_each_time_it_is_sent(desk: Desk) -> None:
    late = 10 * MUCH_LATER
    desk.request("a", driver="late.mp4")
    assert desk.look(late).waiting == ["a.json"]
    assert desk.look(late + timedelta(seconds=599)).waiting == ["a.json"]
    assert [rejection.name for rejection in desk.look(late + timedelta(seconds=601)).rejected] == ["a.json"]
    desk.request("a", driver="late.mp4")
    assert desk.look(late + timedelta(seconds=602)).waiting == ["a.json"]
    desk.put("late.mp4", b"video")
    assert ids(desk.look(late + timedelta(seconds=603) + LATER)) == ["a"]


def test_when_documents_were_seen_is_remembered_for_as_long_and_as_many_as_is_of_use(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).timestamp()
    desk.state.seen = {"taken-back": now - 1210, "soon": now - 1150}
    desk.look(timedelta())
    assert set(desk.state.seen) == {"soon"}
    monkeypatch.setattr(intake, "_MAX_SEEN", 2)
    for name in "abc":
        desk.request(name, driver="late.mp4")
    assert desk.look(10 * MUCH_LATER).waiting == ["a.json", "b.json", "c.json"]
    assert set(desk.state.seen) == {"a.json", "b.json"}


def test_media_that_arrive_after_their_document_may_still_grow(desk: Desk) -> None:
    desk.request("a", driver="late.mp4")
    desk.put("late.mp4", b"half a vid")
    assert desk.look(timedelta(seconds=1)).waiting == ["a.json"]
    assert ids(desk.look(LATER)) == ["a"]


def test_media_that_take_long_to_arrive_are_waited_for(desk: Desk) -> None:
    desk.request("a", driver="large.mp4")
    desk.put("large.mp4", b"half a vid")
    for minutes in (20, 35, 50):
        later = timedelta(minutes=minutes)
        written = (datetime.now(UTC) + later).timestamp()
        os.utime(desk.folder / "inbox" / "large.mp4", (written, written))
        assert desk.look(later).waiting == ["a.json"]
    assert ids(desk.look(timedelta(minutes=51))) == ["a"]


def test_waiting_documents_do_not_hold_up_the_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, documents=5)
    for number in range(20):
        desk.request(f"a{number:02}", driver="never.mp4")
    desk.request("z")
    seen = [ids(desk.look()) for _ in range(6)]
    assert ["z"] in seen


def test_a_look_is_bounded_and_the_next_one_goes_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=7)
    desk.put("grid.json", {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(10)})
    for number in range(10):
        desk.request(f"a{number}")
    looks = [ids(desk.look()) for _ in range(4)]
    assert [len(found) for found in looks] == [7, 7, 6, 0]
    assert len({request_id for found in looks for request_id in found}) == 20
    assert desk.names("inbox/") == ["d.mp4", "r.png"]
    assert desk.state == IntakeState(after=desk.state.after)


def test_an_unfinished_batch_that_changes_starts_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=3)
    grid = {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(4)}
    desk.put("grid.json", grid)
    assert len(ids(desk.look())) == 3
    desk.put("grid.json", {**grid, "common": {"prompt": "new"}})
    found = [*desk.look().accepted, *desk.look().accepted]
    assert len({entry.request.id for entry in found}) == 4
    assert {entry.request.prompt for entry in found} == {"new"}


def test_a_batch_that_was_begun_goes_on_before_what_came_meanwhile(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=3)
    desk.put("grid.json", {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(4)})
    desk.look()
    for name in "abc":
        desk.request(name)
    assert [entry.document for entry in desk.look().accepted] == ["grid.json"]
    assert ids(desk.look()) == ["a", "b", "c"]


def settings_(count: int) -> dict[str, Any]:
    return {f"s{number:02}": {"seed": number} for number in range(count)}


def test_a_list_under_any_name_and_hidden_files(desk: Desk) -> None:
    desk.put("team/monday.yaml", json.dumps([request_fields("a"), request_fields("b")]).encode())
    desk.put(".a.yaml.swp", b"junk")
    desk.put(".hidden.yaml", b"junk")
    intake = desk.look()
    assert ids(intake) == ["a", "b"]
    assert not intake.rejected
    desk.look()
    assert desk.names("requests/documents/") == ["team/monday.yaml"]


@pytest.mark.parametrize("name", [b"two\nlines.yaml", b"folder\\of-windows.mp4", b"not-utf-8-\xe9.yaml"])
def test_a_file_whose_name_cannot_be_a_key_stops_nobody(desk: Desk, name: bytes) -> None:
    odd = bytes(desk.folder / "inbox") + b"/" + name
    Path(os.fsdecode(odd)).write_bytes(b"junk")
    desk.request("a")
    intake = desk.look()
    assert (ids(intake), intake.rejected, intake.unreadable) == (["a"], [], [])
    assert len(list(desk.inbox.all_media())) >= 2
    assert os.path.exists(odd)  # noqa: PTH110 - the name is bytes


@pytest.mark.parametrize(("length", "accepted"), [(200, ["a", "b"]), (201, ["b"])])
def test_a_document_whose_name_is_too_long_to_be_moved_is_left_alone(
    desk: Desk, length: int, accepted: list[str]
) -> None:
    name = f"{'x' * (length - 5)}.yaml"
    (desk.folder / "inbox" / name).write_text(json.dumps([request_fields("a")]))
    desk.request("b")
    assert sorted(ids(desk.look())) == accepted
    assert not desk.look().unreadable
    assert (name in desk.names("inbox/")) == (accepted == ["b"])


def test_data_of_many_megabytes_is_left_alone(desk: Desk) -> None:
    """Refusing it means copying it, which a look has no time for."""
    with (desk.folder / "inbox" / "capture.json").open("wb") as file:
        file.truncate(3 << 30)
    desk.put("large.json", b" " * 2_000_000)
    desk.request("a")
    intake = desk.look()
    assert (ids(intake), [entry.name for entry in intake.rejected]) == (["a"], ["large.json"])
    assert (desk.folder / "inbox" / "capture.json").stat().st_size == 3 << 30


def test_a_bad_entry_refuses_the_whole_document(desk: Desk) -> None:
    desk.put("list.json", [request_fields("a"), request_fields("b", steps=0)])
    assert not desk.look().accepted
    assert desk.requests.find("a") is None


class Refusing(FolderObjectStore):
    """A store that does not hand out one object."""

    error: StorageError = StorageError("permission denied")

    def get_bytes(self, key: str) -> bytes:
        if key == "inbox/locked.json":
            raise self.error
        return super().get_bytes(key)


def test_a_document_that_the_store_does_not_give_is_left_and_the_others_go_on(desk: Desk) -> None:
    desk.request("locked")
    desk.request("z")
    desk.inbox = Inbox(Refusing(desk.folder))
    intake = desk.look()
    assert ids(intake) == ["z"]
    assert intake.unreadable == ["locked.json: permission denied"]


def test_a_damaged_request_is_named_and_the_others_go_on(desk: Desk) -> None:
    desk.objects.put_bytes("requests/accepted/a.json", b'{"schema_version": 2}')
    desk.request("a")
    desk.put("list.json", [request_fields("b"), request_fields("a", seed=2), request_fields("c")])
    desk.request("z")
    for accepted in (["b", "z"], ["b"]):
        intake = desk.look()
        assert ids(intake) == accepted
        assert len([line for line in intake.unreadable if "not a readable request" in line]) == 2
    desk.objects.delete("requests/accepted/a.json")
    assert sorted(ids(desk.look())) == ["a", "a", "b", "c"]


def test_a_store_that_does_not_answer_fails_the_look(desk: Desk) -> None:
    desk.request("locked")
    store = Refusing(desk.folder)
    store.error = StorageUnavailableError("no answer")
    desk.inbox = Inbox(store)
    with pytest.raises(StorageUnavailableError):
        desk.look()


def test_a_run_started_by_hand_accepts_the_document_of_its_name(desk: Desk) -> None:
    intake = InboxIntake(desk.inbox, desk.requests, "sandbox")
    assert intake.accept_waiting("a") is None
    desk.request("a", driver="late.mp4")
    with pytest.raises(InputError, match=r"driver: there is no file 'late\.mp4'"):
        intake.accept_waiting("a")
    assert desk.requests.find("a") is None
    desk.put("late.mp4", b"video")
    accepted = intake.accept_waiting("a")
    assert accepted == desk.requests.find("a")
    assert desk.names("requests/documents/") == ["a.json"]
    desk.request("b")
    desk.put("b.yaml", b"id: b")
    with pytest.raises(InputError, match="more than one request document"):
        intake.accept_waiting("b")


def test_a_run_started_by_hand_leaves_a_batch_of_its_name_to_the_look(desk: Desk) -> None:
    desk.request("monday")
    desk.look()
    desk.look()
    desk.put("monday.yaml", [request_fields("a"), request_fields("b")])
    assert InboxIntake(desk.inbox, desk.requests, "sandbox").accept_waiting("monday") is None
    assert desk.requests.find("a") is None
    assert ids(desk.look()) == ["a", "b"]


def test_a_state_of_another_version_is_put_aside() -> None:
    assert IntakeState.load('{"unknown": 1}') == IntakeState()
    assert IntakeState.load("junk") == IntakeState()
    assert IntakeState.load(None) == IntakeState()


@settings(max_examples=25, deadline=None)
@given(
    documents=st.dictionaries(
        st.sampled_from(["a.json", "b.json", "c.yaml", "sub/d.json"]),
        st.binary(max_size=20)
        | st.sampled_from([json.dumps(request_fields(name)).encode() for name in "abcd"])
        | st.sampled_from([json.dumps([request_fields(name), request_fields("e")]).encode() for name in "abcd"]),
        min_size=1,
    ),
    limit=st.integers(1, 3),
)
def test_every_document_ends_accepted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, documents: dict[str, bytes], limit: int
) -> None:
    desk = Desk(tmp_path_factory.mktemp("desk"), requests=limit, documents=limit)
    for name, content in documents.items():
        desk.put(name, content)
    for _ in range(20):
        desk.look()
    assert desk.inbox.documents() == []
    ended = set(desk.names("requests/documents/")) | {rejection.name for rejection in desk.inbox.rejections()}
    assert ended == set(documents)

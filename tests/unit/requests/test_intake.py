"""One look at the inbox after the other, on a real folder: what is accepted, refused and left."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import InputError, StorageError, StorageUnavailableError
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanState
from libs.storage.backends.folder import FolderObjectStore
from tests.unit.requests.intake_desk import Desk, ids, request_fields


def test_an_accepted_document_is_archived_one_scan_later(desk: Desk) -> None:
    desk.request("a")
    assert ids(desk.scan()) == ["a"]
    assert "a.json" in desk.names("inbox/"), "its run is only launched after this look"
    assert ids(desk.scan()) == []
    assert desk.names("inbox/") == ["d.mp4", "r.png"]
    assert desk.names("requests/documents/") == ["a.json"]
    accepted = desk.requests.find("a")
    assert accepted is not None
    assert (accepted.request.model, accepted.document, accepted.revision) == ("sandbox", "a.json", 1)


def test_a_scan_whose_result_is_lost_is_repeated_with_the_same_result(desk: Desk) -> None:
    desk.request("a")
    state = desk.state
    first = desk.scan()
    desk.state = state
    assert desk.scan().accepted == first.accepted


def test_the_same_content_is_nothing_new_and_other_content_is(desk: Desk) -> None:
    keys = []
    for prompt in ("one", "one", "two", "one"):
        desk.request("a", prompt=prompt)
        keys.append(desk.scan().accepted[0].run_key)
        desk.scan()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3, "going back to an earlier content is a submission of its own"
    accepted = desk.requests.find("a")
    assert accepted is not None
    assert accepted.revision == 3


def test_other_media_of_the_same_name_are_other_content(desk: Desk) -> None:
    desk.request("a")
    before = desk.scan().accepted[0]
    desk.scan()
    desk.put("d.mp4", b"another video")
    desk.request("a")
    assert desk.scan().accepted[0].content != before.content


def test_a_request_written_in_another_way_is_the_same_content(desk: Desk) -> None:
    desk.request("a", seed=42)
    before = desk.scan().accepted[0]
    desk.scan()
    desk.put("a.yaml", b"driver: ./d.mp4\nreference: r.png # the puppet\nid: a\npriority: 9\n")
    after = desk.scan().accepted[0]
    assert after.run_key == before.run_key
    assert after.request.priority == 9


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", b"id: a\nreference: r.png\n", "driver: is required"),
        ("a.yaml", b"\xff", "not UTF-8"),
        ("a.json", b"{", "neither YAML nor JSON"),
        ("a.json", b'{"id": "a", "\\ud800": 1}', "half a character"),
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
    intake = desk.scan()
    assert ids(intake) == ["good"]
    assert [rejection.name for rejection in intake.rejected] == [name]
    assert expected in intake.rejected[0].reason
    assert desk.objects.get_bytes(f"inbox/rejected/{name}") == content
    text = desk.objects.get_bytes(f"inbox/rejected/{name}.error.txt").decode()
    assert expected in text
    assert text.startswith(f"{name} was not accepted")
    assert not desk.objects.exists(f"inbox/{name}")
    again = desk.scan()
    assert not again.rejected
    assert not again.unreadable
    assert [rejection.name for rejection in desk.inbox.rejections()] == [name]
    assert expected in next(iter(desk.inbox.rejections())).reason


def test_a_corrected_document_takes_the_refused_one_away(desk: Desk) -> None:
    desk.put("a.json", b"{")
    desk.scan()
    desk.request("a")
    desk.scan()
    desk.scan()
    assert not list(desk.inbox.rejections())
    assert not desk.names("inbox/rejected/")


def test_a_list_under_any_name_and_hidden_files(desk: Desk) -> None:
    desk.put("team/monday.yaml", json.dumps([request_fields("a"), request_fields("b")]).encode())
    desk.put(".a.yaml.swp", b"junk")
    desk.put(".hidden.yaml", b"junk")
    intake = desk.scan()
    assert ids(intake) == ["a", "b"]
    assert not intake.rejected
    desk.scan()
    assert desk.names("requests/documents/") == ["team/monday.yaml"]


@pytest.mark.parametrize("name", [b"two\nlines.yaml", b"folder\\of-windows.mp4", b"not-utf-8-\xe9.yaml"])
def test_a_file_whose_name_cannot_be_a_key_is_skipped(desk: Desk, name: bytes) -> None:
    odd = bytes(desk.folder / "inbox") + b"/" + name
    Path(os.fsdecode(odd)).write_bytes(b"junk")
    desk.request("a")
    intake = desk.scan()
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
    assert sorted(ids(desk.scan())) == accepted
    assert not desk.scan().unreadable
    assert (name in desk.names("inbox/")) == (accepted == ["b"])


def test_data_of_many_megabytes_is_left_alone(desk: Desk) -> None:
    """Refusing it means copying it, which a look has no time for."""
    with (desk.folder / "inbox" / "capture.json").open("wb") as file:
        file.truncate(3 << 30)
    desk.put("large.json", b" " * 2_000_000)
    desk.request("a")
    intake = desk.scan()
    assert (ids(intake), [entry.name for entry in intake.rejected]) == (["a"], ["large.json"])
    assert (desk.folder / "inbox" / "capture.json").stat().st_size == 3 << 30


def test_a_bad_entry_refuses_the_whole_document(desk: Desk) -> None:
    desk.put("list.json", [request_fields("a"), request_fields("b", steps=0)])
    assert not desk.scan().accepted
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
    intake = desk.scan()
    assert ids(intake) == ["z"]
    assert intake.unreadable == ["locked.json: permission denied"]


def test_a_damaged_request_is_named_and_the_others_go_on(desk: Desk) -> None:
    desk.objects.put_bytes("requests/accepted/a.json", b'{"schema_version": 2}')
    desk.request("a")
    desk.put("list.json", [request_fields("b"), request_fields("a"), request_fields("c")])
    desk.request("z")
    for accepted in (["b", "z"], ["b"]):
        intake = desk.scan()
        assert ids(intake) == accepted
        assert len([line for line in intake.unreadable if "not a readable request" in line]) == 2
    desk.objects.delete("requests/accepted/a.json")
    assert sorted(ids(desk.scan())) == ["a", "b", "c"]


def test_a_store_that_does_not_answer_fails_the_scan(desk: Desk) -> None:
    desk.request("locked")
    store = Refusing(desk.folder)
    store.error = StorageUnavailableError("no answer")
    desk.inbox = Inbox(store)
    with pytest.raises(StorageUnavailableError):
        desk.scan()


def test_a_run_started_by_hand_accepts_the_document_of_its_name(desk: Desk) -> None:
    intake = InboxScanner(desk.inbox, desk.requests, "sandbox")
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


def test_a_run_started_by_hand_leaves_a_batch_of_its_name_to_the_scan(desk: Desk) -> None:
    desk.request("monday")
    desk.scan()
    desk.scan()
    desk.put("monday.yaml", [request_fields("a"), request_fields("b")])
    assert InboxScanner(desk.inbox, desk.requests, "sandbox").accept_waiting("monday") is None
    assert desk.requests.find("a") is None
    assert ids(desk.scan()) == ["a", "b"]


def test_a_state_of_another_version_is_put_aside() -> None:
    assert ScanState.load('{"unknown": 1}') == ScanState()
    assert ScanState.load("junk") == ScanState()
    assert ScanState.load(None) == ScanState()


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
        desk.scan()
    assert desk.inbox.documents() == []
    ended = set(desk.names("requests/documents/")) | {rejection.name for rejection in desk.inbox.rejections()}
    assert ended == set(documents)


@pytest.mark.slow
def test_two_people_at_one_inbox_each_get_exactly_their_own_clips(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand documents: bad ones, one id twice, and both call their files d.mp4 and r.png."""
    monkeypatch.setattr("libs.files.atomic_write.flush_to_disk", lambda path: None)  # no power cut is part of this
    bad = [b"{", b"prompt: !!bool foo", b"id: x", b"\xff\xfe", b'{"id": "x", "steps": 0}']
    for number in range(20):  # asked for by both at once: the first one has them
        desk.put(f"ben/shared{number}.json", request_fields(f"shared{number}", prompt="ben"))
    expected: dict[str, bytes] = {}
    refused = {f"ben/shared{number}.json" for number in range(20)}
    for person, video in (("anna", b"video of anna"), ("ben", b"video of ben")):
        desk.put("d.mp4", video)
        ids_of_person = [f"{person}{number}" for number in range(450)]
        if person == "anna":
            ids_of_person += [f"shared{number}" for number in range(20)]
        for request_id in ids_of_person:
            desk.put(f"{person}/{request_id}.json", request_fields(request_id))
        expected |= dict.fromkeys(ids_of_person, video)
        for number in range(30):
            desk.put(f"{person}/bad{number}.json", bad[number % len(bad)])
            refused.add(f"{person}/bad{number}.json")
        accepted = [entry for _ in range(6) for entry in desk.scan().accepted]
        assert sorted(entry.request.id for entry in accepted) == sorted(ids_of_person)
    assert {marker.request_id for marker in desk.requests.pending_markers()} == set(expected)
    assert {rejection.name for rejection in desk.inbox.rejections()} == refused
    assert all(rejection.reason for rejection in desk.inbox.rejections())
    assert desk.inbox.documents() == []
    for request_id, video in expected.items():
        entry = desk.requests.find(request_id)
        assert entry is not None
        assert desk.objects.get_bytes(entry.media["d.mp4"].key) == video

"""Looks at an inbox that fills meanwhile: what is waited for, for how long, and how much one look does."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.requests.inbox import intake
from libs.requests.inbox.intake import ScanState
from tests.unit.requests.intake_desk import LATER, MUCH_LATER, Desk, ids, request_fields


def test_a_document_that_is_still_written_is_left_alone(desk: Desk) -> None:
    now = datetime.now(UTC)
    desk.put("a.yaml", b"id: a\nrefer")
    assert desk.scan(timedelta(seconds=1), now).waiting == ["a.yaml"]
    desk.put("a.yaml", b"id: a\nreference: r.png\ndriver: d.mp4\n")
    assert ids(desk.scan(timedelta(seconds=1))) == ["a"]


def test_a_document_that_changes_while_it_is_accepted_is_looked_at_again(desk: Desk) -> None:
    desk.request("a")
    desk.scan()
    desk.request("a", prompt="changed")
    intake = desk.scan()
    assert ids(intake) == ["a"]
    assert intake.accepted[0].request.prompt == "changed"
    desk.scan()
    assert desk.names("inbox/") == ["d.mp4", "r.png"]


def test_missing_media_are_waited_for_and_then_named(desk: Desk) -> None:
    desk.request("a", driver="late.mp4")
    desk.request("b", reference="never.png", driver="gone.mp4")
    assert desk.scan().waiting == ["a.json", "b.json"]
    desk.put("late.mp4", b"video")
    intake = desk.scan()
    assert (ids(intake), intake.waiting) == (["a"], ["b.json"])
    desk.scan(MUCH_LATER)
    intake = desk.scan(2 * MUCH_LATER)
    assert [rejection.name for rejection in intake.rejected] == ["b.json"]
    assert "reference: there is no file 'never.png'" in intake.rejected[0].reason
    assert "driver: there is no file 'gone.mp4'" in intake.rejected[0].reason
    assert " more" not in intake.rejected[0].reason


@pytest.mark.parametrize(("count", "expected"), [(20, "20.mp4"), (21, "and 1 more")])
def test_twenty_missing_media_are_named_and_the_others_counted(desk: Desk, count: int, expected: str) -> None:
    desk.put("list.json", [request_fields(f"a{n}", driver=f"{n}.mp4") for n in range(1, count + 1)])
    desk.scan(MUCH_LATER)
    (rejection,) = desk.scan(2 * MUCH_LATER).rejected
    *lines, last = rejection.reason.splitlines()
    assert expected in lines[-1]
    assert (sum("there is no file" in line for line in lines), len(lines)) == (20, count)
    assert last == "It waited 10 minutes for that."


def test_a_document_with_an_old_date_gets_the_same_grace_each_time_it_is_sent(desk: Desk) -> None:
    now, late = datetime.now(UTC), 10 * MUCH_LATER
    desk.request("a", driver="late.mp4")
    assert desk.scan(late, now).waiting == ["a.json"]
    assert desk.scan(late + timedelta(seconds=599), now).waiting == ["a.json"]
    assert [rejection.name for rejection in desk.scan(late + timedelta(seconds=601), now).rejected] == ["a.json"]
    desk.request("a", driver="late.mp4")
    assert desk.scan(late + timedelta(seconds=602), now).waiting == ["a.json"]
    desk.put("late.mp4", b"video")
    assert ids(desk.scan(late + timedelta(seconds=603) + LATER, now)) == ["a"]


def test_when_documents_were_seen_is_remembered_for_as_long_and_as_many_as_is_of_use(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    desk.state.seen = {"taken-back": now.timestamp() - 1210, "soon": now.timestamp() - 1150}
    desk.scan(timedelta(), now)
    assert set(desk.state.seen) == {"soon"}
    monkeypatch.setattr(intake, "MAX_SEEN", 2)
    for name in "abc":
        desk.request(name, driver="late.mp4")
    assert desk.scan(10 * MUCH_LATER).waiting == ["a.json", "b.json", "c.json"]
    assert set(desk.state.seen) == {"a.json", "b.json"}


def test_media_that_arrive_after_their_document_may_still_grow(desk: Desk) -> None:
    now = datetime.now(UTC)
    desk.request("a", driver="late.mp4")
    desk.put("late.mp4", b"half a vid")
    assert desk.scan(timedelta(seconds=1), now).waiting == ["a.json"]
    assert ids(desk.scan(LATER)) == ["a"]


def test_media_that_take_long_to_arrive_are_waited_for(desk: Desk) -> None:
    now = datetime.now(UTC)
    desk.request("a", driver="large.mp4")
    desk.put("large.mp4", b"half a vid")
    for minutes in (20, 35, 50):
        later = timedelta(minutes=minutes)
        written = (now + later).timestamp()
        os.utime(desk.folder / "inbox" / "large.mp4", (written, written))
        assert desk.scan(later, now).waiting == ["a.json"]
    assert ids(desk.scan(timedelta(minutes=51), now)) == ["a"]


def test_waiting_documents_do_not_hold_up_the_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, documents=5)
    for number in range(20):
        desk.request(f"a{number:02}", driver="never.mp4")
    desk.request("z")
    seen = [ids(desk.scan()) for _ in range(6)]
    assert ["z"] in seen


def test_a_scan_is_bounded_and_the_next_one_continues(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=7)
    desk.put("grid.json", {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(10)})
    for number in range(10):
        desk.request(f"a{number}")
    looks = [ids(desk.scan()) for _ in range(4)]
    assert [len(found) for found in looks] == [7, 7, 6, 0]
    assert len({request_id for found in looks for request_id in found}) == 20
    assert desk.names("inbox/") == ["d.mp4", "r.png"]
    assert desk.state == ScanState(after=desk.state.after)


def test_an_unfinished_batch_that_changes_starts_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=3)
    grid = {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(4)}
    desk.put("grid.json", grid)
    assert len(ids(desk.scan())) == 3
    desk.put("grid.json", {**grid, "common": {"prompt": "new"}})
    found = [*desk.scan().accepted, *desk.scan().accepted]
    assert len({entry.request.id for entry in found}) == 4
    assert {entry.request.prompt for entry in found} == {"new"}


def test_a_batch_that_was_begun_goes_on_before_what_came_meanwhile(tmp_path: Path) -> None:
    desk = Desk(tmp_path, requests=3)
    desk.put("grid.json", {"batch": "grid", "references": ["r.png"], "drivers": ["d.mp4"], "settings": settings_(4)})
    desk.scan()
    for name in "abc":
        desk.request(name)
    assert [entry.document for entry in desk.scan().accepted] == ["grid.json"]
    assert ids(desk.scan()) == ["a", "b", "c"]


def settings_(count: int) -> dict[str, Any]:
    return {f"s{number:02}": {"seed": number} for number in range(count)}


def test_the_time_of_a_scan_counts_also_while_nothing_is_readable(tmp_path: Path) -> None:
    desk = Desk(tmp_path, seconds=0.0)
    for name in "abc":
        desk.put(f"{name}.json", b"{")
    desk.request("z")
    refused = [[rejection.name for rejection in desk.scan().rejected] for _ in range(3)]
    assert refused == [["a.json"], ["b.json"], ["c.json"]]
    assert ids(desk.scan()) == ["z"]

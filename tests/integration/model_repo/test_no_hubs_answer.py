"""Answers that no hub gives, and bodies of another length than announced, through both real clients."""

import json
import zlib

import pytest
from download_checks import IMPATIENT, SHARD, assert_complete, assert_nothing_wrong_stands
from local_hub import LISTING, Fault, LocalHub

from libs.errors import HubError
from libs.model_repo.hubs.bounded_answer import AnswerBound, EndlessAnswerError
from libs.model_repo.hubs.download import download_part
from libs.model_repo.hubs.hub import Hub
from libs.model_repo.layout import RepositoryLayout

SIZE = 700_000
PAGE = b"<!DOCTYPE html>\n<html><body>Welcome to Hotel Paradiso: please log in</body></html>"


def _listing(**changes: object) -> bytes:
    """What both hubs answer, in one: each client reads its own part."""
    entry = {"rfilename": SHARD, "size": 1, "Path": SHARD, "Size": 1, "Type": "blob", "CommittedDate": 1} | changes
    return json.dumps(
        {"sha": "a" * 40, "id": "x", "siblings": [entry], "Code": 200, "Data": {"Files": [entry]}}
    ).encode()


ANSWERS = {
    "HTML": (PAGE, "text/html"),
    "HTML that says it is JSON": (PAGE, "application/json"),
    "nothing": (b"", "application/json"),
    "a list": (b"[1]", "application/json"),
    "null": (b"null", "application/json"),
    "a text": (b'"files"', "application/json"),
    "deep": (b"[" * 200_000, "application/json"),
    "deep objects": (b'{"siblings":' * 100_000, "application/json"),
    "files that are texts": (
        b'{"sha": "a", "id": "x", "siblings": ["x"], "Code": 200, "Data": {"Files": ["x"]}}',
        "json",
    ),
    "a size that is a text": (_listing(size="many", Size="many"), "application/json"),
    "a size below 0": (_listing(size=-1, Size=-1), "application/json"),
    "an infinite size": (_listing(size=float("inf"), Size=float("inf")), "application/json"),
    "a name that is a number": (_listing(rfilename=5, Path=5), "application/json"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_no_hubs_answer_is_called_so(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, case: str
) -> None:
    body, content_type = ANSWERS[case]
    hub_server.always[LISTING] = Fault(answer=body, headers={"Content-Type": content_type})
    with pytest.raises(HubError, match=r"1\.3b_1: this is not the hub's answer|no hub can be asked") as raised:
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert "this is not the hub's answer" in str(raised.value)
    assert ("(HTML: a log-in page or proxy?)" in str(raised.value)) == case.startswith("HTML")
    assert "Expecting value" not in str(raised.value)
    assert hub_server.total_served == 0


def test_behind_a_log_in_page_complete_files_are_used(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    hub_server.always[LISTING] = Fault(answer=PAGE, headers={"Content-Type": "text/html"})
    assert download_part(layout, "checkpoint", hub, retry=IMPATIENT).offline


def test_a_body_that_never_ends_is_not_written(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    hub_server.always[SHARD] = Fault(endless=20_000_000)
    with pytest.raises(HubError, match=SHARD):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_nothing_wrong_stands(layout, hub_server)
    for path in layout.root.rglob("*"):
        assert not path.is_file() or path.stat().st_size <= SIZE, path


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=["plain", "compressed"])
def test_a_listing_that_never_ends_is_given_up(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, headers: dict[str, str]
) -> None:
    start = zlib.compress(b"[ ", wbits=31) if headers else b"[ "
    hub_server.always[LISTING] = Fault(answer=start, endless=400_000_000, headers=headers)
    with pytest.raises(HubError, match=r"1\.3b_1: the hub's listing does not end \(more than \d+ kB"):
        hub.list_files("MochunniaN1/One-to-All-1.3b_1", None)
    assert hub_server.total_served < 60_000_000
    hub_server.always.pop(LISTING)
    assert hub.list_files("MochunniaN1/One-to-All-1.3b_1", None).files, "the client works on"


def test_an_answer_that_drips_is_given_up() -> None:
    times = iter([0.0, 1.0, 200.0])
    bound = AnswerBound(clock=lambda: next(times))
    assert bound.count(b"[") == b"["
    with pytest.raises(EndlessAnswerError, match="longer than 120 s"):
        bound.count(b" ")


def _interrupted(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, kept: int) -> None:
    """Leave the beginning of a shard, as a killed download does."""
    hub_server.fail(SHARD, *[Fault(cut_after=kept) if not number else Fault(status=500) for number in range(30)])
    with pytest.raises(HubError):
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    hub_server.faults.clear()


@pytest.mark.parametrize("kept", [262_144, 400_000, 655_360])
def test_a_range_answered_as_the_whole_ends_in_the_right_bytes(
    layout: RepositoryLayout, hub: Hub, hub_server: LocalHub, kept: int
) -> None:
    _interrupted(layout, hub, hub_server, kept)
    hub_server.always[SHARD] = Fault(range_as_200=True)
    download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert_complete(layout, hub_server)


@pytest.mark.slow  # the clients wait a second between their own tries
def test_right_bytes_or_an_end(layout: RepositoryLayout, hub: Hub, hub_server: LocalHub) -> None:
    """It cuts every answer, and answers ranges as if they were the whole: one client makes sense of it."""
    hub_server.always[SHARD] = Fault(range_as_200=True, cut_after=300_000)
    if hub.name == "modelscope":
        download_part(layout, "checkpoint", hub, retry=IMPATIENT)
        assert_complete(layout, hub_server)
    else:
        with pytest.raises(HubError, match=SHARD):
            download_part(layout, "checkpoint", hub, retry=IMPATIENT)
    assert len(hub_server.requests_of(SHARD)) < 60
    assert_nothing_wrong_stands(layout, hub_server)

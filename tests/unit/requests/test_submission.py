"""Files of this machine that are to have one name in the inbox: nobody's file takes the place of another's."""

import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.errors import InputError
from libs.requests.documents.batch import parse_submission
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanState
from libs.requests.inbox.submission import plan_submission, upload
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.storage.backends.folder import FolderObjectStore

REQUEST = "id: {0}\nreference: r.png\ndriver: d.mp4\n"


class Desk:
    """Two folders, each with a request and its own media, and an inbox."""

    def __init__(self, folder: Path) -> None:
        self.objects = FolderObjectStore(folder / "store")
        self.inbox = Inbox(self.objects)
        self.folders = [folder / name for name in ("monday", "tuesday")]
        for place in self.folders:
            place.mkdir()
            (place / f"{place.name}.yaml").write_text(REQUEST.format(place.name))
            (place / "r.png").write_bytes(b"the same picture")
            (place / "d.mp4").write_bytes(f"video of {place.name}".encode())
        self.documents = [place / f"{place.name}.yaml" for place in self.folders]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_media_of_one_name_and_other_content_beside_two_documents_are_refused(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"tuesday/d\.mp4 and .*monday/d\.mp4 are both 'd\.mp4' in the inbox"):
        plan_submission(desk.documents, desk.inbox)
    assert list(desk.objects.list()) == []


def test_equal_media_beside_two_documents_are_sent_once(desk: Desk) -> None:
    (desk.folders[1] / "d.mp4").write_bytes((desk.folders[0] / "d.mp4").read_bytes())
    assert upload(plan_submission(desk.documents, desk.inbox), desk.inbox) == ["d.mp4", "r.png"]
    assert {info.key for info in desk.objects.list()} == {
        *("inbox/d.mp4", "inbox/r.png", "inbox/monday.yaml", "inbox/tuesday.yaml")
    }


def test_a_file_that_is_given_is_the_one_that_is_meant(desk: Desk) -> None:
    plan = plan_submission([*desk.documents, desk.folders[1] / "d.mp4"], desk.inbox)
    assert plan.media["d.mp4"] == desk.folders[1] / "d.mp4"
    with pytest.raises(InputError, match=r"are both 'd\.mp4' in the inbox"):
        plan_submission([desk.documents[0], *(place / "d.mp4" for place in desk.folders)], desk.inbox)


def test_media_beside_one_document_serve_another(desk: Desk) -> None:
    (desk.folders[1] / "d.mp4").unlink()
    plan = plan_submission(desk.documents, desk.inbox)
    assert plan.media["d.mp4"] == desk.folders[0] / "d.mp4"


def test_two_documents_of_one_name_are_refused(desk: Desk) -> None:
    desk.documents[1].write_text(REQUEST.format("monday") + "seed: 2\n")
    (desk.folders[1] / "d.mp4").unlink()
    with pytest.raises(InputError, match=r"are both 'monday\.yaml' in the inbox; rename one of them"):
        plan_submission(desk.documents, desk.inbox)


def scan_inbox(desk: Desk) -> None:
    intake = InboxScanner(desk.inbox, AcceptedRequests(desk.objects), "sandbox")
    later = datetime.now(UTC) + timedelta(minutes=1)
    intake.scan(intake.scan(ScanState(), later).state, later)  # accepts, then moves the document away


@pytest.mark.parametrize("accepted", [True, False])
def test_a_file_needed_by_another_request_stays_and_the_new_one_is_renamed(desk: Desk, accepted: bool) -> None:
    upload(plan_submission(desk.documents[:1], desk.inbox), desk.inbox)
    if accepted:
        scan_inbox(desk)
    plan = plan_submission(desk.documents[1:], desk.inbox)
    (new,) = plan.renamed.values()
    assert (plan.renamed, plan.reasons) == ({"d.mp4": new}, {"d.mp4": "monday"})
    assert new.startswith("d-")
    assert len(new) == len("d-12345678.mp4")
    assert upload(plan, desk.inbox) == [new]
    assert desk.objects.get_bytes("inbox/d.mp4") == b"video of monday"
    assert desk.objects.get_bytes(f"inbox/{new}") == b"video of tuesday"
    (request,) = parse_submission(desk.objects.get_bytes("inbox/tuesday.yaml"), source="tuesday.yaml").requests
    assert (request.id, request.reference, request.driver) == ("tuesday", "r.png", new)


def test_the_same_document_means_the_same_clip_after_the_other_file_is_unneeded(desk: Desk) -> None:
    requests = AcceptedRequests(desk.objects)
    upload(plan_submission(desk.documents[:1], desk.inbox), desk.inbox)
    scan_inbox(desk)
    upload(plan_submission(desk.documents[1:], desk.inbox), desk.inbox)
    scan_inbox(desk)
    monday, before = requests.find("monday"), requests.find("tuesday")
    assert monday is not None
    assert before is not None
    requests.clear_pending("monday", monday.content)  # its clip is stored
    plan = plan_submission(desk.documents[1:], desk.inbox)
    assert (plan.renamed, plan.reasons) == ({"d.mp4": before.request.driver}, {})
    assert upload(plan, desk.inbox) == []
    scan_inbox(desk)
    after = requests.find("tuesday")
    assert after is not None
    assert (after.content, after.revision) == (before.content, before.revision)
    assert desk.objects.get_bytes("inbox/d.mp4") == b"video of monday"


def test_a_changed_file_of_the_same_request_replaces_the_older_one(desk: Desk) -> None:
    upload(plan_submission(desk.documents[:1], desk.inbox), desk.inbox)
    scan_inbox(desk)
    before = AcceptedRequests(desk.objects).find("monday")
    (desk.folders[0] / "d.mp4").write_bytes(b"VIDEO OF MONDAY")  # as many bytes
    plan = plan_submission(desk.documents[:1], desk.inbox)
    assert plan.renamed == {}
    assert upload(plan, desk.inbox) == ["d.mp4"]
    scan_inbox(desk)
    after = AcceptedRequests(desk.objects).find("monday")
    assert before is not None
    assert after is not None
    assert (after.revision, after.content != before.content) == (2, True)


def test_the_ids_of_a_grid_stay_when_its_files_get_other_names(desk: Desk) -> None:
    upload(plan_submission(desk.documents[:1], desk.inbox), desk.inbox)
    grid = desk.folders[1] / "grid.yaml"
    grid.write_text("batch: grid\nreferences: [r.png]\ndrivers: [d.mp4]\nsettings: {a: , b: {seed: 3}}\n")
    plan = plan_submission([grid], desk.inbox)
    upload(plan, desk.inbox)
    sent = parse_submission(desk.objects.get_bytes("inbox/grid.yaml"), source="grid.yaml").requests
    assert [request.id for request in sent] == [request.id for request in plan.submissions["grid.yaml"].requests]
    assert {request.driver for request in sent} == set(plan.renamed.values())


def test_a_file_without_its_document_replaces_nothing_that_is_needed(desk: Desk) -> None:
    upload(plan_submission(desk.documents[:1], desk.inbox), desk.inbox)
    with pytest.raises(InputError, match=r"d\.mp4: monday needs another file of that name"):
        plan_submission([desk.folders[1] / "d.mp4"], desk.inbox)


def test_a_file_beside_the_document_is_found_however_its_name_is_composed(desk: Desk) -> None:
    (desk.folders[0] / unicodedata.normalize("NFD", "t\u00e4nzer.mp4")).write_bytes(b"video")
    desk.documents[0].write_text(REQUEST.format("monday").replace("d.mp4", "t\u00e4nzer.mp4"))
    assert "t\u00e4nzer.mp4" in plan_submission(desk.documents[:1], desk.inbox).media

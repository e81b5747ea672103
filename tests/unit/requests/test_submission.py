"""Files of this machine that are to have one name in the inbox: nobody's file takes the place of another's."""

from pathlib import Path

import pytest

from libs.errors import InputError
from libs.requests.inbox import Inbox
from libs.requests.submission import plan_submission, upload
from libs.storage.folder import FolderObjectStore

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

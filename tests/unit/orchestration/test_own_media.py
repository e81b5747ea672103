"""``make demo`` with media of one's own: the request it makes, and the networks that it fetches or does without."""

from pathlib import Path

import pytest

from libs.errors import HubUnavailableError, InputError
from libs.requests.documents.batch import parse_submission
from libs.requests.inbox.inbox import Inbox
from libs.settings import Settings
from libs.storage.backends.folder import FolderObjectStore
from orchestration.laptop import own_media
from orchestration.laptop.own_media import submit_own_media
from tests.small_media import write_small_picture, write_small_video


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    def no_network(*_: object) -> list[str]:
        raise HubUnavailableError("the wheel mediapipe could not be fetched by pip (no route)")

    monkeypatch.setattr(own_media, "load_settings", lambda: Settings(models_dir=tmp_path / "models"))
    monkeypatch.setattr(own_media, "download_wheel", no_network)
    return Inbox(FolderObjectStore(tmp_path / "store"))


def test_a_video_of_ones_own_drives_the_puppet_and_a_missing_network_is_one_sentence(
    inbox: Inbox, tmp_path: Path
) -> None:
    driver, told = write_small_video(tmp_path / "My Dance (1).mp4"), []
    request_id = submit_own_media(inbox.objects, driver, None, told.append)
    (document,) = inbox.documents()
    (request,) = parse_submission(inbox.read(document), source=document.name).requests
    assert request.id == request_id
    assert request_id.startswith("demo-my-dance-1-")
    assert (request.model, request.pose_networks, request.reference) == ("sandbox", "auto", "puppet.png")
    assert set(inbox.media([request.driver, request.reference])) == {request.driver, request.reference}
    notes = [line for line in told if line.startswith("note:")]
    assert len(notes) == 1 and "know its puppets alone" in notes[0] and "no route" in notes[0]
    assert submit_own_media(inbox.objects, driver, None, told.append) == request_id, "the same files, the same request"
    write_small_video(driver, shade=60)
    assert submit_own_media(inbox.objects, driver, None, told.append) != request_id


def test_with_a_picture_of_ones_own_the_demo_says_what_the_sandbox_can_do(inbox: Inbox, tmp_path: Path) -> None:
    driver, picture = write_small_video(tmp_path / "d.mp4"), write_small_picture(tmp_path / f"{'x' * 90}.PNG")
    told: list[str] = []
    request_id = submit_own_media(inbox.objects, driver, picture, told.append)
    (document,) = inbox.documents()
    (request,) = parse_submission(inbox.read(document), source=document.name).requests
    assert len(request_id) <= 64
    assert request.reference.startswith("xxx") and request.reference.endswith(".png")
    assert any("can draw its own puppets only" in line for line in told)


def test_a_file_that_is_not_there_is_named(inbox: Inbox, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"DRIVER=.*nowhere\.mp4: there is no such file"):
        submit_own_media(inbox.objects, tmp_path / "nowhere.mp4", None, lambda _: None)

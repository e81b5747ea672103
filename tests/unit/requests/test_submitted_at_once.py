"""Several people hand in files of one name at the same moment: nobody's file becomes another's clip."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.errors import InputError
from libs.requests.accepted import AcceptedRequests
from libs.requests.batch import parse_submission
from libs.requests.inbox import Inbox
from libs.requests.intake import InboxIntake, IntakeState
from libs.requests.submission import plan_submission, upload
from libs.storage.claims import ABANDONED_AFTER, CLAIMS_PREFIX, claimed
from libs.storage.folder import FolderObjectStore
from libs.storage.objects import ObjectInfo, ObjectStore
from libs.storage.s3 import S3ObjectStore

PEOPLE = 3
ROUNDS = {"folder": 25, "s3": 3}


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderObjectStore(tmp_path / "store")
    return S3ObjectStore(request.getfixturevalue("s3_client"), request.getfixturevalue("s3_bucket"))


def _files(folder: Path, person: int, request_id: str) -> list[Path]:
    """A request and a video, whose name is everybody's and whose content is this person's."""
    place = folder / f"{request_id}-{person}"
    place.mkdir(parents=True)
    document = place / f"{request_id}.yaml"
    document.write_text(f"id: {request_id}\nreference: r.png\ndriver: d.mp4\nseed: {person}\n")
    (place / "r.png").write_bytes(b"everybody's picture")
    (place / "d.mp4").write_bytes(f"video of {person}".encode())
    return [document]


def _at_once(submit: Callable[[int], str]) -> list[str]:
    barrier = threading.Barrier(PEOPLE)

    def one(person: int) -> str:
        barrier.wait()
        try:
            return submit(person)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(PEOPLE) as pool:
        return list(pool.map(one, range(PEOPLE)))


def test_each_request_gets_its_own_media(objects: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rounds = ROUNDS["folder" if isinstance(objects, FolderObjectStore) else "s3"]
    for number in range(rounds):
        for info in list(objects.list()):
            objects.delete(info.key)

        def submit(person: int, number: int = number) -> str:
            inbox = Inbox(objects)
            plan = plan_submission(_files(tmp_path / str(number), person, f"dance-{person}"), inbox)
            upload(plan, inbox)
            return "submitted"

        assert _at_once(submit) == ["submitted"] * PEOPLE
        for person in range(PEOPLE):
            document = f"dance-{person}.yaml"
            (found,) = parse_submission(objects.get_bytes(f"inbox/{document}"), source=document).requests
            assert objects.get_bytes(f"inbox/{found.driver}") == f"video of {person}".encode()
        assert list(objects.list(CLAIMS_PREFIX)) == []


def test_of_documents_of_one_name_one_is_submitted_and_the_others_hear_of_it(
    objects: ObjectStore, tmp_path: Path
) -> None:
    rounds = ROUNDS["folder" if isinstance(objects, FolderObjectStore) else "s3"]
    for number in range(rounds):
        for info in list(objects.list()):
            objects.delete(info.key)
        everybody_planned = threading.Barrier(PEOPLE)

        def submit(person: int, number: int = number, barrier: threading.Barrier = everybody_planned) -> str:
            inbox = Inbox(objects)
            plan = plan_submission(_files(tmp_path / str(number), person, "dance"), inbox)
            barrier.wait()
            upload(plan, inbox)
            return "submitted"

        outcomes = _at_once(submit)
        (winner,) = [person for person, outcome in enumerate(outcomes) if outcome == "submitted"]
        (found,) = parse_submission(objects.get_bytes("inbox/dance.yaml"), source="dance.yaml").requests
        assert found.seed == winner
        assert objects.get_bytes(f"inbox/{found.driver}") == f"video of {winner}".encode()
        for outcome in set(outcomes) - {"submitted"}:
            assert outcome.startswith("dance.yaml: was not submitted: another document of that name")


def test_the_same_documents_at_once_are_one(tmp_path: Path) -> None:
    inbox = Inbox(FolderObjectStore(tmp_path / "store"))
    plans = [plan_submission(_files(tmp_path / str(person), 1, "dance"), inbox) for person in range(2)]
    assert upload(plans[0], inbox) == ["d.mp4", "r.png"]
    assert upload(plans[1], inbox) == []


def test_media_whose_document_is_still_to_come_stay(tmp_path: Path) -> None:
    inbox = Inbox(FolderObjectStore(tmp_path / "store"))
    video = tmp_path / "d.mp4"
    video.write_bytes(b"video of somebody who is submitting it")
    inbox.put("d.mp4", video)
    plan = plan_submission(_files(tmp_path, 1, "dance"), inbox)
    assert plan.reasons == {"d.mp4": "what somebody else is submitting"}
    upload(plan, inbox)
    assert inbox.objects.get_bytes("inbox/d.mp4") == video.read_bytes()


def test_a_claim_of_a_process_that_died_holds_nobody_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = FolderObjectStore(tmp_path)
    with claimed(objects, "inbox/a", 0) as first, claimed(objects, "inbox/a", 0.1) as second:
        assert (first, second) == (True, False)
        with claimed(objects, "inbox/b", 0) as other:
            assert other
        listed = objects.list

        def aged(prefix: str = "", start_after: str = "") -> list[ObjectInfo]:
            infos = sorted(listed(prefix, start_after), key=lambda info: info.modified)
            return [
                ObjectInfo(i.key, i.size, i.modified - (ABANDONED_AFTER * 2 * (n == 0))) for n, i in enumerate(infos)
            ]

        monkeypatch.setattr(objects, "list", aged)
        with claimed(objects, "inbox/a", 0) as third:
            assert third


class Replacing:
    """A store in which somebody puts a corrected document just when the one that was read is to be removed."""

    def __init__(self, objects: ObjectStore, key: str, content: bytes) -> None:
        self._objects, self._new = objects, (key, content)

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    def delete_version(self, info: ObjectInfo) -> bool:
        self._objects.put_bytes(*self._new)
        return self._objects.delete_version(info)


@pytest.mark.parametrize("first", ["seed: 1\n", "seed: many\n"], ids=["accepted", "refused"])
def test_a_document_put_again_before_the_first_is_moved_away_is_read(objects: ObjectStore, first: str) -> None:
    text = "id: dance\nreference: r.png\ndriver: d.mp4\n"
    for name, content in (("r.png", "picture"), ("d.mp4", "video"), ("dance.yaml", text + first)):
        objects.put_bytes(f"inbox/{name}", content.encode())
    replacing = Replacing(objects, "inbox/dance.yaml", f"{text}seed: 2\n".encode())
    later = datetime.now(UTC) + timedelta(minutes=1)
    state = IntakeState()
    for _ in range(2):
        intake = InboxIntake(Inbox(replacing), AcceptedRequests(objects), "sandbox")  # type: ignore[arg-type]
        state = intake.look(state, later).state
    InboxIntake(Inbox(objects), AcceptedRequests(objects), "sandbox").look(state, later)
    accepted = AcceptedRequests(objects).find("dance")
    assert accepted is not None
    assert accepted.request.seed == 2

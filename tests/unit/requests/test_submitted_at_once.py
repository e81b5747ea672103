"""Several people hand in files of one name at the same moment: nobody's file becomes another's clip."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSResponse

from libs.errors import InputError
from libs.requests.documents.batch import parse_submission
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanState
from libs.requests.inbox.submission import plan_submission, upload
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import REPOSITORY_ROOT, load_settings
from libs.storage.backends.factory import objects_from_settings
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.store import ObjectInfo, ObjectStore
from libs.storage.claims import ABANDONED_AFTER, CLAIMS_PREFIX, claimed, claimed_together
from tests.waiting import HANG_SECONDS

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


def test_of_documents_with_one_name_one_is_submitted_and_the_others_fail(objects: ObjectStore, tmp_path: Path) -> None:
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


@contextmanager
def _submitting_process(folder: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """``submitting_process.py`` on a store of its own environment, ready for the first folder."""
    program = Path(__file__).with_name("submitting_process.py")
    with subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _answers(processes: "list[subprocess.Popen[str]]", tasks: list[str]) -> list[str]:
    """What the processes say to tasks that they are given at the same moment."""
    for process, task in zip(processes, tasks, strict=True):
        assert process.stdin is not None
        process.stdin.write(f"{task}\n")
    for process in processes:
        assert process.stdin is not None
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes if process.stdout is not None]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.s3)])
def test_of_two_processes_each_request_gets_its_own_media(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"DATA_DIR": str(tmp_path / "data")}
    if place == "s3":
        server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket")
        environment |= server.environment(bucket)
    rounds = {"folder": 25, "s3": 5}[place]
    for number in range(rounds):
        for person in range(2):  # the picture has everybody's name, too
            (document,) = _files(tmp_path / "desk", person, f"dance-{number}")
            document.write_text(document.read_text().replace(f"id: dance-{number}", f"id: dance-{number}-{person}"))
            (document.parent / "r.png").write_bytes(f"picture {number} of {person}".encode())
            (document.parent / "d.mp4").write_bytes(f"video {number} of {person}".encode())
    with ExitStack() as stack:
        processes = [stack.enter_context(_submitting_process(tmp_path / "desk", environment)) for _ in range(2)]
        assert [process.stdout.readline().strip() for process in processes if process.stdout] == ["ready"] * 2
        for number in range(rounds):
            tasks = [f"dance-{number}-{person}" for person in range(2)]
            assert _answers(processes, tasks) == ["submitted"] * 2
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    objects = objects_from_settings(load_settings())
    for number in range(rounds):
        for person in range(2):
            name = f"dance-{number}-{person}.yaml"
            (found,) = parse_submission(objects.get_bytes(f"inbox/{name}"), source=name).requests
            assert objects.get_bytes(f"inbox/{found.reference}") == f"picture {number} of {person}".encode()
            assert objects.get_bytes(f"inbox/{found.driver}") == f"video {number} of {person}".encode()


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


def test_the_claim_of_a_dead_process_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_claim_to_several_names_leaves_those_that_others_have(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    with claimed(objects, "inbox/a", 0), claimed_together(objects, ["inbox/a", "inbox/b", "inbox/c"]) as own:
        assert own == {"inbox/b", "inbox/c"}
        with claimed(objects, "inbox/b", 0) as alone, claimed_together(objects, ["inbox/c", "inbox/d"]) as others:
            assert not alone
            assert others == {"inbox/d"}
    with claimed(objects, "inbox/b", 0) as alone:
        assert alone
    assert list(objects.list(CLAIMS_PREFIX)) == []


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
    state = ScanState()
    for _ in range(2):
        intake = InboxScanner(Inbox(replacing), AcceptedRequests(objects), "sandbox")  # type: ignore[arg-type]
        state = intake.scan(state, later).state
    InboxScanner(Inbox(objects), AcceptedRequests(objects), "sandbox").scan(state, later)
    accepted = AcceptedRequests(objects).find("dance")
    assert accepted is not None
    assert accepted.request.seed == 2


@pytest.mark.s3
def test_a_document_submitted_between_question_and_deletion_is_read(s3_client: Any, s3_bucket: str) -> None:
    """On a server that does not know conditional deletes: ``submit`` waits for the moment to pass."""
    objects = S3ObjectStore(s3_client, s3_bucket)
    text = b"id: dance\nreference: r.png\ndriver: d.mp4\nseed: "
    for name, content in (("r.png", b"picture"), ("d.mp4", b"video"), ("dance.yaml", text + b"1\n")):
        objects.put_bytes(f"inbox/{name}", content)
    own = S3ObjectStore(_another_client(s3_client), s3_bucket)
    with ThreadPoolExecutor(1) as somebody, TemporaryDirectory() as folder:
        corrected = Path(folder) / "dance.yaml"
        corrected.write_bytes(text + b"2\n")
        submitted: list[Future[bool | None]] = []

        def submit_the_corrected_one(params: dict[str, str], **_: object) -> None:
            if params["Key"] == "inbox/dance.yaml":
                inbox = Inbox(own)
                version = inbox.version_of("dance.yaml")
                submitted.append(somebody.submit(inbox.put_if_unchanged, "dance.yaml", corrected, version))
                wait(submitted, 0.3)

        s3_client.meta.events.register("provide-client-params.s3.DeleteObject", submit_the_corrected_one)
        later = datetime.now(UTC) + timedelta(minutes=1)
        state = ScanState()
        for _ in range(2):
            state = InboxScanner(Inbox(objects), AcceptedRequests(objects), "sandbox").scan(state, later).state
        assert [each.result(HANG_SECONDS) for each in submitted] == [True]
    assert objects.get_bytes("inbox/dance.yaml") == text + b"2\n"


def _another_client(client: Any) -> Any:
    import boto3

    credentials = client._request_signer._credentials
    return boto3.client(
        "s3",
        endpoint_url=client.meta.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
    )


class ConditionalServer:
    """What a server that knows conditional deletes answers, or one that refuses them: the one here ignores them."""

    def __init__(self, client: Any, answer: tuple[int, str]) -> None:
        self._client, self._answer = _another_client(client), answer
        self.asked: list[str] = []
        client.meta.events.register("before-send.s3.DeleteObject", self._before_send)

    def _before_send(self, request: Any, **_: object) -> AWSResponse | None:
        condition = request.headers.get("If-Match")
        if condition is None:
            return None
        condition = condition.decode() if isinstance(condition, bytes) else condition
        self.asked.append(condition)
        _, bucket, key = urlsplit(request.url).path.split("/", 2)
        status, code = self._answer
        stored = self._client.head_object(Bucket=bucket, Key=key)["ETag"]
        if status == HTTPStatus.PRECONDITION_FAILED and stored == condition:
            return None
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        answer = AWSResponse(request.url, status, {"Content-Type": "application/xml"}, None)
        answer._content = body
        return answer


@pytest.mark.s3
def test_a_server_that_knows_conditional_deletes_keeps_what_came_after(s3_client: Any, s3_bucket: str) -> None:
    objects = S3ObjectStore(s3_client, s3_bucket)
    server = ConditionalServer(s3_client, (412, "PreconditionFailed"))
    objects.put_bytes("k", b"first")
    first = objects.stat("k")
    assert first is not None
    uploaded = _another_client(s3_client)

    def upload_meanwhile(params: dict[str, str], **_: object) -> None:
        uploaded.put_object(Bucket=s3_bucket, Key=params["Key"], Body=b"second")

    s3_client.meta.events.register("provide-client-params.s3.DeleteObject", upload_meanwhile, unique_id="meanwhile")
    assert not objects.delete_version(first)
    assert objects.get_bytes("k") == b"second"
    assert server.asked == [first.version]
    s3_client.meta.events.unregister("provide-client-params.s3.DeleteObject", unique_id="meanwhile")
    second = objects.stat("k")
    assert second is not None
    assert objects.delete_version(second)
    assert not objects.exists("k")


@pytest.mark.s3
def test_a_server_that_knows_conditional_deletes_needs_no_claims(s3_client: Any, s3_bucket: str) -> None:
    objects = S3ObjectStore(s3_client, s3_bucket)
    ConditionalServer(s3_client, (412, "PreconditionFailed"))
    uploaded = _another_client(s3_client)
    for name in ("r.png", "d.mp4"):
        objects.put_bytes(f"inbox/{name}", b"media")
    documents = {f"a{n}.yaml": f"id: a{n}\nreference: r.png\ndriver: d.mp4\n".encode() for n in range(4)}
    for name, text in documents.items():
        objects.put_bytes(f"inbox/{name}", text)
    later = datetime.now(UTC) + timedelta(minutes=1)
    state = InboxScanner(Inbox(objects), AcceptedRequests(objects), "sandbox").scan(ScanState(), later).state
    calls: Counter[tuple[str, str]] = Counter()

    def note(params: dict[str, str], model: Any, **_: object) -> None:
        place = params.get("Key") or params.get("Prefix") or ""
        calls[model.name, place.split("/")[0 if place.startswith("inbox") else 1]] += 1

    def replace_one(params: dict[str, str], **_: object) -> None:
        if params["Key"] == "inbox/a2.yaml":
            uploaded.put_object(Bucket=s3_bucket, Key=params["Key"], Body=documents["a2.yaml"] + b"seed: 2\n")

    s3_client.meta.events.register("before-parameter-build.s3", note)
    s3_client.meta.events.register("provide-client-params.s3.DeleteObject", replace_one)
    InboxScanner(Inbox(objects), AcceptedRequests(objects), "sandbox").scan(state, later)
    assert [document.name for document in Inbox(objects).documents()] == ["a2.yaml"], "what came meanwhile stays"
    tried = {name: count for (name, place), count in calls.items() if place == "claims"}
    assert tried == {"PutObject": 1, "DeleteObject": 2}, "whether the server heeds the condition"


@pytest.mark.s3
def test_a_server_that_refuses_the_condition_deletes_without(s3_client: Any, s3_bucket: str) -> None:
    objects = S3ObjectStore(s3_client, s3_bucket)
    server = ConditionalServer(s3_client, (501, "NotImplemented"))
    for _ in range(2):
        objects.put_bytes("k", b"first")
        found = objects.stat("k")
        assert found is not None
        assert objects.delete_version(found)
        assert not objects.exists("k")
    assert len(server.asked) == 1, "it is not asked again"

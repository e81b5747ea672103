"""The HTTP interface: from two files to a clip, as a program uses it."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from libs.requests.lifecycle.listing import Listing
from libs.requests.lifecycle.run_reports import RunPhase, RunReport
from orchestration.studio.clips import Listings
from tests.unit.studio.conftest import Studio

API = "/api/v1"


def send(client: TestClient, name: str, content: bytes, piece: int = 1 << 20) -> dict[str, Any]:
    """Upload a file in pieces; what the studio found."""
    state = client.post(f"{API}/media", json={"name": name, "size": len(content)}).json()
    address = f"{API}/media/uploads/{state['id']}"
    while state["offset"] < len(content):
        part = content[state["offset"] : state["offset"] + piece]
        headers = {"upload-offset": str(state["offset"]), "upload-sha256": hashlib.sha256(part).hexdigest()}
        answer = client.patch(address, content=part, headers=headers)
        assert answer.status_code == 200, answer.text
        state = answer.json()
    return dict(state["media"])


def submit(client: TestClient, media: Path, **fields: Any) -> str:
    """A request of the puppet's media; its id."""
    paths = {field: send(client, name, (media / name).read_bytes())["path"] for field, name in
             (("reference", "puppet.png"), ("driver", "dance.mp4"))}  # fmt: skip
    answer = client.post(f"{API}/requests", json={**paths, "model": "sandbox", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["requests"][0]["id"])


def test_from_two_files_to_a_clip(studio: Studio, media: Path, tmp_path: Path) -> None:
    client = studio.open()
    picture = send(client, "My Puppet.PNG", (media / "puppet.png").read_bytes(), piece=1000)
    assert picture["kind"] == "picture"
    assert picture["path"] == f"my-puppet-{picture['sha256'][:12]}.png"
    video = send(client, "dance.mp4", (media / "dance.mp4").read_bytes())
    assert (video["kind"], video["frames"]) == ("video", 5)

    answer = client.post(f"{API}/requests", json={"reference": picture["path"], "driver": video["path"], "seed": 7})
    (submitted,) = answer.json()["requests"]
    assert (answer.status_code, submitted["outcome"]) == (201, "runs now")
    address = submitted["links"]["self"]
    assert client.get(address).json()["phase"] == "in inbox"
    assert [line["id"] for line in client.get(f"{API}/requests").json()["requests"]] == [submitted["id"]]

    assert studio.accept_waiting() == [submitted["id"]]
    report = RunReport(RunPhase.RUNNING, datetime.now(UTC), doing="sampling, 40 %", percent=40, run_id="a-run")
    studio.runs.known = {submitted["id"]: report}
    view = client.get(address).json()
    assert (view["phase"], view["progress"]["percent"], view["run_id"]) == ("running", 40, "a-run")
    assert view["request"]["seed"] == 7
    assert "clip" not in view["links"]
    assert client.get(f"{address}/clip").status_code == 404

    studio.runs.known = {}
    clip = (media / "dance.mp4").read_bytes()
    studio.publish("animation", submitted["id"], {"clip.mp4": clip}, tmp_path / "clip")
    view = client.get(address).json()
    assert (view["phase"], view["has_clip"]) == ("stored", True)
    whole = client.get(view["links"]["clip"])
    assert (whole.content, whole.headers["content-type"]) == (clip, "video/mp4")
    assert "immutable" in whole.headers["cache-control"]
    part = client.get(f"{address}/clip", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, clip[10:20])
    again = client.get(f"{address}/clip", headers={"if-none-match": whole.headers["etag"]})
    assert again.status_code == 304
    assert client.get(f"{address}/thumbnail").content.startswith(b"\xff\xd8\xff")


def test_an_upload_goes_on_after_an_interruption(studio: Studio, media: Path) -> None:
    client = studio.open()
    content = (media / "dance.mp4").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    begun = client.post(f"{API}/media", json={"name": "dance.mp4", "size": len(content), "sha256": digest}).json()
    address = f"{API}/media/uploads/{begun['id']}"
    client.patch(address, content=content[:100], headers={"upload-offset": "0"})
    twice = client.patch(address, content=content[:100], headers={"upload-offset": "0"})
    assert (twice.status_code, twice.headers["upload-offset"]) == (409, "100")
    damaged = client.patch(
        address, content=b"x" * 10, headers={"upload-offset": "100", "upload-sha256": hashlib.sha256(b"").hexdigest()}
    )
    assert damaged.status_code == 422
    assert client.get(address).json()["offset"] == 100
    done = client.patch(address, content=content[100:], headers={"upload-offset": "100"}).json()
    assert done["media"]["sha256"] == digest
    assert client.get(address).status_code == 404, "a finished upload is gone"
    assert list((studio.data_dir / "studio" / "uploads").iterdir()) == []


def test_fifty_uploads_at_once_lose_nothing(studio: Studio, media: Path) -> None:
    """Pictures of the same name with other content: each is stored, each under its digest."""
    from PIL import Image

    client = studio.open()
    pictures = []
    for number in range(50):
        path = media / f"at-once-{number}.png"
        Image.new("RGB", (32, 32), (number, 255 - number, 90)).save(path)
        pictures.append(path.read_bytes())
    with ThreadPoolExecutor(10) as sending:
        found = list(sending.map(lambda content: send(client, "same.png", content, piece=64), pictures))
    for content, media_file in zip(pictures, found, strict=True):
        assert studio.store.objects.get_bytes(f"inbox/{media_file['path']}") == content


def test_cancel_and_try_again(studio: Studio, media: Path) -> None:
    client = studio.open()
    request_id = submit(client, media, id="a-dance")
    studio.accept_waiting()
    studio.runs.known = {request_id: RunReport(RunPhase.QUEUED, datetime.now(UTC), ahead=2)}
    assert client.get(f"{API}/requests/{request_id}").json()["state"] == "queued (2 before it)"
    assert client.delete(f"{API}/requests/{request_id}").json()["outcome"] == "canceled"
    assert studio.runs.canceled == [request_id]
    assert client.get(f"{API}/requests/{request_id}").json()["phase"] == "canceled"
    assert client.post(f"{API}/requests/{request_id}/retry").json()["outcome"] == "runs now"
    assert client.get(f"{API}/requests/{request_id}").json()["phase"] == "queued"


def test_a_request_that_was_not_accepted_yet_is_taken_back(studio: Studio, media: Path) -> None:
    client = studio.open()
    request_id = submit(client, media)
    assert client.delete(f"{API}/requests/{request_id}").json()["outcome"] == "taken back before it was accepted"
    assert client.get(f"{API}/requests/{request_id}").status_code == 404
    assert studio.accept_waiting() == []


def test_events_tell_every_change_and_end(studio: Studio, media: Path, tmp_path: Path) -> None:
    client = studio.open()
    request_id = submit(client, media, id="watched")
    studio.accept_waiting()
    studio.publish("animation", request_id, {"clip.mp4": (media / "dance.mp4").read_bytes()}, tmp_path / "clip")
    with client.stream("GET", f"{API}/requests/{request_id}/events") as stream:
        lines = list(stream.iter_lines())
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert lines[0] == "event: state"
    assert json.loads(lines[1].removeprefix("data: "))["phase"] == "stored"
    assert "event: end" in lines


def test_listing_is_filtered_and_paged(studio: Studio, media: Path) -> None:
    client = studio.open()
    for number in range(5):
        submit(client, media, id=f"dance-{number}", when="nightly" if number % 2 else "now")
    studio.accept_waiting()
    studio.clips.changed()
    first = client.get(f"{API}/requests", params={"limit": 2}).json()
    assert (len(first["requests"]), first["total"]) == (2, 5)
    second = client.get(first["next"]).json()
    assert not {line["id"] for line in first["requests"]} & {line["id"] for line in second["requests"]}
    tonight = client.get(f"{API}/requests", params={"phase": "tonight"}).json()
    assert {line["id"] for line in tonight["requests"]} == {"dance-1", "dance-3"}
    assert [line["id"] for line in client.get(f"{API}/requests?search=CE-4").json()["requests"]] == ["dance-4"]


def test_the_newest_listing_is_shown_while_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of clips a listing takes a second; nobody waits for it twice."""
    may_go_on, is_taken = threading.Event(), threading.Event()
    taken: list[Listing] = []

    def take() -> Listing:
        if taken:
            assert may_go_on.wait(120)
        taken.append(Listing([], []))
        is_taken.set()
        return taken[-1]

    monkeypatch.setattr("orchestration.studio.clips._FRESH_SECONDS", 0.0)
    monkeypatch.setattr("orchestration.studio.clips._REST", 0.0)
    listings = Listings(take)
    first = listings.newest()
    is_taken.clear()
    assert [listings.newest() for _ in range(5)] == [first] * 5
    assert len(taken) == 1, "the next one is being taken, once, and nobody waits for it"
    may_go_on.set()
    assert is_taken.wait(120)
    listings.forget()
    assert listings.newest() is taken[-1], "what was changed is seen at once"
    assert len(taken) == 3


def test_another_request_is_not_replaced_unasked(studio: Studio, media: Path) -> None:
    client = studio.open()
    request_id = submit(client, media, id="mine", seed=1)
    studio.accept_waiting()
    accepted = studio.requests.find(request_id)
    assert accepted is not None
    document = {**accepted.request.model_dump(mode="json", include={"id", "reference", "driver", "model"}), "seed": 2}
    refused = client.post(f"{API}/requests", json=document)
    assert (refused.status_code, "another request has this id" in refused.json()["message"]) == (409, True)
    assert client.post(f"{API}/requests?replace=true", json=document).status_code == 201


def test_checking_names_each_field(studio: Studio) -> None:
    client = studio.open()
    document = {"reference": "a.png", "driver": "b.mp4", "steps": 0, "colour": "red"}
    checked = client.post(f"{API}/requests/check", json=document).json()
    assert not checked["is_valid"]
    problems = {each["field"]: each["message"] for each in checked["problems"]}
    assert set(problems) == {"steps", "colour"}
    assert "unknown field" in problems["colour"]
    assert client.post(f"{API}/requests/check", json={"reference": "a.png", "driver": "b.mp4"}).json()["is_valid"]


def test_the_interface_describes_itself(studio: Studio) -> None:
    client = studio.open()
    described = client.get(f"{API}/openapi.json").json()
    assert {f"{API}/media", f"{API}/requests", f"{API}/requests/{{request_id}}/events"} <= described["paths"].keys()
    body = described["paths"][f"{API}/requests"]["post"]["requestBody"]["content"]["application/json"]
    assert {"reference", "driver", "seed"} <= body["schema"]["properties"].keys()
    example = body["examples"]["one request"]["value"]
    assert client.post(f"{API}/requests/check", json=example).json()["is_valid"]


@pytest.mark.parametrize("page", ["/clips", "/new", "/fleet"])
def test_pages_need_nothing_from_elsewhere(studio: Studio, page: str) -> None:
    answer = studio.open().get(page)
    assert answer.status_code == 200
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert " style=" not in answer.text, "the content security policy lets no style stand in the page"
    assert "<script>" not in answer.text

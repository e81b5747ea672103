"""What the studio refuses, each with a reason: names, bodies, pages of other sites, passwords, tokens."""

import hashlib
import json
from pathlib import Path

import pytest

from libs.errors import SettingsError
from libs.settings.studio import load_studio_settings
from orchestration.studio.access import SESSION_COOKIE, Access, FailedLogins, TooManyFailuresError, User
from tests.unit.studio.conftest import Studio
from tests.unit.studio.test_api import API, send, submit

PASSWORD = "a long and private sentence"
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "a\0b.png", "\u202egnp.exe", "con.png", ". .", "💃"]
)
def test_a_name_never_becomes_a_path(studio: Studio, media: Path, name: str) -> None:
    found = send(studio.open(), name, (media / "puppet.png").read_bytes())
    assert "/" not in found["path"]
    assert found["path"].isascii()
    assert found["path"].endswith(f"-{found['sha256'][:12]}.png")
    everything = [path for path in studio.data_dir.rglob("*") if path.is_file()]
    assert [path for path in everything if "inbox" in path.parts] == [
        studio.data_dir / "artifacts" / "inbox" / found["path"]
    ]


@pytest.mark.parametrize(
    "address",
    [
        "requests/..%2F..%2Fsecret/clip",
        "requests/%2e%2e/clip",
        "requests/x/..%2f..%2f.env",
        "requests/UPPER/clip",
        "requests/a'b\"<script>/clip",
        "media/uploads/..%2F..%2Fdagster_home",
        "media/uploads/0123",
        "requests/puppet/measurements.json",
    ],
)
def test_nothing_outside_the_store_is_served(studio: Studio, address: str) -> None:
    answer = studio.open().get(f"{API}/{address}")
    assert answer.status_code == 404
    assert answer.json()["message"]


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f__init__.py"])
def test_static_files_end_at_their_folder(studio: Studio, path: str) -> None:
    assert studio.open().get(path).status_code == 404


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html><script>alert(1)</script></html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>", "SVG"),
        (b"MZ\x90\0" + b"\0" * 200, ""),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, ""),
        (b"PK\x03\x04" + b"\0" * 100, "zip"),
        (b"just words", "text"),
    ],
)
def test_a_lying_upload_is_refused_and_removed(studio: Studio, content: bytes, reason: str) -> None:
    client = studio.open()
    begun = client.post(f"{API}/media", json={"name": "dance.mp4", "size": len(content)}).json()
    address = f"{API}/media/uploads/{begun['id']}"
    refused = client.patch(address, content=content, headers={"upload-offset": "0"})
    assert refused.status_code == 422
    assert reason in refused.json()["message"]
    assert "studio/uploads" not in refused.json()["message"], "a path of the server is nobody's business"
    assert list((studio.data_dir / "studio" / "uploads").iterdir()) == []
    assert list(studio.store.objects.list("inbox/")) == []


def test_uploads_are_bounded(studio: Studio) -> None:
    client = studio.open(STUDIO_UPLOAD_MAX_GB="0.001")
    too_large = client.post(f"{API}/media", json={"name": "film.mp4", "size": 1_000_001})
    assert (too_large.status_code, "STUDIO_UPLOAD_MAX_GB" in too_large.json()["message"]) == (422, True)
    begun = client.post(f"{API}/media", json={"name": "film.mp4", "size": 10}).json()
    address = f"{API}/media/uploads/{begun['id']}"
    more = client.patch(address, content=b"x" * 11, headers={"upload-offset": "0"})
    assert (more.status_code, "announced" in more.json()["message"]) == (422, True)
    for wrong in ({"name": "x", "size": -1}, {"name": "", "size": 1}, {"name": "x", "size": 1, "path": "/etc"}):
        assert client.post(f"{API}/media", json=wrong).status_code == 422
    assert client.post(f"{API}/requests", content=b"x" * 2_000_001).status_code == 413
    unannounced = client.post(f"{API}/requests", content=iter([b"x" * 1_500_000] * 2))
    assert unannounced.status_code == 413


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 5000,
        json.dumps({"reference": "../../../etc/passwd", "driver": "x.mp4"}).encode(),
        json.dumps({"reference": "nobody-sent-this.png", "driver": "x.mp4"}).encode(),
        json.dumps({"id": "../x", "reference": "a.png", "driver": "b.mp4"}).encode(),
        json.dumps({"id": "<b>", "reference": "a.png", "driver": "b.mp4"}).encode(),
        b'{"reference": "a.png", "driver": "b.mp4", "seed": NaN}',
        b'{"reference": "a.png", "reference": "c.png", "driver": "b.mp4"}',
        b"!!python/object/apply:os.system ['true']",
    ],
)
def test_a_hostile_document_is_refused_with_a_reason(studio: Studio, document: bytes) -> None:
    answer = studio.open().post(f"{API}/requests", content=document)
    assert answer.status_code == 422
    assert answer.json()["message"]
    assert list(studio.store.objects.list("inbox/")) == []


def test_markup_in_a_prompt_is_text(studio: Studio, media: Path) -> None:
    client = studio.open()
    request_id = submit(client, media, prompt="<script>alert(1)</script>\"'><img src=x onerror=alert(1)>")
    studio.accept_waiting()
    for page in (f"/clips/{request_id}", f"/new?again={request_id}", "/clips?search=<script>alert(2)</script>"):
        text = client.get(page).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert" in text


def test_pages_of_other_sites_change_nothing(studio: Studio, media: Path) -> None:
    """A browser says where a page comes from, and sends the page's own token only from the page itself."""
    client = studio.open()
    request_id = submit(client, media, id="a-dance")
    studio.accept_waiting()
    address = f"{API}/requests/{request_id}"
    forged = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
        {"origin": "http://localhost:3100"},
        {"origin": "http://localhost:3100", "x-csrf-token": "0" * 64},
    )
    for headers in forged:
        refused = client.delete(address, headers=headers)
        assert (refused.status_code, "refused" in refused.json()["message"]) == (403, True), headers
    assert studio.runs.canceled == []
    page = client.get("/clips").text
    token = page.partition('name="csrf" content="')[2].partition('"')[0]
    own = {"origin": "http://localhost:3100", "sec-fetch-site": "same-origin", "x-csrf-token": token}
    assert client.delete(address, headers=own).status_code == 200


def test_another_name_does_not_lead_to_this_machine(studio: Studio) -> None:
    """A site whose name is made to mean 127.0.0.1 would read what only this machine may."""
    client = studio.open()
    assert client.get("/clips", headers={"host": "evil.example:3100"}).status_code == 403
    assert client.get("/clips", headers={"host": "127.0.0.1:3100"}).status_code == 200


def test_pages_forbid_what_is_not_theirs(studio: Studio) -> None:
    for address in ("/clips", f"{API}/requests", "/static/studio.css", "/nowhere"):
        headers = studio.open().get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_nobody_gets_in_without_the_password(studio: Studio) -> None:
    client = studio.open("203.0.113.9", STUDIO_HOST="192.0.2.1", STUDIO_PASSWORD=PASSWORD)
    assert client.get("/clips").headers["location"] == "/login?next=/clips"
    unknown = client.get(f"{API}/requests")
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    assert client.post(f"{API}/media", json={"name": "x", "size": 1}).status_code == 401
    assert client.get("/static/studio.css").status_code == 200

    form = {"name": "Ada", "password": PASSWORD, "next": "//evil.example"}
    assert client.post("/login", data=form, headers={"origin": "https://evil.example"}).status_code == 403
    done = client.post("/login", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/clips"), "never to another site"
    cookie = done.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    page = client.get("/clips").text
    assert "Ada" in page
    assert client.post("/logout").status_code == 403, "without the page's token"
    token = page.partition('name="csrf" content="')[2].partition('"')[0]
    stolen = client.cookies[SESSION_COOKIE]
    assert client.post("/logout", headers={"x-csrf-token": token}).status_code == 204
    client.cookies.set(SESSION_COOKIE, stolen)
    assert client.get("/clips").status_code == 303, "a cookie is worth nothing after the log-out"
    client.cookies.set(SESSION_COOKIE, stolen[:-3] + "abc")
    assert client.get("/clips").status_code == 303


def test_passwords_are_not_guessed(studio: Studio) -> None:
    client = studio.open("203.0.113.9", STUDIO_HOST="192.0.2.1", STUDIO_PASSWORD=PASSWORD)
    answers = [client.post("/login", data={"name": "x", "password": f"guess {number}"}) for number in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert client.post("/login", data={"name": "x", "password": PASSWORD}).status_code == 429


def test_wrong_passwords_are_forgotten_after_a_while() -> None:
    now = [0.0]
    failures = FailedLogins(lambda: now[0])
    for _ in range(5):
        failures.require_fewer("10.0.0.1")
        failures.add("10.0.0.1")
    failures.require_fewer("10.0.0.2")
    with pytest.raises(TooManyFailuresError):
        failures.require_fewer("10.0.0.1")
    now[0] = 301.0
    failures.require_fewer("10.0.0.1")


def test_tokens_of_programs(studio: Studio, media: Path) -> None:
    client = studio.open(
        "203.0.113.9", STUDIO_HOST="192.0.2.1", STUDIO_PASSWORD=PASSWORD, STUDIO_TOKENS=f"render-farm:{TOKEN}"
    )
    client.headers["authorization"] = f"Bearer {TOKEN}"
    request_id = submit(client, media, id="by-a-program")
    studio.accept_waiting()
    assert client.delete(f"{API}/requests/{request_id}").status_code == 200
    noted = studio.store.objects.get_bytes(f"requests/canceled/{request_id}.json")
    assert json.loads(noted)["by"] == "render-farm"
    for wrong in ("", TOKEN[:-1], TOKEN.upper(), hashlib.sha256(TOKEN.encode()).hexdigest()):
        client.headers["authorization"] = f"Bearer {wrong}"
        assert client.get(f"{API}/requests").status_code == 401


def test_only_the_proxy_names_users(studio: Studio) -> None:
    settings = {"STUDIO_HOST": "192.0.2.1", "STUDIO_USER_HEADER": "X-User", "STUDIO_PROXIES": "10.0.0.0/24"}
    proxy = studio.open("10.0.0.7", **settings)
    assert "Grace" in proxy.get("/clips", headers={"x-user": "Grace"}).text
    assert proxy.get("/clips").status_code == 401
    stranger = studio.open("10.0.1.7", **settings)
    assert stranger.get("/clips", headers={"x-user": "Grace"}).status_code == 401
    forwarded = {"x-user": "Grace", "x-forwarded-for": "10.0.0.7", "forwarded": "for=10.0.0.7"}
    assert stranger.get("/clips", headers=forwarded).status_code == 401


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"STUDIO_HOST": "0.0.0.0"}, "STUDIO_PASSWORD"),
        ({"STUDIO_HOST": "0.0.0.0", "STUDIO_PASSWORD": "admin"}, "STUDIO_PASSWORD"),
        ({"STUDIO_HOST": "studio.example.org", "STUDIO_PASSWORD": "short"}, "STUDIO_PASSWORD"),
        ({"STUDIO_USER_HEADER": "X-User"}, "STUDIO_PROXIES"),
        ({"STUDIO_USER_HEADER": "X-User", "STUDIO_PROXIES": "everybody"}, "STUDIO_PROXIES"),
        ({"STUDIO_TOKENS": "farm:short"}, "STUDIO_TOKENS"),
        ({"STUDIO_TOKENS": TOKEN}, "STUDIO_TOKENS"),
        ({"STUDIO_DAGSTER_URL": "javascript:alert(1)"}, "STUDIO_DAGSTER_URL"),
    ],
)
def test_it_does_not_start_open(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named) as refused:
        load_studio_settings()
    assert TOKEN not in str(refused.value)
    assert "admin" not in str(refused.value)


def test_a_session_ends_with_its_password(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_PASSWORD", PASSWORD)
    before = Access(load_studio_settings())
    cookie = before.log_in("Ada", PASSWORD, "10.0.0.1")
    monkeypatch.setenv("STUDIO_PASSWORD", "another long sentence")
    after = Access(load_studio_settings())
    assert cookie is not None
    assert isinstance(_user_of(before, cookie), User)
    assert _user_of(after, cookie) is None


def _user_of(access: Access, cookie: str) -> User | None:
    from fastapi import Request

    headers = [(b"cookie", f"{SESSION_COOKIE}={cookie}".encode())]
    return access.user(Request({"type": "http", "headers": headers, "client": ("10.0.0.1", 1), "method": "GET"}))

"""``one-to-all submit``, ``list`` and ``fetch`` against a folder and a real S3 server, without Dagster."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from libs.command_line.main import main
from libs.command_line.requests.runs import RunsOrReason, provided_runs
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanResult, ScanState
from libs.requests.inbox.submission import upload
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.run_reports import RunPhase, RunReport
from libs.settings import Settings, load_settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.sha256 import sha256_of_file
from tests.s3_server import S3Server
from tests.small_media import write_small_picture, write_small_video

DOCUMENT = "id: solo\nreference: puppet.png\ndriver: videos/dance.mp4\nmodel: sandbox\n"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def store(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The store of the settings: a folder, or a bucket of a real S3 server."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    environment = {"DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"}
    if request.param == "bucket":
        server: S3Server = request.getfixturevalue("s3_server")
        environment |= {
            "S3_ENDPOINT": server.endpoint,
            "S3_ACCESS_KEY": server.access_key,
            "S3_SECRET_KEY": server.secret_key,
            "S3_BUCKET_NAME": request.getfixturevalue("s3_bucket"),
            "S3_PREFIX": "studio",
        }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return store_from_settings(load_settings())


@pytest.fixture
def run(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """The console script's function in this process."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["one-to-all", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return call


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """An artist's folder: media, one request, one batch."""
    folder = tmp_path / "desk"
    (folder / "videos").mkdir(parents=True)
    write_small_picture(folder / "puppet.png")
    write_small_video(folder / "videos" / "dance.mp4")
    (folder / "first-try.yaml").write_text(DOCUMENT)
    (folder / "spring.yaml").write_text(
        "batch: spring\nreferences: [puppet.png]\ndrivers: [videos/dance.mp4]\nsettings: {a: , b: {seed: 3}}\n"
    )
    return folder


class NoRuns:
    """Dagster without any run but those given."""

    def __init__(self, reports: dict[str, RunReport] | None = None) -> None:
        self._reports = reports or {}

    def reports(self, *_: object) -> dict[str, RunReport]:
        return self._reports

    def stale(self, _: object) -> dict[str, list[str]]:
        return {}


def scan_inbox(store: ArtifactStore, minutes: int = 1) -> ScanResult:
    """What the sensor does."""
    intake = InboxScanner(Inbox(store.objects), AcceptedRequests(store.objects), "sandbox")
    first = intake.scan(ScanState(), datetime.now(UTC) + timedelta(minutes=minutes))
    intake.scan(first.state, datetime.now(UTC))
    return first


def publish(store: ArtifactStore, accepted: AcceptedRequest, folder: Path) -> None:
    """What a run leaves behind."""
    results = {"animation": "clip.mp4", "pose_conditioning": "preview.mp4", "animation_review": "contact_sheet.png"}
    for asset, name in results.items():
        made = folder / f"{asset}-{accepted.content}"
        made.mkdir(parents=True)
        (made / name).write_text(f"{name} of {accepted.request.prompt}")
        files = ArtifactFiles(made, attributes={CONTENT_ATTRIBUTE: accepted.content})
        store.publish(asset, accepted.request.id, files)
    AcceptedRequests(store.objects).clear_pending(accepted.request.id, accepted.content)


def keys(store: ArtifactStore) -> Iterator[str]:
    return (info.key for info in store.objects.list("inbox/"))


def test_submit_sends_media_and_documents_once(run: Callable[..., Done], store: ArtifactStore, desk: Path) -> None:
    done = run("submit", desk / "first-try.yaml", desk / "spring.yaml")
    assert done.returncode == 0, done.stderr
    assert "videos/dance.mp4: sent" in done.stdout
    assert "solo.yaml: submitted\n  solo: runs now\n" in done.stdout
    assert "know only its own figures" in done.stdout
    assert "spring.yaml: submitted\n  spring" in done.stdout
    assert "note: sandbox was never verified: run the job prepare_models for partition 'sandbox'" in done.stdout
    assert list(keys(store)) == [
        "inbox/puppet.png",
        "inbox/solo.yaml",
        "inbox/spring.yaml",
        "inbox/videos/dance.mp4",
    ]
    assert "videos/dance.mp4: was there" in run("submit", desk / "spring.yaml").stdout
    write_small_video(desk / "videos/dance.mp4", shade=30)
    alone = run("submit", desk / "spring.yaml").stdout
    own = f"videos/dance-{sha256_of_file(desk / 'videos/dance.mp4')[:8]}.mp4"
    assert f"videos/dance.mp4: stored as {own}, since solo needs another file of that name" in alone
    together = run("submit", desk / "first-try.yaml", desk / "spring.yaml").stdout
    assert "videos/dance.mp4: sent, in place of another file" in together
    assert len(scan_inbox(store).accepted) == 3


def test_submit_says_runs_now_though_a_scan_takes_the_document_meanwhile(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: dict[str, RunReport] = {}

    class Runs:
        def reports(self, *_: object) -> dict[str, RunReport]:
            return dict(queued)

    def upload_and_scan(*arguments: Any) -> list[str]:
        sent = upload(*arguments)
        scan_inbox(store)
        queued["solo"] = RunReport(RunPhase.QUEUED, datetime.now(UTC))
        return sent

    monkeypatch.setattr("libs.stages.request.submitting.upload", upload_and_scan)
    with provided_runs(lambda: RunsOrReason(Runs())):
        assert "solo: runs now" in run("submit", desk / "first-try.yaml").stdout
        assert "solo: is being made already" in run("submit", desk / "first-try.yaml").stdout


def test_how_a_file_will_be_read_is_a_note(run: Callable[..., Done], store: ArtifactStore, desk: Path) -> None:
    Image.new("RGBA", (32, 32), (200, 60, 40, 0)).save(desk / "puppet.png")
    done = run("submit", desk / "first-try.yaml")
    assert "note: solo.yaml: reference: puppet.png: transparent parts are shown over neutral grey\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("videos/dance.mp4", b"a text " * 100, "solo.yaml: driver: not a readable video: it is a text file"),
        ("videos/dance.mp4", b"", "solo.yaml: driver: the file is empty"),
        ("puppet.png", b"a text " * 100, "solo.yaml: reference: "),
        ("puppet.png", None, "solo.yaml: reference: not a picture but a video; are reference and driver exchanged?"),
    ],
    ids=["a text as video", "an empty video", "a text as picture", "exchanged"],
)
def test_media_that_no_clip_can_be_made_of_are_refused_before_anything_is_sent(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, name: str, content: bytes | None, expected: str
) -> None:
    (desk / name).write_bytes((desk / "videos/dance.mp4").read_bytes() if content is None else content)
    done = run("submit", desk / "first-try.yaml")
    assert done.returncode == 1
    assert expected in done.stderr
    assert str(desk / name) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(keys(store)) == []


def test_media_go_first(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    put = Inbox.put
    monkeypatch.setattr(Inbox, "put", lambda inbox, name, file: order.append(name) or put(inbox, name, file))
    run("submit", desk / "spring.yaml", desk / "first-try.yaml")
    assert order == ["puppet.png", "videos/dance.mp4", "spring.yaml", "solo.yaml"]


def test_media_given_by_hand_or_uploaded_before_are_found(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path
) -> None:
    store.objects.put_bytes("inbox/there.png", b"picture")
    elsewhere = write_small_video(tmp_path / "walk.mp4")
    (desk / "mixed.yaml").write_text("id: mixed\nreference: there.png\ndriver: walk.mp4\n")
    done = run("submit", desk / "mixed.yaml", elsewhere)
    assert done.returncode == 0, done.stderr
    assert "inbox/walk.mp4" in keys(store)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gone.yaml", None, "there is no such file"),
        ("bad.yaml", "id: bad\nreference: puppet.png\ndriver: videos/dance.mp4\nsteps: 0\n", "steps: "),
        ("no-media.yaml", "id: no-media\nreference: nobody.png\ndriver: videos/dance.mp4\n", "no file 'nobody.png'"),
    ],
)
def test_mistakes_are_reported_before_anything_is_uploaded(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, name: str, text: str | None, expected: str
) -> None:
    if text:
        (desk / name).write_text(text)
    done = run("submit", desk / "first-try.yaml", desk / name)
    assert done.returncode == 1
    assert expected in done.stderr
    assert not list(keys(store))


def test_list_shows_every_state(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no requests" in run("list").stdout
    run("submit", desk / "spring.yaml", desk / "first-try.yaml")
    store.objects.put_bytes("inbox/bad.yaml", b"id: bad")
    accepted = scan_inbox(store).accepted
    publish(store, accepted[0], tmp_path / "made")
    publish(store, accepted[1], tmp_path / "made")
    (desk / "first-try.yaml").write_text(DOCUMENT + "prompt: new\npriority: 8\n")
    run("submit", desk / "first-try.yaml")
    scan_inbox(store)
    (desk / "waiting.yaml").write_text(DOCUMENT.replace("solo", "waiting"))
    run("submit", desk / "waiting.yaml")
    shown = run("list").stdout
    rows = dict(line.split(None, 1) for line in shown.splitlines() if len(line.split()) > 1)
    assert rows["waiting.yaml"] == "queued: waits for the next scan"
    assert rows["solo"] == "stored, stale (the request was changed since): no clip yet"
    assert rows[accepted[1].request.id] == "stored"
    assert rows[accepted[2].request.id] == "no clip yet"
    requests, _, rejected = shown.partition("\nrejected (")
    assert "bad.yaml  reference: is required" in rejected
    assert "bad.yaml" not in requests
    assert "Dagster cannot be asked" in shown
    assert requests.index("waiting.yaml") < requests.index("solo") < requests.index(accepted[2].request.id)
    monkeypatch.setenv("COLUMNS", "50")
    narrow = run("list").stdout
    assert all(entry.request.id in narrow for entry in accepted), "ids are to be copied: they are never cut"


def test_list_as_json(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/command-line.md describes, field by field."""
    began = datetime.now(UTC) - timedelta(seconds=2)
    (desk / "first-try.yaml").write_text(DOCUMENT + "priority: 8\n")
    run("submit", desk / "first-try.yaml", desk / "spring.yaml")
    for name in ("bad", "worse", "worst"):
        store.objects.put_bytes(f"inbox/{name}.yaml", f"id: {name}\nreference: r.png\n".encode())
    accepted = {entry.request.id: entry for entry in scan_inbox(store).accepted}
    made = next(name for name in accepted if name != "solo")
    publish(store, accepted[made], tmp_path / "made")
    monkeypatch.setattr("libs.requests.lifecycle.listing._REJECTIONS", 2)
    monkeypatch.setattr("libs.command_line.requests.listing._NEWEST", 2)
    document = json.loads(run("list", "--json").stdout)
    assert list(document) == ["requests", "older", "rejected", "rejected_before", "runs_not_shown"]
    assert (document["older"], document["rejected_before"]) == (1, 1)
    assert document["runs_not_shown"] == "this command was started without Dagster"
    for entry in document["requests"]:
        assert list(entry) == ["id", "state", "since", "priority"]
    for entry in document["rejected"]:
        assert list(entry) == ["document", "reason", "when"]
        assert "driver: is required" in entry["reason"]
    times = [entry["since"] for entry in document["requests"]] + [entry["when"] for entry in document["rejected"]]
    assert all(began <= datetime.fromisoformat(time) <= datetime.now(UTC) + timedelta(seconds=2) for time in times)
    whole = json.loads(run("list", "--json", "--all").stdout)
    assert (whole["older"], whole["rejected_before"]) == (0, 0)
    assert sorted(entry["document"] for entry in whole["rejected"]) == ["bad.yaml", "worse.yaml", "worst.yaml"]
    shown = {entry["id"]: (entry["state"], entry["priority"]) for entry in whole["requests"]}
    assert shown["solo"] == ("no clip yet", 8)
    assert shown[made] == ("stored", None), "what is stored waits for nothing"
    with provided_runs(lambda: RunsOrReason(NoRuns())):
        assert json.loads(run("list", "--json").stdout)["runs_not_shown"] is None


def test_list_watches_until_interrupted(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", desk / "first-try.yaml")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            scan_inbox(store)
        elif len(waited) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("libs.command_line.requests.listing.time.sleep", sleep)
    watched = run("list", "--watch")
    assert watched.returncode == 0
    assert [line for line in watched.stdout.splitlines() if line.startswith("solo")] == [
        "solo.yaml  queued: waits for the next scan",
        *["solo  no clip yet"] * 2,
    ]
    assert waited == [2.0] * 3
    waited.clear()
    lines = run("list", "--watch", "--json").stdout.splitlines()
    assert len(lines) == 3, "one document a line"
    assert all(json.loads(line)["requests"][0]["id"] == "solo" for line in lines)


def test_a_failed_request_shows_its_reason_before_a_path(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", desk / "first-try.yaml")
    scan_inbox(store)
    path = "/srv/studio/models/One-to-All-14b/loras/look of the day.safetensors"
    failed = RunReport(RunPhase.FAILED, datetime.now(UTC) + timedelta(hours=1), reason=f"{path}: is for another model")
    monkeypatch.setenv("COLUMNS", "80")
    with provided_runs(lambda: RunsOrReason(NoRuns({"solo": failed}))):
        assert run("list").stdout.splitlines()[0].startswith("solo  failed: is for another model (/srv/studio")
        (entry,) = json.loads(run("list", "--json").stdout)["requests"]
    assert entry["state"] == f"failed: is for another model ({path})"


def test_one_line_each_at_eighty_columns(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "first-try.yaml").write_text(DOCUMENT.replace("puppet.png", f"{'long' * 30}.png"))
    store.objects.put_bytes("inbox/solo.yaml", (desk / "first-try.yaml").read_bytes())
    store.objects.put_bytes("inbox/[/nope].yaml", b"id: bad\nreference: " + b"x" * 400)
    scan_inbox(store)
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("list").stdout.splitlines()
    assert lines[0].startswith("solo.yaml  waiting for media: longlong")
    assert lines[0].endswith("…")
    assert any(line.startswith("[/nope].yaml  ") for line in lines)
    assert all(len(line) <= 80 for line in lines if "Dagster" not in line)


def test_cancel_and_retry_report_what_they_did(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path
) -> None:
    run("submit", desk / "first-try.yaml")
    accepted = scan_inbox(store).accepted[0]
    canceled = run("cancel", "solo")
    assert canceled.returncode == 1, "without Dagster no run was stopped"
    assert "solo: canceled, so that no later run makes it" in canceled.stdout
    assert run("list").stdout.splitlines()[0].startswith("solo  canceled (20")
    assert "solo: tonight" in run("retry", "solo", "--tonight").stdout
    assert run("list").stdout.splitlines()[0] == "solo  no clip yet"
    assert "solo: runs now" in run("retry", "solo").stdout
    assert run("list").stdout.splitlines()[0].startswith("solo  queued: tried again")
    publish(store, accepted, tmp_path / "made")
    assert "already made: fetch it with `one-to-all fetch solo`" in run("retry", "solo").stdout
    assert "there is nothing to cancel" in run("cancel", "solo").stdout
    assert "solo: already made: fetch it with `one-to-all fetch solo`" in run("submit", desk / "first-try.yaml").stdout
    assert run("retry", "nobody").stderr.startswith("error: nobody: there is no such request")
    assert run("--version").stdout.startswith("one-to-all ")


def test_fetch_brings_the_poses_before_the_clip(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path
) -> None:
    run("submit", desk / "first-try.yaml")
    scan_inbox(store)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "preview.mp4").write_text("poses")
    store.publish("pose_conditioning", "solo", ArtifactFiles(tmp_path / "made"))
    done = run("fetch", "solo", "--to", tmp_path / "clips")
    assert done.returncode == 0
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["solo-preview.mp4"]
    assert "animation: not there yet" in done.stdout


def test_fetch_brings_the_results(run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path) -> None:
    run("submit", desk / "first-try.yaml")
    assert "waits in the inbox" in run("fetch", "solo").stderr
    accepted = scan_inbox(store).accepted[0]
    assert "has no clip yet" in run("fetch", "solo").stderr
    publish(store, accepted, tmp_path / "made")
    done = run("fetch", "solo", "--to", tmp_path / "clips")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == [
        "solo-contact-sheet.png",
        "solo-preview.mp4",
        "solo.mp4",
    ]
    assert str(tmp_path / "clips" / "solo.mp4") in done.stdout


def test_a_place_that_cannot_be_written_is_named(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path
) -> None:
    run("submit", desk / "first-try.yaml")
    publish(store, scan_inbox(store).accepted[0], tmp_path / "made")
    (tmp_path / "file").write_text("1")
    refused = run("fetch", "solo", "--to", tmp_path / "file")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {tmp_path / 'file' / 'solo.mp4'}: cannot be written (")
    assert refused.stderr.count("\n") == 1


def test_older_clips_stay_reachable(run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path) -> None:
    run("submit", desk / "first-try.yaml")
    publish(store, scan_inbox(store).accepted[0], tmp_path / "made")
    old = store.manifest("animation", "solo")
    assert old is not None
    (desk / "first-try.yaml").write_text(DOCUMENT + "prompt: new\n")
    run("submit", desk / "first-try.yaml")
    changed = scan_inbox(store).accepted[0]
    assert "the request was changed since" in run("fetch", "solo", "--to", tmp_path / "clips").stdout
    publish(store, changed, tmp_path / "made")
    versions = run("fetch", "solo", "--versions").stdout
    assert old.digest[:16] in versions
    assert "(newest)" in versions
    run("fetch", "solo", "--digest", old.digest[:16], "--to", tmp_path / "clips")
    assert (tmp_path / "clips" / f"solo-{old.digest[:16]}.mp4").read_text() == "clip.mp4 of "
    assert run("fetch", "solo", "--digest", "0" * 16).returncode == 1


@pytest.mark.parametrize("command", ["fetch", "trace", "share"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nobody", "nobody: there is no such request"),
        ("[/nope]", "[/nope]"),
        ("bad", "bad: was rejected; the reason is in"),
    ],
)
def test_an_unknown_request_is_called_unknown(
    run: Callable[..., Done], store: ArtifactStore, command: str, name: str, expected: str
) -> None:
    store.objects.put_bytes("inbox/bad.yaml", b"id: bad")
    scan_inbox(store)
    done = run(command, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "materialize" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_durations_are_shown_in_words(
    run: Callable[..., Done], store: ArtifactStore, desk: Path, tmp_path: Path
) -> None:
    run("submit", desk / "first-try.yaml")
    publish(store, scan_inbox(store).accepted[0], tmp_path / "made")
    assert (
        run("share", "solo", "--expires", "30d").stderr == "error: --expires must be between 1s and 7d, got 30 days\n"
    )

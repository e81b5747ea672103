"""A studio on a small world: a folder as its store, and runs that a test makes up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from libs.command_line.requests.runs import RunsOrReason
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.run_reports import CanceledRuns, RunReport
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import load_settings
from libs.settings.studio import load_studio_settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.factory import store_from_settings
from orchestration.studio.app import create_app
from orchestration.studio.clips import Clips


@dataclass
class MadeUpRuns:
    """See ``libs.requests.lifecycle.run_reports.RequestRuns``."""

    known: dict[str, RunReport] = field(default_factory=dict)
    canceled: list[str] = field(default_factory=list)

    def reports(self, missing: Iterable[str], shown: Iterable[str] = ()) -> Mapping[str, RunReport]:
        return self.known

    def stale(self, request_ids: Iterable[str]) -> Mapping[str, Sequence[str]]:
        return {}

    def cancel(self, request_id: str) -> CanceledRuns:
        self.canceled.append(request_id)
        self.known.pop(request_id, None)
        return CanceledRuns(1)


@dataclass
class Studio:
    """The parts of a studio that a test looks at."""

    data_dir: Path
    store: ArtifactStore
    runs: MadeUpRuns
    clips: Clips
    open: Callable[..., TestClient]

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.store.objects)

    @property
    def requests(self) -> AcceptedRequests:
        return AcceptedRequests(self.store.objects)

    def accept_waiting(self) -> list[str]:
        """What the inbox's sensor does: accept the documents that wait."""
        from libs.requests.documents.batch import parse_submission

        accepted = []
        for document in self.inbox.documents():
            content = self.inbox.read(document)
            for request in parse_submission(content, source=document.name).requests:
                sizes = {
                    path: info.size for path, info in self.inbox.media([request.reference, request.driver]).items()
                }
                self.requests.accept(request, sizes, document=document.name, default_model="sandbox")
                accepted.append(request.id)
            self.store.objects.delete(f"inbox/{document.name}")
        return accepted

    def publish(self, asset: str, request_id: str, files: Mapping[str, bytes | Path], folder: Path) -> None:
        """Store an artifact as a run does."""
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        accepted = self.requests.find(request_id)
        content_of = {"content": accepted.content} if accepted else {}
        self.store.publish(asset, request_id, ArtifactFiles(folder), content_of)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture and a video of the sandbox's puppet."""
    folder = tmp_path_factory.mktemp("media")
    write_puppet_picture(folder / "puppet.png")
    write_puppet_clip(folder / "dance.mp4", frame_count=5)
    return folder


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """A studio; ``open`` makes a client of it, with settings of a test."""
    for name in ("S3_ENDPOINT", "REDIS_URL", "ONE_TO_ALL_MODEL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    settings = load_settings()
    store, runs = store_from_settings(settings), MadeUpRuns()
    clips = Clips(settings, store, lambda: RunsOrReason(runs))

    def open_client(address: str = "127.0.0.1", **variables: str) -> TestClient:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        app = create_app(clips, load_studio_settings())
        return TestClient(app, base_url="http://localhost:3100", client=(address, 50000), follow_redirects=False)

    return Studio(tmp_path / "data", store, runs, clips, open_client)

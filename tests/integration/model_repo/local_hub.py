"""A model hub on this machine: enough of the HTTP interfaces of Hugging Face and ModelScope for their real clients.

It serves repositories from memory, counts what it served, and can misbehave: each path has a queue of faults, taken one
per request. What does not belong here: anything of the project under test.
"""

import hashlib
import json
import threading
import time
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.waiting import HANG_SECONDS

LISTING = "(listing)"
"""The path under which faults of listings are queued."""
_LARGE = 1000
"""Files from this size on count as large file storage on the Hugging Face side (others carry git's digest)."""


@dataclass
class Fault:
    """What goes wrong with one request.

    ``status`` answers with it; ``cut_after`` closes the connection after so many bytes of the body; ``slow`` sleeps so
    many seconds between pieces of ``piece`` bytes; ``content`` is served instead of the file; ``redirect`` sends the
    client there; ``hold`` is waited for in mid-file, and ``reached`` set when it is. ``answer`` is the body whatever
    was asked; ``range_as_200`` sends the range that was asked for with the status of the whole; ``endless`` goes on for
    so many bytes behind the file, or behind ``answer``, without having said how many come.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    slow: float = 0.0
    piece: int = 64 * 1024
    content: bytes | None = None
    redirect: str | None = None
    hold_after: int | None = None
    answer: bytes | None = None
    range_as_200: bool = False
    endless: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class HubRepository:
    files: dict[str, bytes]
    revision: str


class LocalHub:
    """Use as a context manager; ``url`` is the endpoint for either client."""

    def __init__(self, token: str | None = None) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.bytes_served: dict[str, int] = defaultdict(int)
        self.token = token
        self._guard = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes]) -> None:
        """Put a repository there, or a new state of it; its revision follows from the content."""
        digest = hashlib.sha1()
        for path, content in sorted(files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
        self.repositories[repo_id] = HubRepository(dict(files), digest.hexdigest())

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests for ``path`` (within any repository) go wrong in this order, one fault each."""
        self.faults[path].extend(faults)

    def take_fault(self, path: str) -> Fault:
        with self._guard:
            queue = self.faults[path]
            return queue.popleft() if queue else self.always.get(path, Fault())

    def served(self, path: str, count: int) -> None:
        with self._guard:
            self.bytes_served[path] += count

    def requests_of(self, path: str) -> list[str | None]:
        """The Range header of each GET of a file."""
        return [range_ for requested, range_ in self.requests if requested == path]

    @property
    def total_served(self) -> int:
        return sum(self.bytes_served.values())


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
                self._status(401)
            elif parts[:2] == ["api", "models"]:
                self._huggingface_listing(parts)
            elif parts[:3] == ["api", "v1", "models"] and parts[5:] == ["repo", "files"]:
                self._modelscope_listing("/".join(parts[3:5]), query)
            elif parts[:3] == ["api", "v1", "models"] and parts[5:] == ["repo"]:
                self._file("/".join(parts[3:5]), query["FilePath"], query.get("Revision"), body=body)
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), "/".join(parts[4:]), parts[3], body=body)
            else:
                self._status(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _huggingface_listing(self, parts: list[str]) -> None:
        """/api/models/{owner}/{name}[/revision/{revision}], or the same as a tree"""
        repository = self._repository("/".join(parts[2:4]), parts[5] if len(parts) > 5 else None)
        if repository is None:
            return
        siblings = []
        for path, content in repository.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
            if len(content) >= _LARGE:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        if parts[4:5] == ["tree"]:
            self._json([{"type": "file", "path": e["rfilename"], "oid": e["blobId"], **e} for e in siblings])
            return
        self._json({"id": "/".join(parts[2:4]), "sha": repository.revision, "siblings": siblings, "private": False})

    def _modelscope_listing(self, repo_id: str, query: dict[str, str]) -> None:
        repository = self._repository(repo_id, query.get("Revision"))
        if repository is None:
            return
        files = [
            {
                "Name": path.rpartition("/")[2],
                "Path": path,
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                "Type": "blob",
                "Revision": repository.revision,
                "CommittedDate": 1700000000,
            }
            for path, content in repository.files.items()
        ]
        folders = sorted({path.rpartition("/")[0] for path in repository.files if "/" in path})
        files += [{"Name": folder, "Path": folder, "Size": 0, "Type": "tree"} for folder in folders]
        self._json({"Code": 200, "Success": True, "Data": {"Files": files}})

    def _repository(self, repo_id: str, revision: str | None) -> HubRepository | None:
        fault = self.hub.take_fault(LISTING)
        if self._misbehaves_at_once(fault):
            return None
        repository = self.hub.repositories.get(repo_id)
        if repository is None or revision not in (None, "master", "main", repository.revision):
            self._status(404)
            return None
        return repository

    def _file(self, repo_id: str, path: str, revision: str | None, *, body: bool) -> None:
        range_ = self.headers.get("Range")
        if body:
            self.hub.requests.append((path, range_))
        fault = self.hub.take_fault(path)
        if self._misbehaves_at_once(fault):
            return
        repository = self.hub.repositories.get(repo_id)
        if repository is None or path not in repository.files:
            self._status(404)
            return
        content = fault.content if fault.content is not None else repository.files[path]
        start = int(range_.removeprefix("bytes=").partition("-")[0]) if range_ else 0
        if start and start >= len(content):
            self._status(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if range_ and not fault.range_as_200 else 200)
        if not fault.endless:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", repository.revision)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if range_:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self._body(path, content, start, fault)
            for _ in range(fault.endless // fault.piece):
                self.wfile.write(bytes(fault.piece))
                self.hub.served(path, fault.piece)

    def _body(self, path: str, content: bytes, start: int, fault: Fault) -> None:
        position = start
        while position < len(content):
            piece = content[position : position + fault.piece]
            if fault.cut_after is not None and position + len(piece) > start + fault.cut_after:
                self.wfile.write(content[position : start + fault.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(piece)
            self.hub.served(path, len(piece))
            position += len(piece)
            if fault.hold_after is not None and position - start >= fault.hold_after:
                self.wfile.flush()
                fault.reached.set()
                fault.release.wait(HANG_SECONDS)
            if fault.slow:
                self.wfile.flush()
                time.sleep(fault.slow)

    def _misbehaves_at_once(self, fault: Fault) -> bool:
        if fault.redirect is not None:
            self._status(302, {"Location": fault.redirect + self.path})
        elif fault.status is not None:
            self._status(fault.status, fault.headers)
        elif fault.answer is not None and fault.endless:
            self._send_without_end(fault)
        elif fault.answer is not None:
            self._send(fault.answer, fault.headers.get("Content-Type", "application/json"))
        return fault.redirect is not None or fault.status is not None or fault.answer is not None

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        body = b'{"error": "test"}'
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), "application/json")

    def _send_without_end(self, fault: Fault) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        assert fault.answer is not None
        self.wfile.write(fault.answer)
        piece = fault.answer[-1:] * fault.piece
        if "Content-Encoding" in fault.headers:  # an answer that is encoded already
            piece = zlib.compress(bytes(fault.piece * 100), wbits=31)
        for _ in range(fault.endless // len(piece)):
            self.wfile.write(piece)
            self.hub.served(LISTING, len(piece))

    def _send(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

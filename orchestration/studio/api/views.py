"""What the HTTP interface answers with."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from libs.requests.lifecycle.listing import ListedRequest, RequestPhase
from orchestration.studio.clips import Clips, version_of

API = "/api/v1"


class Progress(BaseModel):
    """Of the stage that the run is at."""

    percent: int | None = None
    seconds_left: float | None = None


class RequestView(BaseModel):
    """One request as it is now."""

    id: str
    phase: RequestPhase = Field(description="for programs")
    state: str = Field(description="the same for people, in the words of `one-to-all list`")
    since: datetime = Field(description="when it was accepted last")
    priority: int | None = Field(None, description="null if nothing is to be made")
    has_clip: bool
    progress: Progress | None = None
    run_id: str | None = None
    request: dict[str, Any] | None = Field(None, description="all fields, where one request is asked for")
    links: dict[str, str] = Field(description="`self`, `page`, `events`, and the files that are there")


class RequestPage(BaseModel):
    """Some requests, the newest first."""

    requests: list[RequestView]
    total: int = Field(description="how many match")
    counts: dict[str, int] = Field(description="phase -> how many of all")
    next: str | None = Field(description="address of the next page")
    runs_not_shown: str | None = Field(description="why Dagster could not be asked, so that runs are not shown")


class SubmittedView(BaseModel):
    """A request that was handed in."""

    id: str
    outcome: str = Field(examples=["runs now"])
    links: dict[str, str]


class Submitted(BaseModel):
    """What became of a document."""

    requests: list[SubmittedView]
    notes: list[str] = Field(description="what is converted or cut, and what a person may want to know")


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Checked(BaseModel):
    """Whether a request may be submitted."""

    is_valid: bool
    problems: list[FieldProblem]


class Outcome(BaseModel):
    """What was done, in words."""

    id: str
    outcome: str


def request_view(line: ListedRequest, files: dict[str, str] | None = None) -> RequestView:
    """``line`` as the interface tells it; ``files``: name -> version of those that are known to be there."""
    is_document = line.phase == RequestPhase.IN_INBOX and line.name.rpartition(".")[2] in {"yaml", "yml", "json"}
    name = line.name.rpartition(".")[0] if is_document else line.name
    report = line.report
    own = f"{API}/requests/{name}"
    links = {"self": own, "page": f"/clips/{name}", "events": f"{own}/events", "thumbnail": f"{own}/thumbnail"}
    if files is None and line.has_clip:
        links["clip"] = f"{own}/clip"
    for file, version in (files or {}).items():
        links[file] = f"{own}/{file}?v={version}"
    is_running = line.phase == RequestPhase.RUNNING and report is not None
    return RequestView(
        id=name,
        phase=line.phase,
        state=line.state,
        since=line.since,
        priority=line.priority,
        has_clip=line.has_clip,
        progress=Progress(percent=report.percent, seconds_left=report.seconds_left) if is_running and report else None,
        run_id=report.run_id or None if report else None,
        links=links,
    )


def one_request(clips: Clips, request_id: str) -> RequestView:
    """Everything about one request.

    Raises:
        InputError: there is none of this id.
    """
    line = clips.find(request_id)
    files = {name: version_of(file) for name, file in clips.files(request_id).items()}
    asked = clips.request(request_id)
    fields = asked.model_dump(mode="json") if asked else None
    return request_view(line, files).model_copy(update={"request": fields})


def matching(
    lines: list[ListedRequest], phases: set[RequestPhase] | None = None, text: str = ""
) -> list[ListedRequest]:
    """Those of ``lines`` in one of ``phases`` whose id contains ``text``."""
    wanted = text.strip().lower()
    return [line for line in lines if (not phases or line.phase in phases) and wanted in line.name.lower()]

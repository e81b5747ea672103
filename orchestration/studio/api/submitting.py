"""Submit and check request documents."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from libs.errors import InputError
from libs.requests.documents.animation_request import AnimationRequest, field_problems
from orchestration.studio.access import LARGEST_BODY
from orchestration.studio.api.views import API, Checked, FieldProblem, Submitted, SubmittedView
from orchestration.studio.clips import Clips

_EXAMPLE = {
    "reference": "puppet-1a2b3c4d5e6f.png",
    "driver": "dance-6f5e4d3c2b1a.mp4",
    "model": "sandbox",
    "prompt": "a puppet dancing on a stage",
}


def add_submit_routes(router: APIRouter, clips: Clips) -> None:
    """Add what takes a request document."""

    @router.post("/requests/check", response_model=Checked, tags=["requests"], openapi_extra=_document())
    async def check_request(request: Request) -> Checked:
        """Look whether one request may be submitted, field by field; nothing is stored."""
        body = await _body(request)
        return await run_in_threadpool(_checked, body)

    @router.post("/requests", status_code=201, response_model=Submitted, tags=["requests"], openapi_extra=_document())
    async def submit(request: Request, replace: bool = False) -> Submitted:
        """Submit a request document: one request, a list of them, or a grid, as JSON or YAML.

        A single request without `id` gets one. Its media must have been uploaded, or lie in the inbox.
        """
        body = await _body(request)
        requests, notes = await run_in_threadpool(lambda: clips.submit(body, replace=replace))
        views = [
            SubmittedView(
                id=each.id,
                outcome=each.outcome,
                links={"self": f"{API}/requests/{each.id}", "page": f"/clips/{each.id}"},
            )
            for each in requests
        ]
        return Submitted(requests=views, notes=notes)


def _checked(body: bytes) -> Checked:
    try:
        content = json.loads(body)
        AnimationRequest.model_validate({"id": "check", **content} if isinstance(content, dict) else content)
    except ValidationError as error:
        problems = [FieldProblem(field=field, message=text) for field, text in field_problems(error)]
        return Checked(is_valid=False, problems=problems)
    except (ValueError, RecursionError):
        return Checked(is_valid=False, problems=[FieldProblem(field="", message="a JSON document is expected")])
    return Checked(is_valid=True, problems=[])


async def _body(request: Request) -> bytes:
    body = await request.body()
    if len(body) > LARGEST_BODY:
        raise InputError(f"the document is larger than {LARGEST_BODY} bytes")
    return body


def _document() -> dict[str, Any]:
    schema = AnimationRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"]["size"] = {
        "description": "height and width in pixels",
        "type": "object",
        "properties": {"height": {"type": "integer"}, "width": {"type": "integer"}},
    }
    schema["required"] = ["reference", "driver"]
    content = {"schema": schema, "examples": {"one request": {"value": _EXAMPLE}}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}

"""The files of a request: clip, poses, reference, driver and more, whole or in ranges."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from orchestration.studio.clips import FILES, Clips, version_of

_IN_BROWSER = ("image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4", "video/webm", "application/json")
"""What a browser may show by itself; everything else is saved."""


def add_file_routes(router: APIRouter, clips: Clips) -> None:
    """Add ``/requests/{id}/clip`` and its siblings."""

    @router.get("/requests/{request_id}/thumbnail", tags=["files"], response_class=Response)
    def thumbnail(request_id: str, request: Request) -> Response:
        """A small picture of the clip, or of the reference while there is none."""
        picture = clips.thumbnail(request_id)
        tag = f'"{hashlib.sha256(picture).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(picture, media_type="image/jpeg", headers=headers)

    @router.get("/requests/{request_id}/{name}", tags=["files"], response_class=FileResponse)
    def file(
        request_id: str,
        name: Annotated[str, PathParameter(description=f"one of {', '.join(FILES)}")],
        request: Request,
        download: bool = False,
        v: Annotated[str | None, Query(description="version, from the links: the answer may be kept for ever")] = None,
    ) -> Response:
        """A file of the request, whole or in ranges."""
        stored, path = clips.file(request_id, name)
        tag = f'"{stored.sha256[:32]}"'
        kept = "private, max-age=31536000, immutable" if v == version_of(stored) else "private, no-cache"
        headers = {"etag": tag, "cache-control": kept, "content-security-policy": "default-src 'none'; sandbox"}
        if request.headers.get("if-none-match") == tag and "range" not in request.headers:
            return Response(status_code=304, headers=headers)
        shown = stored.content_type in _IN_BROWSER and not download
        suffix = path.suffix or f".{stored.name.rpartition('.')[2]}"
        saved_as = f"{request_id}{'' if name == 'clip' else f'-{name}'}{suffix}"
        return FileResponse(
            path,
            media_type=stored.content_type if shown else "application/octet-stream",
            filename=saved_as,
            content_disposition_type="inline" if shown else "attachment",
            headers=headers,
        )

"""Upload pictures and videos, in pieces."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool

from libs.errors import InputError
from orchestration.studio.uploads import AnnouncedUpload, Uploads, UploadState

LARGEST_PIECE = 16 * 2**20
"""Bytes of one piece of an upload: what the studio holds in memory for each at most."""


def add_media_routes(router: APIRouter, uploads: Uploads) -> None:
    """Add ``/media``."""

    @router.post("/media", status_code=201, response_model=UploadState, tags=["media"])
    def begin_upload(announced: AnnouncedUpload) -> UploadState:
        """Begin to upload a picture or a video; its bytes follow in pieces of at most 16 MiB."""
        return uploads.begin(announced)

    @router.get("/media/uploads/{upload_id}", response_model=UploadState, tags=["media"])
    def upload_state(upload_id: str) -> UploadState:
        """How many bytes have arrived: where to go on after an interruption."""
        return uploads.state(upload_id)

    @router.patch(
        "/media/uploads/{upload_id}",
        response_model=UploadState,
        tags=["media"],
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def continue_upload(
        upload_id: str,
        request: Request,
        upload_offset: Annotated[int, Header(ge=0, description="where the piece begins")],
        upload_sha256: Annotated[str | None, Header(pattern="^[0-9a-f]{64}$", description="of the piece")] = None,
    ) -> UploadState:
        """Send the next piece. The last one finishes the upload; the answer says what the file is."""
        piece = bytearray()
        async for data in request.stream():
            piece += data
            if len(piece) > LARGEST_PIECE:
                raise InputError(f"a piece has at most {LARGEST_PIECE} bytes: send smaller ones")
        return await run_in_threadpool(uploads.append, upload_id, upload_offset, bytes(piece), upload_sha256)

    @router.delete("/media/uploads/{upload_id}", status_code=204, tags=["media"])
    def abandon_upload(upload_id: str) -> None:
        """Give an unfinished upload up."""
        uploads.abandon(upload_id)

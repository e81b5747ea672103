"""The studio as one ASGI application."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from libs.errors import ArtifactMissingError, InputError, OneToAllError, StorageUnavailableError
from libs.messages.validation import field_path
from libs.settings.studio import StudioSettings
from orchestration.studio.access import API_PREFIX, LARGEST_BODY, Access, BodyTooLargeError, Guard, problem
from orchestration.studio.api import API, api_router
from orchestration.studio.clips import Clips, RequestExistsError
from orchestration.studio.pages import page_router
from orchestration.studio.uploads import UploadMissingError, Uploads, WrongOffsetError

_BYTES_PER_GB = 10**9

_DESCRIPTION = """Make clips from a picture and a video.

Send `Authorization: Bearer <token>` with a token of `STUDIO_TOKENS`; at the studio's own machine, without a password,
nothing is needed. A clip in four calls: `POST /media` and `PATCH` for the picture, the same for the video,
`POST /requests`, then `GET /requests/{id}/events` until `end`, and `GET /requests/{id}/clip`."""


def create_app(clips: Clips, settings: StudioSettings) -> FastAPI:
    """The application; it opens nothing and starts nothing by itself."""
    app = FastAPI(
        title="One-to-All studio",
        version="1",
        description=_DESCRIPTION,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # both would load scripts from elsewhere
        redoc_url=None,
    )
    folder = clips.settings.data_dir / "studio" / "uploads"
    uploads = Uploads(folder, clips.inbox, int(settings.studio_upload_max_gb * _BYTES_PER_GB))
    access = Access(settings)
    app.include_router(api_router(clips, uploads))
    app.include_router(page_router(clips, access, settings))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    app.add_middleware(Guard, access=access, is_upload=lambda path: path.startswith(f"{API}/media/uploads/"))
    _explain_errors(app)
    return app


def _explain_errors(app: FastAPI) -> None:
    @app.exception_handler(OneToAllError)
    def known(request: Request, error: OneToAllError) -> Response:
        return _answer_to(request, error)

    @app.exception_handler(BodyTooLargeError)
    def too_large(_: Request, __: BodyTooLargeError) -> Response:
        return problem(413, f"the body is larger than {LARGEST_BODY} bytes")

    @app.exception_handler(RequestValidationError)
    def wrong_parameters(_: Request, error: RequestValidationError) -> Response:
        found = [(field_path(each["loc"][1:]) or str(each["loc"][0]), str(each["msg"])) for each in error.errors()]
        return problem(422, "; ".join(f"{field}: {text}" for field, text in found), fields=found)

    @app.exception_handler(404)
    def nothing_there(request: Request, _: Any) -> Response:
        if request.url.path.startswith(API_PREFIX):
            return problem(404, "there is no such address; /api/v1/openapi.json lists those there are")
        return problem(404, "there is no such page")

    @app.exception_handler(405)
    def wrong_method(_: Request, __: Any) -> Response:
        return problem(405, "this address does not take this method; /api/v1/openapi.json lists what it takes")


def _answer_to(request: Request, error: OneToAllError) -> JSONResponse:
    if isinstance(error, WrongOffsetError):
        return problem(409, str(error), {"upload-offset": str(error.offset)})
    if isinstance(error, RequestExistsError):
        return problem(409, str(error))
    if isinstance(error, StorageUnavailableError):
        return problem(503, str(error), {"retry-after": "10"})
    if isinstance(error, UploadMissingError | ArtifactMissingError):
        return problem(404, str(error))
    if isinstance(error, InputError):
        return problem(404 if "request_id" in request.path_params else 422, str(error))
    return problem(500, str(error))

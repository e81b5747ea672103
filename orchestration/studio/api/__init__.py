"""The HTTP interface, version 1: what the studio's own page uses, and others may.

Errors answer with ``{"message": …, "fields": […]}``; the message names the field or file and the way out.
"""

from fastapi import APIRouter

from orchestration.studio.api.files import add_file_routes
from orchestration.studio.api.media import add_media_routes
from orchestration.studio.api.requests import add_request_routes
from orchestration.studio.api.submitting import add_submit_routes
from orchestration.studio.api.views import API, matching, one_request, request_view
from orchestration.studio.clips import Clips
from orchestration.studio.uploads import Uploads

__all__ = ["API", "api_router", "matching", "one_request", "request_view"]


def api_router(clips: Clips, uploads: Uploads) -> APIRouter:
    """The routes below ``/api/v1``."""
    router = APIRouter(prefix=API)
    add_media_routes(router, uploads)
    add_submit_routes(router, clips)
    add_request_routes(router, clips)
    add_file_routes(router, clips)
    return router

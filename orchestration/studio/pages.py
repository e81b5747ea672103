"""The pages: what people see. Whatever a page changes, it changes through the HTTP interface."""

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape

from libs.errors import OneToAllError
from libs.requests.lifecycle.listing import RequestPhase
from libs.settings.studio import StudioSettings
from orchestration.studio.access import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    Access,
    TooManyFailuresError,
    User,
    address_of,
    current_user,
    problem,
)
from orchestration.studio.api import matching, one_request, request_view
from orchestration.studio.clips import ACTIVE, Clips
from orchestration.studio.forms import form_fields, told_apart
from orchestration.studio.texts import Texts, chosen, languages

LANGUAGE_COOKIE = "one_to_all_language"
_A_YEAR = 365 * 24 * 3600
_CARDS = 24
_MEDIA_SHOWN = 200
_LARGEST_LOGIN = 4_000
_WORKERS_WITHIN = 2.0

FILTERS: dict[str, frozenset[RequestPhase]] = {
    "all": frozenset(),
    "active": ACTIVE,
    "done": frozenset({RequestPhase.STORED, RequestPhase.STALE}),
    "failed": frozenset({RequestPhase.FAILED, RequestPhase.CANCELED}),
    "tonight": frozenset({RequestPhase.TONIGHT}),
}
"""What the gallery can be narrowed to -> the phases; none: all of them."""


class Pages:
    """Renders templates for whoever asks."""

    def __init__(self, access: Access, settings: StudioSettings) -> None:
        self._access = access
        self._settings = settings
        folder = Path(__file__).with_name("templates")
        self._templates = Environment(
            loader=FileSystemLoader(folder), autoescape=select_autoescape(default=True), trim_blocks=True
        )

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page as an answer."""
        user = request.scope.get("user")
        texts = Texts(chosen(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", "")))
        csrf = self._access.csrf_token(user) if isinstance(user, User) and user.session else ""
        html = self._templates.get_template(template).render(
            t=texts,
            user=user,
            csrf=csrf,
            languages=languages(),
            path=request.url.path,
            dagster=(self._settings.studio_dagster_url or "").rstrip("/"),
            **values,
        )
        headers = {"cache-control": "no-store", "vary": "accept-language, cookie"}
        return Response(html, status, headers, media_type="text/html")


def page_router(clips: Clips, access: Access, settings: StudioSettings) -> APIRouter:
    """The routes of the pages."""
    router = APIRouter(include_in_schema=False)
    pages = Pages(access, settings)

    @router.get("/")
    def home() -> Response:
        return RedirectResponse("/clips", 303)

    @router.get("/health")
    def health() -> dict[str, str]:
        return {"status": "up"}

    @router.get("/new")
    def new_clip(request: Request, again: Annotated[str, Query(max_length=64)] = "") -> Response:
        models = clips.models()
        verified = [name for name, is_there in models if is_there]
        first, more = form_fields(verified or [name for name, _ in models], clips.default_model)
        asked = clips.request(again) if again else None
        fields = asked.model_dump(mode="json", exclude={"id"}) if asked else {}
        media = [path for path, _ in clips.media()[:_MEDIA_SHOWN]]
        return pages.render(request, "new.html", first=first, more=more, again=fields, again_id=again, media=media)

    @router.get("/clips")
    def gallery(
        request: Request,
        show: Annotated[str, Query(max_length=20)] = "all",
        search: Annotated[str, Query(max_length=100)] = "",
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        part: Annotated[bool, Query(description="only the cards")] = False,
    ) -> Response:
        listing = clips.listing()
        chosen_filter = show if show in FILTERS else "all"
        found = matching(listing.requests, set(FILTERS[chosen_filter]), search)
        pages_there = max(1, -(-len(found) // _CARDS))
        number = min(page, pages_there)
        cards = [request_view(line) for line in found[(number - 1) * _CARDS : number * _CARDS]]
        counts = {name: len(matching(listing.requests, set(phases))) for name, phases in FILTERS.items()}
        return pages.render(
            request,
            "cards.html" if part else "clips.html",
            cards=cards,
            show=chosen_filter,
            search=search,
            page=number,
            pages_there=pages_there,
            counts=counts,
            rejected=listing.rejected if chosen_filter in {"all", "failed"} and number == 1 else [],
            is_active=any(card.phase in ACTIVE for card in cards),
            reason=clips.runs_reason(),
        )

    @router.get("/clips/{request_id}")
    def one_clip(request: Request, request_id: str) -> Response:
        try:
            view = one_request(clips, request_id)
        except OneToAllError as error:
            return pages.render(request, "message.html", 404, message=str(error))
        provenance = clips.provenance(request_id) if view.has_clip else None
        chosen_fields, others = told_apart(view.request or {})
        return pages.render(
            request,
            "clip.html",
            view=view,
            chosen=chosen_fields,
            others=others,
            measures=clips.measures(request_id) if view.has_clip else [],
            provenance=provenance,
            is_active=view.phase in ACTIVE,
        )

    @router.get("/fleet")
    def fleet(request: Request) -> Response:
        running = matching(clips.listing().requests, {RequestPhase.RUNNING})
        waiting = matching(clips.listing().requests, {RequestPhase.QUEUED, RequestPhase.IN_INBOX})
        return pages.render(
            request,
            "fleet.html",
            running=[request_view(line) for line in running[:_CARDS]],
            waiting=[request_view(line) for line in waiting[:_CARDS]],
            waiting_count=len(waiting),
            models=clips.models(),
            workers=_workers(clips),
            reason=clips.runs_reason(),
        )

    _add_log_in(router, pages, access)
    return router


def _add_log_in(router: APIRouter, pages: Pages, access: Access) -> None:
    @router.get("/login")
    def log_in_page(request: Request, next: Annotated[str, Query(max_length=300)] = "/clips") -> Response:
        if not access.needs_password:
            return RedirectResponse("/clips", 303)
        return pages.render(request, "login.html", next=_inside(next), error="")

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            return problem(403, "refused: it comes from another site")
        body = await request.body()
        if len(body) > _LARGEST_LOGIN:
            return problem(413, "a name and a password are expected")
        given = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        target = _inside(given.get("next", "/clips"))
        try:
            cookie = access.log_in(given.get("name", ""), given.get("password", ""), address_of(request))
        except TooManyFailuresError as error:
            answer = pages.render(request, "login.html", 429, next=target, error="login.wait", seconds=error.seconds)
            answer.headers["retry-after"] = f"{error.seconds:.0f}"
            return answer
        if cookie is None:
            return pages.render(request, "login.html", 401, next=target, error="login.wrong")
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="lax",
            secure=access.is_secure(request),
        )
        return answer

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        current_user(request)
        access.log_out(request)
        answer = Response(status_code=204)
        answer.delete_cookie(SESSION_COOKIE)
        return answer

    @router.post("/language/{code}")
    def choose_language(code: str) -> Response:
        if code not in languages():
            return problem(404, "there are no texts in this language")
        answer = Response(status_code=204)
        answer.set_cookie(LANGUAGE_COOKIE, code, max_age=_A_YEAR, samesite="lax", httponly=True)
        return answer


def _workers(clips: Clips) -> list[tuple[str, str]] | None:
    """Workers of the fleet, in words; None where there is no fleet, empty where nobody answers."""
    if clips.settings.redis_url is None:
        return None
    from orchestration.fleet.worker_list import describe, worker_states  # noqa: PLC0415 - loads Dagster and Celery

    try:
        states = worker_states(clips.settings.redis_url.get_secret_value(), _WORKERS_WITHIN)
    except Exception:  # the broker is away, in one of the many ways that its client knows
        return []
    return [(name, describe(state, time.time())) for name, state in states]


def _inside(target: str) -> str:
    """``target`` where it is a page of the studio; the gallery otherwise."""
    parts = urlsplit(target)
    is_inside = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc
    return target if is_inside and "\\" not in target and target.isprintable() else "/clips"

"""Who may use the studio: log-in, sessions, tokens of programs, and what a browser may be made to send.

Every request passes :class:`Guard` first. It finds out who asks (a proxy's header, a token, a session, or the person at
this machine), refuses who is nobody, refuses what another site made a browser send, bounds the body, and adds the
headers that keep a page from loading or running anything that is not the studio's own.
"""

import getpass
import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from libs.messages.printable import printable
from libs.settings.studio import StudioSettings

SESSION_COOKIE = "one_to_all_session"
SESSION_SECONDS = 12 * 3600
CSRF_HEADER = "x-csrf-token"
API_PREFIX = "/api/"

LARGEST_BODY = 2_000_000
"""Bytes of everything that is no upload; a batch of thousands of requests has one."""

_FAILURES = 5
_FAILURES_OF_ALL = 100
_FAILURE_SECONDS = 300.0
"""So many wrong passwords from one address, and from all, within this time; then nobody of them may try."""

_LONGEST_NAME = 60
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN_PATHS = ("/login", "/static/", "/health")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

Scope = MutableMapping[str, Any]


@dataclass(frozen=True)
class User:
    """Who asks.

    Attributes:
        name: what others see, e.g. as the one who canceled a request.
        session: what a CSRF token belongs to; None for a program, which sends a token of its own with each request.
        can_log_out: has a session that can be ended.
    """

    name: str
    session: str | None
    can_log_out: bool = False


class TooManyFailuresError(Exception):
    """Too many wrong passwords; ``seconds`` until the next may be tried."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong passwords: wait {seconds:.0f} s")
        self.seconds = seconds


class FailedLogins:
    """The wrong passwords of the last minutes, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def require_fewer(self, address: str) -> None:
        """Look whether ``address`` may try.

        Raises:
            TooManyFailuresError: not now.
        """
        with self._lock:
            self._forget_old()
            own = self._times.get(address, deque())
            everybody = sum(len(times) for times in self._times.values())
            if len(own) >= _FAILURES:
                raise TooManyFailuresError(own[0] + _FAILURE_SECONDS - self._clock())
            if everybody >= _FAILURES_OF_ALL:
                raise TooManyFailuresError(_FAILURE_SECONDS)

    def add(self, address: str) -> None:
        """Note a wrong password."""
        with self._lock:
            self._times.setdefault(address, deque(maxlen=_FAILURES)).append(self._clock())

    def _forget_old(self) -> None:
        oldest = self._clock() - _FAILURE_SECONDS
        for address, times in list(self._times.items()):
            while times and times[0] < oldest:
                times.popleft()
            if not times:
                del self._times[address]


class Access:
    """Answers who asks, and signs what proves it.

    Sessions are signed with a key that is derived from the password: they survive a restart, hold in each of several
    processes, and end when the password changes. Without a password the key is random.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self._settings = settings
        password = settings.studio_password.get_secret_value() if settings.studio_password else None
        self._password = password
        self._key = _key(password) if password else secrets.token_bytes(32)
        self._sessions = URLSafeTimedSerializer(self._key.hex(), salt="session")
        self._tokens = {name: _digest(token) for name, token in settings.tokens.items()}
        self._ended: dict[str, float] = {}
        self.failures = FailedLogins()

    @property
    def needs_password(self) -> bool:
        """Whether people log in here."""
        return self._password is not None

    def user(self, request: Request) -> User | None:
        """Who sends ``request``; None where it does not say so, or what it says does not hold."""
        if named := self._named_by_proxy(request):
            return named
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":  # whoever sends a wrong token is nobody, whatever else it sends
            return self._of_token(token.strip())
        if cookie := request.cookies.get(SESSION_COOKIE):
            return self._of_session(cookie)
        if not self.needs_password and not self._settings.studio_user_header:
            return User(_person_here(), "this machine")
        return None

    def log_in(self, name: str, password: str, address: str) -> str | None:
        """The value of a session's cookie; None for a wrong password.

        Raises:
            TooManyFailuresError: ``address`` may not try at the moment.
        """
        self.failures.require_fewer(address)
        if self._password is None or not hmac.compare_digest(_digest(password), _digest(self._password)):
            self.failures.add(address)
            return None
        shown = printable(name.strip(), _LONGEST_NAME) or "studio"
        return str(self._sessions.dumps([shown, secrets.token_hex(16)]))

    def log_out(self, request: Request) -> None:
        """End the session of ``request``: its cookie is worth nothing from now on, wherever a copy of it is."""
        if cookie := request.cookies.get(SESSION_COOKIE):
            now = time.time()
            self._ended = {key: until for key, until in self._ended.items() if until > now}
            self._ended[_digest(cookie).hex()] = now + SESSION_SECONDS

    def csrf_token(self, user: User) -> str:
        """What pages of ``user`` send along with everything that changes something."""
        return hmac.new(self._key, f"csrf {user.session}".encode(), hashlib.sha256).hexdigest()

    def why_forged(self, request: Request, user: User) -> str | None:
        """Why another site may have made a browser send this request; None where it did not."""
        if user.session is None:
            return None
        headers = request.headers
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return "it comes from another site"
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return "it comes from another site"
        is_browser = origin is not None or "sec-fetch-site" in headers or SESSION_COOKIE in request.cookies
        if not is_browser and user.session == "this machine":
            return None  # curl and the like at this machine: no site can make them send anything
        if not hmac.compare_digest(headers.get(CSRF_HEADER, ""), self.csrf_token(user)):
            return f"it lacks the page's token ({CSRF_HEADER}); load the page again"
        return None

    def is_wrong_host(self, request: Request) -> bool:
        """Whether a name that is not this machine's leads here: a site that wants to read what only this machine may.

        Only where nobody logs in; elsewhere such a site has no session.
        """
        if self.needs_password or self._settings.studio_user_header:
            return False
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        return host not in _LOCAL_NAMES and host != self._settings.studio_host

    def is_secure(self, request: Request) -> bool:
        """Whether the browser came by https, here or at the proxy."""
        by_proxy = request.headers.get("x-forwarded-proto") if self._is_proxy(request) else None
        return (by_proxy or request.url.scheme) == "https"

    def _named_by_proxy(self, request: Request) -> User | None:
        header = self._settings.studio_user_header
        if header is None or not self._is_proxy(request):
            return None
        name = printable(request.headers.get(header, "").strip(), _LONGEST_NAME)
        return User(name, f"proxy {name}") if name else None

    def _is_proxy(self, request: Request) -> bool:
        try:
            peer = ip_address(address_of(request))
        except ValueError:
            return False
        return any(peer in network for network in self._settings.proxies)

    def _of_token(self, token: str) -> User | None:
        given = _digest(token)
        # All are compared, so that the time tells nothing.
        names = [name for name, digest in self._tokens.items() if hmac.compare_digest(given, digest)]
        return User(names[0], None) if names else None

    def _of_session(self, cookie: str) -> User | None:
        if not self.needs_password or _digest(cookie).hex() in self._ended:
            return None
        try:
            name, session = self._sessions.loads(cookie, max_age=SESSION_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        return User(str(name), str(session), can_log_out=True)


class Guard:
    """The ASGI middleware through which every request passes."""

    def __init__(self, app: Any, access: Access, is_upload: Callable[[str], bool]) -> None:
        self._app, self._access, self._is_upload = app, access, is_upload

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        if not self._is_upload(scope["path"]):
            receive = _bounded(receive, LARGEST_BODY)
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        path = request.url.path
        if self._access.is_wrong_host(request):
            return problem(403, "the studio of this machine is not reached by this name: open it by localhost")
        user = self._access.user(request)
        request.scope["user"] = user
        if user is None and not path.startswith(_OPEN_PATHS):
            return self._to_log_in(request)
        if request.method not in _SAFE_METHODS and user is not None and path != "/login":
            reason = self._access.why_forged(request, user)
            if reason is not None:
                return problem(403, f"refused: {reason}")
        length = request.headers.get("content-length", "0")
        if not self._is_upload(path) and (not length.isdigit() or int(length) > LARGEST_BODY):
            return problem(413, f"the body is larger than {LARGEST_BODY} bytes")
        return None

    def _to_log_in(self, request: Request) -> Response:
        path = request.url.path
        if path.startswith(API_PREFIX):
            return problem(401, "log in, or send a token: Authorization: Bearer …", {"www-authenticate": "Bearer"})
        if self._access.needs_password and request.method in _SAFE_METHODS:
            return RedirectResponse(f"/login?next={quote(path)}", 303)
        return problem(401, "nobody is logged in: come by the proxy that logs people in")


def problem(
    status: int,
    message: str,
    headers: dict[str, str] | None = None,
    fields: Iterable[tuple[str, str]] = (),
) -> JSONResponse:
    """An answer that says what is wrong: ``{"message": …, "fields": [{"field": …, "message": …}]}``."""
    named = [{"field": field, "message": text} for field, text in fields]
    return JSONResponse({"message": message, "fields": named}, status, headers)


def current_user(request: Request) -> User:
    """Who asks; everybody who gets past the guard is somebody."""
    user = request.scope["user"]
    assert isinstance(user, User)
    return user


def address_of(request: Request) -> str:
    """The address that the request came from; never what a header claims."""
    return request.client.host if request.client else ""


class BodyTooLargeError(Exception):
    """A body without a length turned out to be too large."""


def _bounded(receive: Any, limit: int) -> Any:
    taken = 0

    async def bounded() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise BodyTooLargeError
        return message

    return bounded


def _key(password: str) -> bytes:
    return hashlib.scrypt(password.encode(), salt=b"one-to-all studio, sessions", n=2**14, r=8, p=1, dklen=32)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _person_here() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "studio"

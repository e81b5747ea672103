"""Hugging Face (or a mirror of it) through ``huggingface_hub``.

``hf_hub_download`` starts a killed download from the first byte, so files are fetched with the ranged ``http_get`` of
the same library, which is what it uses itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, get_session

from libs.errors import HubError, HubUnavailableError
from libs.files.garbage_collection import garbage_collection_paused
from libs.model_repo.hubs.bounded_answer import (
    LARGEST_ANSWER,
    LARGEST_ENCODED_ANSWER,
    AnswerBound,
    EndlessAnswerError,
    endless_answer,
)
from libs.model_repo.hubs.hub import (
    IF_IT_DOES_NOT_ANSWER,
    Advance,
    Listing,
    RemoteFile,
    checked_file,
    is_no_answer,
    no_hubs_answer,
    partial_path,
    refusal,
)
from libs.settings.values import HubName

_LIBRARY = "one-to-all-pipeline"
_CLIENT_ERRORS = (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError)
_WORTH_A_RETRY = {408, 429}


class HuggingFaceHub:
    """The hub at ``endpoint`` (huggingface.co, or ``HF_ENDPOINT``, by default)."""

    name: HubName = "huggingface"
    revisions_are_commits = True
    retries_listings = False

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        # plain bytes: the size of an answer is known while it is read
        headers = {"Accept-Encoding": "identity"}
        self._api = HfApi(endpoint=endpoint, token=token, library_name=_LIBRARY, headers=headers)

    def list_files(self, repo_id: str, revision: str | None) -> Listing:
        """See :class:`libs.model_repo.hubs.hub.Hub`; small files carry git's digest, large ones their SHA-256."""
        with _errors_of(repo_id):
            try:
                with garbage_collection_paused(), _answers_bounded():
                    info = self._api.model_info(repo_id, revision=revision, files_metadata=True)
            except EndlessAnswerError as error:
                raise endless_answer(repo_id, error) from error
            except Exception as error:
                if is_no_answer(error) and not isinstance(error, _CLIENT_ERRORS):
                    raise no_hubs_answer(repo_id, error) from error
                raise
        files = [
            checked_file(
                repo_id,
                entry.rfilename,
                0 if entry.size is None else entry.size,
                entry.lfs.sha256 if entry.lfs else None,
                None if entry.lfs else entry.blob_id,
            )
            for entry in info.siblings or ()
        ]
        if not isinstance(info.sha, str | None):
            raise no_hubs_answer(repo_id)
        if not info.sha:
            raise HubError(f"{repo_id}: {self._api.endpoint} does not say at which commit its listing was taken")
        return Listing(repo_id, revision=info.sha, requested=info.sha, files=tuple(files))

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> Path:
        """See :class:`libs.model_repo.hubs.hub.Hub`."""
        target = folder / file.path
        partial = partial_path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(listing.repo_id, file.path, revision=listing.requested, endpoint=self._api.endpoint)
        # plain bytes: under a content encoding neither ranges nor sizes would mean those of the file
        headers = build_hf_headers(token=self._api.token, library_name=_LIBRARY) | {"Accept-Encoding": "identity"}
        what = f"{listing.repo_id}/{file.path}"
        with _other_size_dropped(what, partial), partial.open("ab") as stream:
            have = stream.tell()
            if have > file.size:
                stream.truncate(0)
                have = 0
            advance(have)
            with _errors_of(what):
                http_get(
                    url,
                    stream,
                    resume_size=have,
                    headers=headers,
                    expected_size=file.size,
                    displayed_filename=file.path,
                    tqdm_class=_reporting_bar(_limited(advance, file.size - have)),
                )
        partial.replace(target)
        return target


_bounds_answers: ContextVar[bool] = ContextVar("bounds_answers", default=False)


@contextmanager
def _answers_bounded() -> Iterator[None]:
    """Inside the block this thread's answers, which the client reads as a whole, may not go on for ever."""
    hooks = get_session().event_hooks
    if _bound_answer not in hooks["response"]:
        get_session().event_hooks = hooks | {"response": [*hooks["response"], _bound_answer]}
    token = _bounds_answers.set(True)
    try:
        yield
    finally:
        _bounds_answers.reset(token)


def _bound_answer(response: httpx2.Response) -> None:
    """A hook of the client, which it calls before it reads an answer."""
    if _bounds_answers.get():
        is_encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        limit = LARGEST_ENCODED_ANSWER if is_encoded else LARGEST_ANSWER
        response.stream = _BoundedStream(response.stream, limit)


class _BoundedStream(httpx2.SyncByteStream):
    """The bytes of an answer as they arrive, counted."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit = stream, limit

    def __iter__(self) -> Iterator[bytes]:
        return AnswerBound(self._limit).pieces(iter(self._stream))

    def close(self) -> None:
        self._stream.close()


class _OtherSizeError(Exception):
    """The hub sends more bytes than it listed, or fewer."""


@contextmanager
def _other_size_dropped(what: str, partial: Path) -> Iterator[None]:
    """Throw away what has another size than the listing says: to carry on with it would be to carry on for ever.

    So a hub that answers a range with 200, as if it were the whole file, is asked for the whole file next.
    """
    try:
        yield
    except _OtherSizeError as error:
        partial.unlink(missing_ok=True)
        raise HubUnavailableError(f"{what}: the hub sent another number of bytes than it announced") from error


def _limited(advance: Advance, left: int) -> Advance:
    """``advance``, which ends a transfer before the first byte that is too many is written."""
    received = 0

    def limited(count: int) -> None:
        nonlocal received
        received += count
        if received > left:
            raise _OtherSizeError
        advance(count)

    return limited


def _reporting_bar(advance: Advance) -> Any:
    """A class in the place of tqdm's that passes on the byte counts and draws nothing."""

    class Bar:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def update(self, count: float | None = 1) -> None:
            advance(int(count or 0))

        def close(self) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Bar


@contextmanager
def _errors_of(what: str) -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except HfHubHTTPError as error:
        raise _translate(what, error) from error
    except OfflineModeIsEnabled as error:
        raise HubUnavailableError(f"{what}: HF_HUB_OFFLINE is set, so nothing is fetched") from error
    except httpx2.HTTPError as error:
        reason = f"the hub did not answer ({type(error).__name__}: {error}); {IF_IT_DOES_NOT_ANSWER}"
        raise HubUnavailableError(f"{what}: {reason}") from error
    except OSError as error:
        if error.errno is None and "Consistency check failed" in str(error):
            raise _OtherSizeError from error
        raise


def _translate(what: str, error: HfHubHTTPError) -> HubError:
    status = error.response.status_code
    if status in _WORTH_A_RETRY or status >= 500:
        return HubUnavailableError(
            f"{what}: the hub answered {status}; try again later",
            retry_after_seconds(error.response.headers.get("Retry-After")),
        )
    return refusal(what, status)


def retry_after_seconds(value: str | None) -> float | None:
    """What ``Retry-After`` says: seconds, or a date (RFC 9110, section 10.2.3); None where it says neither."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)

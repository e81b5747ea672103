"""ModelScope through its own client (``modelscope_hub``, the library under ``modelscope``).

The client resumes from ``<file>.incomplete``, compares size and SHA-256, and gives a file up after an hour; the caller
asks again, and it carries on.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libs.errors import HubError, HubUnavailableError
from libs.files.garbage_collection import garbage_collection_paused
from libs.model_repo.hubs.bounded_answer import AnswerBound, EndlessAnswerError, endless_answer
from libs.model_repo.hubs.hub import (
    IF_IT_DOES_NOT_ANSWER,
    Advance,
    Listing,
    RemoteFile,
    checked_file,
    is_no_answer,
    no_hubs_answer,
    refusal,
)
from libs.settings.values import HubName

os.environ.setdefault("TQDM_DISABLE", "1")  # the client draws its own bars otherwise, between the lines of a log

from modelscope_hub import HubApi, ProgressCallback
from modelscope_hub.errors import APIError, FileIntegrityError, NetworkError, RequestTimeoutError
from modelscope_hub.errors import HubError as ClientError

_DEFAULT_REVISION = "master"
_RESERVED_FOLDER = ".modelscope"


class ModelScopeHub:
    """The hub at ``endpoint`` (modelscope.cn, or ``MODELSCOPE_ENDPOINT``, by default)."""

    name: HubName = "modelscope"
    revisions_are_commits = False
    retries_listings = True

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self._api = HubApi(endpoint=endpoint, token=token)
        self._listings = _bounded(HubApi(endpoint=endpoint, token=token).legacy)

    def list_files(self, repo_id: str, revision: str | None) -> Listing:
        """See :class:`libs.model_repo.hubs.hub.Hub`.

        The listing names no commit of its own; the newest commit among its files and folders stands for it.
        """
        with _errors_of(repo_id):
            try:
                with garbage_collection_paused():
                    entries = self._listings.list_repo_files(repo_id, "model", revision=revision or _DEFAULT_REVISION)
            except EndlessAnswerError as error:
                raise endless_answer(repo_id, error) from error
            except Exception as error:
                if _got_no_answer(error):
                    raise no_hubs_answer(repo_id, error) from error
                raise
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise no_hubs_answer(repo_id)
        files = tuple(
            checked_file(repo_id, entry.get("Path"), entry.get("Size") or 0, entry.get("Sha256"))
            for entry in entries
            if entry.get("Type") != "tree"
        )
        try:
            newest: dict[str, Any] = max(entries, key=lambda entry: int(entry.get("CommittedDate") or 0), default={})
        except (ValueError, TypeError, OverflowError) as error:
            raise no_hubs_answer(repo_id) from error
        commit = str(newest.get("Revision") or revision or _DEFAULT_REVISION)
        return Listing(repo_id, revision=commit, requested=revision or _DEFAULT_REVISION, files=files)

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> Path:
        """See :class:`libs.model_repo.hubs.hub.Hub`."""
        with _errors_of(f"{listing.repo_id}/{file.path}"):
            return self._api.downloader.download_file(
                listing.repo_id,
                "model",
                file.path,
                revision=listing.requested,
                cache_dir=folder / _RESERVED_FOLDER,
                local_dir=folder,
                expected_sha256=file.sha256,
                file_size=file.size,
                progress_callbacks=[_reporting_callback(advance)],
            )


def _bounded(client: Any) -> Any:
    """``client``, whose answers may not go on for ever; files are fetched by another one."""
    for session in (client._session, client._read_session):
        session.hooks["response"].append(_bound_answer)
    return client


def _bound_answer(response: Any, **_: Any) -> None:
    """A hook of requests, which calls it before the answer is read; what is counted is decoded already."""
    raw = response.raw
    for name in ("read", "read1"):
        if hasattr(raw, name):
            setattr(raw, name, AnswerBound().reading(getattr(raw, name)))
    stream = raw.stream
    raw.stream = lambda *arguments, **options: AnswerBound().pieces(stream(*arguments, **options))


def _got_no_answer(error: BaseException) -> bool:
    """The client wraps some of what reading an answer leads to into errors of its own, which have no status then."""
    if isinstance(error, ClientError):
        cause = error.__cause__ or error.__context__
        return getattr(error, "status_code", None) in {None, 200} and isinstance(cause, json.JSONDecodeError)
    return is_no_answer(error)


def _reporting_callback(advance: Advance) -> type[ProgressCallback]:
    """A class, as the client wants it, that passes on the byte counts."""

    class Callback(ProgressCallback):
        def update(self, size: int) -> None:
            advance(size)

    return Callback


@contextmanager
def _errors_of(what: str) -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except FileIntegrityError as error:
        raise HubError(
            f"{what}: the hub keeps sending other bytes than its own listing announces; try a mirror "
            "(MODEL_HUB_ENDPOINT), the other hub (MODEL_HUB), or later"
        ) from error
    except APIError as error:
        raise _translate(what, error) from error
    except (NetworkError, RequestTimeoutError) as error:
        reason = f"the hub did not answer ({type(error).__name__}); {IF_IT_DOES_NOT_ANSWER}"
        raise HubUnavailableError(f"{what}: {reason}") from error
    except ClientError as error:
        raise HubError(f"{what}: {error.message}") from error


def _translate(what: str, error: APIError) -> HubError:
    status = error.status_code
    if error.retryable:
        answer = f"answered {status}" if status else "did not answer"
        return HubUnavailableError(f"{what}: the hub {answer}; try again later", getattr(error, "retry_after", None))
    return refusal(what, status)

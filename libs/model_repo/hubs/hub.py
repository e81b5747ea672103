"""What a model hub must be able to do for us, and choosing one by the settings.

See ``modelscope`` and ``huggingface`` for the two hubs.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from libs.errors import HubError, HubUnavailableError
from libs.settings import Settings
from libs.settings.values import HubName

Advance = Callable[[int], None]
"""Called with the bytes just received; negative when received bytes had to be thrown away."""

IF_IT_DOES_NOT_ANSWER = (
    "check this machine's network, HTTPS_PROXY and MODEL_HUB_ENDPOINT, or try the other hub (MODEL_HUB)"
)

_LARGEST_FILE = 2**50
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"


class DownloadCancelledError(BaseException):
    """Raised inside an :data:`Advance` to make a client stop; no client retries after a ``BaseException``."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a listing. ``sha256`` or ``git_blob`` (SHA-1 of git's blob object) says what its bytes are."""

    path: str
    size: int
    sha256: str | None = None
    git_blob: str | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one revision.

    ``revision`` is the commit it resolved to, for the record; ``requested`` is what the hub must be asked for.
    """

    repo_id: str
    revision: str
    requested: str
    files: tuple[RemoteFile, ...]


class Hub(Protocol):
    """A model hub, through its own client library."""

    name: HubName
    revisions_are_commits: bool
    """True if :meth:`list_files` accepts the resolved revision of an earlier listing."""
    retries_listings: bool
    """True if the client itself asks several times before :meth:`list_files` fails."""

    def list_files(self, repo_id: str, revision: str | None) -> Listing:
        """The files at ``revision`` (the default branch if None).

        Raises:
            HubError: it refused for good.
            HubUnavailableError: it did not answer, or asked to wait.
        """

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> Path:
        """Fetch one file to ``folder / file.path``, carrying on from what an earlier call left in ``folder``.

        Raises:
            HubError, HubUnavailableError: as above; what was received stays in ``folder`` for the next call.
            OSError: the disk refused.
        """


def no_hubs_answer(what: str, error: BaseException | None = None) -> HubUnavailableError:
    """The error for an answer with status 200 that no hub gives; ``error`` is what reading it led to.

    What stands in the way (a hotel's log-in page, a proxy) may be gone later.
    """
    seen: set[int] = set()
    while error is not None and not isinstance(error, json.JSONDecodeError) and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    text = error.doc if isinstance(error, json.JSONDecodeError) else ""
    kind = "HTML" if str(text).lstrip().startswith("<") else "not a listing of files"
    return HubUnavailableError(
        f"{what}: this is not the hub's answer ({kind}: a log-in page or proxy?); open the hub's address in a browser "
        "on this machine, and check MODEL_HUB_ENDPOINT and the proxy settings"
    )


def is_no_answer(error: BaseException) -> bool:
    """Whether reading an answer failed because of what it is: no JSON, or JSON of another shape."""
    return isinstance(error, ValueError | TypeError | KeyError | AttributeError | RecursionError)


def checked_file(repo_id: str, path: object, size: object, sha256: object, git_blob: object = None) -> RemoteFile:
    """One entry of a listing.

    Raises:
        HubUnavailableError: what stands there is not what a hub lists.
    """
    texts = (sha256, git_blob)
    is_size = type(size) is int and 0 <= size < _LARGEST_FILE
    if not isinstance(path, str) or not is_size or not all(one is None or isinstance(one, str) for one in texts):
        raise no_hubs_answer(repo_id)
    return RemoteFile(path, size, sha256 or None, git_blob or None)  # type: ignore[arg-type]


def refusal(what: str, status: int | None) -> HubError:
    """The error for an answer that another try would not change; ``what`` was asked for."""
    if status in {401, 403}:
        return HubError(
            f"{what}: the hub answered {status}: set MODEL_HUB_TOKEN to a token that may read this repository"
        )
    if status == 404:
        return HubError(f"{what}: is not on the hub (404); check the repository, MODEL_HUB_ENDPOINT and the revision")
    return HubError(f"{what}: the hub answered {status}")


def partial_path(target: Path) -> Path:
    """The path of a file while it is being fetched."""
    return target.with_name(f"{target.name}.incomplete")


def open_hub(settings: Settings) -> Hub:
    """The hub of the settings (``MODEL_HUB``, ``MODEL_HUB_ENDPOINT``, ``MODEL_HUB_TOKEN``)."""
    token = settings.model_hub_token.get_secret_value() if settings.model_hub_token else None
    if settings.model_hub == "huggingface":
        from libs.model_repo.hubs.huggingface import HuggingFaceHub  # noqa: PLC0415 - the other client stays unloaded

        return HuggingFaceHub(endpoint=settings.model_hub_endpoint, token=token)
    from libs.model_repo.hubs.modelscope import ModelScopeHub  # noqa: PLC0415

    return ModelScopeHub(endpoint=settings.model_hub_endpoint, token=token)


def is_offline() -> bool:
    """True if the environment forbids the network (``HF_HUB_OFFLINE``, honoured for either hub)."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().upper() in {"1", "TRUE", "YES", "ON"}

"""Checks before a command: does the request exist, and does it have what is asked for?

See ``libs.requests.lifecycle.listing`` for how far a request is.
"""

import re

from libs.errors import ArtifactMissingError, InputError, StorageError, StorageUnavailableError
from libs.requests.documents.animation_request import REQUEST_ID_PATTERN
from libs.requests.inbox.inbox import INBOX_PREFIX, Inbox
from libs.requests.inbox.rejection import ERROR_SUFFIX
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactStore

LIST_HINT = "`one-to-all list` shows those there are"


def require_request_id(request_id: str) -> str:
    """``request_id``, where it can be one.

    Raises:
        InputError: no request can be called that.
    """
    if re.fullmatch(REQUEST_ID_PATTERN, request_id) is None:
        raise InputError(f"{request_id!r} is not a request id; {LIST_HINT}")
    return request_id


def require_result(store: ArtifactStore, request_id: str, asset: str = CLIP_ASSET) -> None:
    """Check that ``asset`` of the request is stored.

    Raises:
        InputError: it is not; the message tells an unknown request from one that waits, or was rejected.
    """
    require_request_id(request_id)
    if store.manifest(asset, request_id) is not None:
        return
    require_request(store, request_id)
    what = "clip" if asset == CLIP_ASSET else asset
    raise ArtifactMissingError(f"{request_id}: has no {what} yet; `one-to-all list` shows how far each request is")


def require_request(store: ArtifactStore, request_id: str) -> None:
    """Check that there is such a request.

    Raises:
        InputError: there is none, it waits in the inbox, or it was rejected.
    """
    try:
        known = AcceptedRequests(store.objects).find(require_request_id(request_id)) is not None
    except StorageUnavailableError:
        raise
    except StorageError:  # damaged: but there was one
        known = True
    if known or store.manifest(CLIP_ASSET, request_id) is not None:
        return
    if Inbox(store.objects).waiting_document(request_id) is not None:
        raise InputError(f"{request_id}: waits in the inbox and was not accepted yet; `one-to-all list` says why")
    for suffix in (".yaml", ".yml", ".json"):
        reason = f"{INBOX_PREFIX}/rejected/{request_id}{suffix}{ERROR_SUFFIX}"
        if store.objects.exists(reason):
            raise InputError(f"{request_id}: was rejected; the reason is in {store.objects.uri(reason)}")
    raise InputError(f"{request_id}: there is no such request; {LIST_HINT}")

"""Requests that ``one-to-all retry`` asked for: taken up by the next scan of the inbox.

See ``libs.command_line.requests.cancel_and_retry`` for who asks for one.
"""

import dagster as dg

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.cancellations import Retries
from libs.storage.backends.store import ObjectStore
from orchestration.dagster_internals import RUN_KEY_TAG

_AT_ONCE = 100


def requests_to_try_again(
    instance: dg.DagsterInstance, objects: ObjectStore, requests: AcceptedRequests
) -> dict[str, AcceptedRequest]:
    """Those whose run was not launched yet, by id.

    A note stays until Dagster knows a run of its key: if a process dies in between, the run is still launched once.
    """
    retries = Retries(objects)
    wanted = {}
    for request_id in retries.ids(_AT_ONCE):
        try:
            accepted = requests.find(request_id)
        except StorageUnavailableError:
            raise
        except StorageError:  # damaged, and said where it is submitted again
            accepted = None
        if accepted is None or not requests.is_pending(accepted) or _was_launched(instance, accepted.launch_key):
            retries.done(request_id)
        else:
            wanted[request_id] = accepted
    return wanted


def _was_launched(instance: dg.DagsterInstance, run_key: str) -> bool:
    return bool(instance.get_run_ids(dg.RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1))

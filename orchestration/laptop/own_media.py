"""``make demo`` with a video or a picture of one's own: the request for it, and networks that find real people."""

import re
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import yaml

from libs.errors import HubError, HubUnavailableError, InputError
from libs.model_repo.hubs.wheel import MEDIAPIPE, check_wheel_files, download_wheel
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import load_settings
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectStore

_DIGITS = 8
_LONGEST_NAME = 20

OWN_REFERENCE = (
    "note: the sandbox can draw its own puppets only, so the clip will hardly look like your picture. The poses are "
    "found and fitted as for a real model: see the pose preview."
)


def submit_own_media(
    objects: ObjectStore, driver: Path | None, reference: Path | None, tell: Callable[[str], None]
) -> str:
    """Put a request for these files into the inbox, unless it is known; the puppet stands in for what is left out.

    Args:
        objects: where the inbox is.
        driver: a video.
        reference: a picture.
        tell: takes sentences for a person.

    Returns:
        The request's id, which follows from the files: the same files are the same request.

    Raises:
        InputError: a file is not there.
    """
    for name, path in (("DRIVER", driver), ("REFERENCE", reference)):
        if path is not None and not path.is_file():
            raise InputError(f"{name}={path}: there is no such file")
    fetch_networks_of_people(load_settings().models_dir, tell)
    if reference is not None:
        tell(OWN_REFERENCE)
    requests, inbox = AcceptedRequests(objects), Inbox(objects)
    with TemporaryDirectory() as made:
        folder = Path(made)
        request = _write_request(folder, driver, reference)
        if requests.find(request.id) is None and inbox.waiting_document(request.id) is None:
            inbox.put_folder(folder)
    return request.id


def fetch_networks_of_people(models_dir: Path, tell: Callable[[str], None]) -> None:
    """Fetch MediaPipe's networks where they are missing; without a network say what that means, and go on."""
    if check_wheel_files(MEDIAPIPE, models_dir, read=False).complete:
        return
    tell("fetching MediaPipe's pose networks, which find real people (36 MB, once)")
    try:
        download_wheel(MEDIAPIPE, models_dir)
    except (HubUnavailableError, HubError) as error:
        tell(f"note: only the sandbox's own networks look for people, and they know its puppets alone: {error}")


def _write_request(folder: Path, driver: Path | None, reference: Path | None) -> AnimationRequest:
    from libs.sandbox.request import sample_request, write_sample_request  # noqa: PLC0415 - draws with OpenCV

    sample = sample_request()
    if driver is None or reference is None:
        write_sample_request(folder).unlink()
    names = {"driver": sample.driver, "reference": sample.reference}
    for field, path in (("driver", driver), ("reference", reference)):
        if path is not None:
            (folder / names[field]).unlink(missing_ok=True)
            names[field] = f"{_plain(path.stem)}-{sha256_of_file(path)[:_DIGITS]}{path.suffix.lower()}"
            copyfile(path, folder / names[field])
    own = [names[field] for field, path in (("reference", reference), ("driver", driver)) if path is not None]
    request_id = "-".join(["demo", *(Path(name).stem for name in own)])
    request = sample.model_copy(update={**names, "id": request_id, "pose_networks": "auto"})
    fields = request.model_dump(exclude_none=True)
    (folder / f"{request.id}.yaml").write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
    return request


def _plain(name: str) -> str:
    """``name`` as part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME].strip("-") or "own"

"""What made a clip, and what of it is still there and still the same.

Digests recorded in the clip are compared with the store, the inbox and the model repository of this machine; nothing is
made or changed. See ``libs.command_line.requests.trace`` for how a trace is shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from libs.errors import ModelFilesError
from libs.model_repo.layout import layout_of
from libs.model_repo.verification.lock import read_lock
from libs.provenance.clip_tag import read_origin
from libs.provenance.environment import code_state, library_versions
from libs.provenance.origin import lock_digests
from libs.provenance.record import ClipOrigin, InputFile, RunRecord, parse_provenance
from libs.provenance.run_record import PROVENANCE_FILE
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import Settings
from libs.stages.animation_files import CLIP_FILE
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.manifest import Manifest

_CLIPS = "animation"
_CONDITIONING = "pose_conditioning"
_MEDIA = "request_media"


class LinkState(StrEnum):
    """What became of something a clip was made from."""

    CURRENT = "current"
    CHANGED = "changed"
    MISSING = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Link:
    """One thing a clip was made from.

    ``recorded`` identifies it as it was. ``decides`` is False where a difference alone does not put the clip out of
    date (another commit, another version of a library).
    """

    what: str
    recorded: str
    state: LinkState
    detail: str = ""
    decides: bool = True


@dataclass(frozen=True)
class Trace:
    """The chain behind a clip. ``run`` is None where only the mp4 is left."""

    origin: ClipOrigin
    run: RunRecord | None
    links: tuple[Link, ...]

    @property
    def out_of_date(self) -> tuple[Link, ...]:
        """The links for which the clip is not what would be made today."""
        return tuple(link for link in self.links if link.decides and link.state != LinkState.CURRENT)

    def describe(self) -> dict[str, Any]:
        """The trace as values that JSON can hold."""
        return {
            "current": not self.out_of_date,
            "links": [{**vars(link), "state": str(link.state)} for link in self.links],
            "clip": self.origin.model_dump(mode="json"),
            "run": self.run.model_dump(mode="json") if self.run else None,
        }


def trace_request(request_id: str, store: ArtifactStore, settings: Settings) -> Trace:
    """Trace the newest stored clip of a request.

    Raises:
        ArtifactMissingError: there is none.
        ArtifactCorruptError: the stored clip is damaged.
        InputError: it carries no origin.
    """
    return trace_file(store.fetch(_CLIPS, request_id).path(CLIP_FILE), store, settings)


def trace_file(clip: Path, store: ArtifactStore, settings: Settings) -> Trace:
    """Trace an mp4, wherever it lies and whatever its name.

    Raises:
        MediaError: it cannot be read.
        InputError: it carries no origin.
        StorageError: the store cannot be asked.
    """
    origin = read_origin(clip)
    request_id = origin.resolved_request().id
    sha256 = sha256_of_file(clip)
    stored = _stored_clip(request_id, sha256, store)
    run = _run_record(stored, store) if stored else None
    links = (
        _clip_link(request_id, sha256, stored, store),
        _request_link(origin, store),
        _input_link("reference", origin.reference, request_id, store),
        _input_link("driver", origin.driver, request_id, store),
        _conditioning_link(origin, request_id, store),
        *_model_links(origin, settings),
        *_lora_links(origin, settings),
        _code_link(run),
        _library_link(origin),
    )
    return Trace(origin, run, links)


def _stored_clip(request_id: str, sha256: str, store: ArtifactStore) -> Manifest | None:
    """The stored artifact whose clip has these bytes, the newest one first."""
    newest = store.manifest(_CLIPS, request_id)
    candidates = ([newest] if newest else []) + store.history(_CLIPS, request_id)
    return next((found for found in candidates if found.file(CLIP_FILE).sha256 == sha256), None)


def _run_record(stored: Manifest, store: ArtifactStore) -> RunRecord | None:
    if all(file.name != PROVENANCE_FILE for file in stored.files):
        return None
    with store.open_file(_CLIPS, stored.partition, PROVENANCE_FILE, stored.digest) as file:
        return parse_provenance(file.read(), f"{PROVENANCE_FILE} of {stored.partition}").run


def _clip_link(request_id: str, sha256: str, stored: Manifest | None, store: ArtifactStore) -> Link:
    newest = store.manifest(_CLIPS, request_id)
    if stored is None:
        return Link("clip", sha256, LinkState.MISSING, "this file is not in the store")
    if newest is not None and newest.file(CLIP_FILE).sha256 == sha256:
        return Link("clip", sha256, LinkState.CURRENT, f"the newest clip of {request_id}")
    return Link("clip", sha256, LinkState.CHANGED, f"{request_id} has a newer clip; this one is stored as well")


def _request_link(origin: ClipOrigin, store: ArtifactStore) -> Link:
    request = origin.resolved_request()
    accepted = AcceptedRequests(store.objects).find(request.id)
    if accepted is None:
        return Link("request", request.id, LinkState.MISSING, "no request of this id is accepted")
    then, now = request.clip_fields(), accepted.request.clip_fields()
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if changed:
        return Link("request", request.id, LinkState.CHANGED, f"asks for another {', '.join(changed)} now")
    return Link("request", request.id, LinkState.CURRENT)


def _input_link(field: str, recorded: InputFile, request_id: str, store: ArtifactStore) -> Link:
    what = f"{field} {recorded.path}"
    now = Inbox(store.objects).media_digest(recorded.path)
    if now == recorded.sha256:
        return Link(what, recorded.sha256, LinkState.CURRENT)
    media = store.manifest(_MEDIA, request_id)
    kept = media is not None and any(file.sha256 == recorded.sha256 for file in media.files)
    copy = "the copy taken for the clip is stored" if kept else "no copy is stored"
    if now is None:
        return Link(what, recorded.sha256, LinkState.MISSING, f"the inbox has no such file; {copy}")
    return Link(what, recorded.sha256, LinkState.CHANGED, f"the inbox has another file of that name; {copy}")


def _conditioning_link(origin: ClipOrigin, request_id: str, store: ArtifactStore) -> Link:
    recorded = origin.pose_conditioning
    newest = store.manifest(_CONDITIONING, request_id)
    if newest is not None and newest.digest == recorded:
        return Link("poses", recorded, LinkState.CURRENT)
    if store.manifest(_CONDITIONING, request_id, recorded) is not None:
        return Link("poses", recorded, LinkState.CHANGED, "newer ones are stored; these are kept as well")
    state = LinkState.MISSING if newest is None else LinkState.CHANGED
    return Link("poses", recorded, state, "these are no longer stored")


def _model_links(origin: ClipOrigin, settings: Settings) -> Iterator[Link]:
    variant = origin.model.variant
    try:
        now = lock_digests(read_lock(layout_of(variant, settings)))
    except ModelFilesError as error:
        yield Link(f"model {variant}", "", LinkState.UNKNOWN, str(error))
        return
    if not origin.model.locks:
        yield Link(f"model {variant}", "", LinkState.UNKNOWN, "its files had no lock when the clip was made")
    for part, recorded in origin.model.locks.items():
        what = f"model {variant}, {part.replace('_', ' ')}"
        if part not in now:
            yield Link(what, recorded, LinkState.MISSING, "this machine has no lock of these files")
        elif now[part] == recorded:
            yield Link(what, recorded, LinkState.CURRENT)
        else:
            yield Link(what, recorded, LinkState.CHANGED, "this machine has other files")


def _lora_links(origin: ClipOrigin, settings: Settings) -> Iterator[Link]:
    for choice, recorded in zip(origin.resolved_request().chosen_loras, origin.model.lora_digests, strict=False):
        path = layout_of(origin.model.variant, settings).lora(choice.name)
        if not path.is_file():
            yield Link(f"LoRA {choice.name}", recorded, LinkState.MISSING, f"{path} is not there")
        elif sha256_of_file(path) == recorded:
            yield Link(f"LoRA {choice.name}", recorded, LinkState.CURRENT)
        else:
            yield Link(f"LoRA {choice.name}", recorded, LinkState.CHANGED, f"{path} is another file")


def _code_link(run: RunRecord | None) -> Link:
    if run is None or run.code is None:
        reason = "only the mp4 is left" if run is None else "the clip was not made from a checkout"
        return Link("code", "", LinkState.UNKNOWN, reason, decides=False)
    recorded = f"{run.code.commit}{' with changes' if run.code.dirty else ''}"
    now = code_state()
    if now == run.code and not run.code.dirty:
        return Link("code", recorded, LinkState.CURRENT, decides=False)
    here = f"{now.commit[:12]}{' with changes' if now.dirty else ''} here" if now else "no checkout here"
    return Link("code", recorded, LinkState.CHANGED if now else LinkState.UNKNOWN, here, decides=False)


def _library_link(origin: ClipOrigin) -> Link:
    now = library_versions()
    recorded = ", ".join(f"{name} {version}" for name, version in sorted(origin.libraries.items()))
    names = sorted(origin.libraries.keys() | now.keys())
    changed = [f"{name} {now.get(name, 'missing')}" for name in names if origin.libraries.get(name) != now.get(name)]
    if changed:
        return Link("libraries", recorded, LinkState.CHANGED, f"{', '.join(changed)} here", decides=False)
    return Link("libraries", recorded, LinkState.CURRENT, decides=False)

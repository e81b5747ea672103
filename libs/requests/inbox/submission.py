"""Handing requests in from files of this machine: what is uploaded, and in which order.

Nobody's file takes the place of another that a request still needs: it is stored beside that one, under a name that
ends with the first digits of its digest, and the document that is uploaded names it so. The same holds for what others
hand in at the same moment: each name is written by one process at a time, and only while it is as the plan found it.
See ``libs.requests.inbox.intake`` for what happens to a document in the inbox and
``libs.command_line.requests.commands``
for printing.
"""

import filecmp
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from libs.errors import ArtifactCorruptError, ArtifactMissingError, InputError
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.documents.batch import Submission, parse_submission
from libs.requests.documents.document import MAX_DOCUMENT_BYTES
from libs.requests.inbox.inbox import DOCUMENT_SUFFIXES, INBOX_PREFIX, Inbox, WaitingDocument, spellings
from libs.requests.lifecycle.accepted import ASKED_AT_ONCE, AcceptedRequests
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectInfo

_DIGITS_OF_NAME = 8
_DOCUMENT_FOLLOWS_SECONDS = 600
"""So long after a media file the document that names it may still come."""

_AT_THE_SAME_TIME = "what somebody else is submitting"


@dataclass(frozen=True)
class FilesToSubmit:
    """Documents and the media they name, checked, ready to be uploaded.

    ``media``: path below ``inbox/`` -> local file. ``documents``: name below ``inbox/`` -> local file.
    ``submissions``: the same names -> what the document asks for. ``renamed``: path below ``inbox/`` -> the name that
    the file gets instead, as a request of somebody else, named in ``reasons``, needs the one that has it, or as it has
    that name already, from the time when one did (no reason then);
    ``rewritten``: the documents as they are uploaded for that reason.
    """

    media: dict[str, Path] = field(default_factory=dict)
    documents: dict[str, Path] = field(default_factory=dict)
    submissions: dict[str, Submission] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    rewritten: dict[str, bytes] = field(default_factory=dict)
    found: dict[str, str | None] = field(default_factory=dict)
    """Name below ``inbox/`` -> the version of what lay there when this was planned; None where nothing did."""


def plan_submission(files: Iterable[Path], inbox: Inbox) -> FilesToSubmit:
    """What must be uploaded for ``files``: documents, and media files that lie elsewhere than beside their documents.

    The media that a document names are looked for among ``files``, by name, then beside the document, by path; those
    found nowhere must be in the inbox already. A document is uploaded under the name of its request or batch.

    Raises:
        InputError: a file is not there, a document is wrong, or media are nowhere to be found; nothing was uploaded.
    """
    plan = FilesToSubmit()
    given = list(files)
    for path in given:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        if path.suffix.lower() not in DOCUMENT_SUFFIXES:
            _take(plan.media, path.name, path)
    elsewhere: dict[str, str] = {}
    by_name = {_composed(name): name for name in plan.media}
    for path in given:
        if path.suffix.lower() in DOCUMENT_SUFFIXES:
            elsewhere |= _plan_document(path, plan, by_name)
    there = inbox.media(elsewhere)
    for name, document in elsewhere.items():
        if name not in there:
            raise InputError(
                f"{document}: there is no file {name!r} beside it, among the files given, or in {INBOX_PREFIX}/"
            )
    plan.found.update({name: inbox.version_of(name) for name in (*plan.media, *plan.documents)})
    _keep_files_of_others(plan, inbox)
    return plan


def upload(plan: FilesToSubmit, inbox: Inbox) -> list[str]:
    """Put everything into the inbox, media before documents; returns the media that were not there already.

    A media file whose name somebody else's file has taken since the plan was made gets another name; ``plan`` says so.

    Raises:
        InputError: somebody else handed in another document of that name meanwhile; the message says what was sent.
    """
    sent = []
    for name, path in list(plan.media.items()):
        put = inbox.put_if_unchanged(name, path, plan.found.get(name))
        if put is None:  # taken meanwhile
            _give_another_name(plan, name, _AT_THE_SAME_TIME)
            _rewrite_documents(plan)
            put = inbox.put(plan.renamed[name], path)
        if put:
            sent.append(plan.renamed.get(name, name))
    submitted: list[str] = []
    with TemporaryDirectory() as folder:
        for name, path in plan.documents.items():
            file = path
            if name in plan.rewritten:
                file = Path(folder) / "document"
                file.write_bytes(plan.rewritten[name])
            if inbox.put_if_unchanged(name, file, plan.found.get(name)) is None:
                others = f"; submitted before it: {', '.join(submitted)}" if submitted else ""
                raise InputError(
                    f"{name}: was not submitted: another document of that name was put into the inbox at the same "
                    f"moment. Give this request another id, or submit it again if it is to replace that one{others}"
                )
            submitted.append(name)
    return sent


def _plan_document(path: Path, plan: FilesToSubmit, by_name: Mapping[str, str]) -> dict[str, str]:
    """Add a document and its media to the plan; returns the media that are not on this machine -> the document.

    Media ``by_name`` are among the files given: they are meant, even if another file lies beside the document.
    """
    submission = parse_submission(path.read_bytes(), source=str(path))
    name = f"{submission.name or path.stem}{path.suffix.lower()}"
    _take(plan.documents, name, path)
    plan.submissions[name] = submission
    elsewhere = {}
    for media in sorted({media for request in submission.requests for media in (request.reference, request.driver)}):
        if _composed(media) in by_name:
            continue
        if beside := _beside(path.parent, media):
            _take(plan.media, media, beside)
        elif media not in plan.media:
            elsewhere[media] = str(path)
    return elsewhere


def _keep_files_of_others(plan: FilesToSubmit, inbox: Inbox) -> None:
    """Give those files other names that would take the place of files which requests of others still need.

    A file that was given such a name for the same requests before keeps it: they ask for the same clips again.

    Raises:
        InputError: no document of the plan names the file, or its document gets too large.
    """
    in_the_way = _replaced_files(plan, inbox)
    if not in_the_way:
        return
    needed = _needed_by_others(in_the_way, plan, inbox)
    for name, info in in_the_way.items():
        if other := needed.get(_composed(name)):
            _give_another_name(plan, name, other)
        elif _was_named_before(_name_by_content(plan, name), name, plan, inbox):
            _give_another_name(plan, name, None)
        elif other := _on_its_way(name, info, plan, inbox):
            _give_another_name(plan, name, other)
    _rewrite_documents(plan)


def _name_by_content(plan: FilesToSubmit, name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{sha256_of_file(plan.media[name])[:_DIGITS_OF_NAME]}{path.suffix}"))


def _give_another_name(plan: FilesToSubmit, name: str, reason: str | None) -> None:
    new = _name_by_content(plan, name)
    plan.renamed[name] = new
    if reason is not None:
        plan.reasons[name] = reason
    plan.media[new] = plan.media.pop(name)


def _rewrite_documents(plan: FilesToSubmit) -> None:
    """Let the documents name the files that got other names.

    Raises:
        InputError: no document of the plan names such a file, or its document gets too large.
    """
    composed = {_composed(name): new for name, new in plan.renamed.items()}
    named: set[str] = set()
    for document, submission in list(plan.submissions.items()):
        requests = [_with_media(request, composed) for request in submission.requests]
        if requests != list(submission.requests):
            plan.rewritten[document] = _written(document, submission, requests)
            plan.submissions[document] = Submission(submission.name, tuple(requests))
        named |= {path for request in requests for path in (request.reference, request.driver)}
    for name, new in plan.renamed.items():
        if new not in named:
            raise InputError(
                f"{name}: {plan.reasons[name]} needs another file of that name, which is in the inbox; submit yours "
                "together with the document that names it, or rename it"
            )


def _was_named_before(own: str, name: str, plan: FilesToSubmit, inbox: Inbox) -> bool:
    """Whether all requests of the plan that name ``name`` were accepted with ``own`` in its place."""
    accepted = AcceptedRequests(inbox.objects)
    naming = [
        request
        for submission in plan.submissions.values()
        for request in submission.requests
        if _composed(name) in {_composed(request.reference), _composed(request.driver)}
    ]
    for request in naming:
        try:
            found = accepted.find(request.id)
        except ArtifactCorruptError:
            return False
        if found is None or own not in {found.request.reference, found.request.driver}:
            return False
    return bool(naming)


def _on_its_way(name: str, info: ObjectInfo, plan: FilesToSubmit, inbox: Inbox) -> str | None:
    """Who may need the file ``info``, which no document names yet: media are sent before their documents."""
    if (datetime.now(UTC) - info.modified).total_seconds() > _DOCUMENT_FOLLOWS_SECONDS:
        return None
    accepted = AcceptedRequests(inbox.objects)
    waiting = {document.name: document for document in inbox.documents()}
    own: list[AnimationRequest] = []
    for document, submission in plan.submissions.items():
        if document in waiting:
            with suppress(InputError, ArtifactMissingError):
                own += parse_submission(inbox.read(waiting[document]), source=document).requests
        for request in submission.requests:
            with suppress(ArtifactCorruptError):
                if found := accepted.find(request.id):
                    own.append(found.request)
    is_named_here = any(_composed(name) in {_composed(one.reference), _composed(one.driver)} for one in own)
    return None if is_named_here else _AT_THE_SAME_TIME


def _replaced_files(plan: FilesToSubmit, inbox: Inbox) -> dict[str, ObjectInfo]:
    """Media of the plan whose name another file has in the inbox, and that file."""
    there = inbox.media(plan.media)
    return {
        name: info
        for name, info in there.items()
        if info.size != plan.media[name].stat().st_size or inbox.digest_of(info) != sha256_of_file(plan.media[name])
    }


def _needed_by_others(names: Iterable[str], plan: FilesToSubmit, inbox: Inbox) -> dict[str, str]:
    """Those of ``names`` -> a request that still needs the file, and is not submitted again by this plan.

    Only requests that may name one of the files are read, and no more of them than it takes.
    """
    own = {request.id for submission in plan.submissions.values() for request in submission.requests}
    missing = {_composed(name) for name in names}
    needed: dict[str, str] = {}

    def note(requests: Iterable[AnimationRequest]) -> None:
        for request in requests:
            for path in {_composed(request.reference), _composed(request.driver)} & missing:
                if request.id not in own:
                    needed[path] = request.id
                    missing.discard(path)

    accepted = AcceptedRequests(inbox.objects)
    markers = (marker for marker in accepted.pending_markers() if marker.request_id not in own)
    pending = (marker.request_id for marker in markers if any(map(marker.may_name, missing)))  # those still missing
    while missing and (some := list(islice(pending, ASKED_AT_ONCE))):
        note(found.request for found in accepted.find_many(some).values())
    waiting = [document for document in inbox.documents() if document.name not in plan.documents] if missing else []
    with ThreadPoolExecutor(ASKED_AT_ONCE) as reading:
        for requests in reading.map(partial(_requests_of, inbox), waiting):
            note(requests)
    return needed


def _requests_of(inbox: Inbox, document: WaitingDocument) -> Sequence[AnimationRequest]:
    """What a document in the inbox asks for; nothing where it cannot be read."""
    try:
        return parse_submission(inbox.read(document), source=document.name).requests
    except (InputError, ArtifactMissingError):
        return ()


def _with_media(request: AnimationRequest, renamed: Mapping[str, str]) -> AnimationRequest:
    paths = {name: renamed.get(_composed(getattr(request, name))) for name in ("reference", "driver")}
    return request.model_copy(update={name: path for name, path in paths.items() if path})


def _written(document: str, submission: Submission, requests: list[AnimationRequest]) -> bytes:
    """The document with other names of media; a grid as the list of its requests, whose ids must stay."""
    given: list[dict[str, Any]] = [request.model_dump(mode="json", exclude_unset=True) for request in requests]
    is_single = [request.id for request in submission.requests] == [submission.name]
    text = json.dumps(given[0] if is_single else given, ensure_ascii=False, indent=2).encode()  # JSON is YAML
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{document}: its files must get other names in the inbox, and it would be larger than "
            f"{MAX_DOCUMENT_BYTES} bytes with them; rename the files, or split it"
        )
    return text


def _beside(folder: Path, media: str) -> Path | None:
    """The file ``media`` in ``folder``, however the letters of its name are composed."""
    return next((folder / name for name in spellings(media) if (folder / name).is_file()), None)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _take(files: dict[str, Path], name: str, path: Path) -> None:
    """Plan to upload ``path`` as ``inbox/<name>``.

    Raises:
        InputError: a file with another content is to have that name.
    """
    other = files.setdefault(name, path)
    if not filecmp.cmp(other, path, shallow=False):
        raise InputError(f"{path} and {other} are both {name!r} in the inbox; rename one of them")

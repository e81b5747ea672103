"""Handing requests in from files of this machine: what is uploaded, and in which order.

What does not belong here: what happens to a document in the inbox (``libs.requests.intake``), printing
(``libs.command_line.requests``).
"""

import filecmp
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path

from libs.errors import InputError
from libs.requests.batch import Submission, parse_submission
from libs.requests.inbox import DOCUMENT_SUFFIXES, INBOX_PREFIX, Inbox


@dataclass(frozen=True)
class FilesToSubmit:
    """Documents and the media they name, checked, ready to be uploaded.

    ``media``: path below ``inbox/`` -> local file. ``documents``: name below ``inbox/`` -> local file.
    ``submissions``: the same names -> what the document asks for.
    """

    media: dict[str, Path] = field(default_factory=dict)
    documents: dict[str, Path] = field(default_factory=dict)
    submissions: dict[str, Submission] = field(default_factory=dict)


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
    by_name = frozenset(plan.media)
    for path in given:
        if path.suffix.lower() in DOCUMENT_SUFFIXES:
            elsewhere |= _plan_document(path, plan, by_name)
    there = inbox.media(elsewhere)
    for name, document in elsewhere.items():
        if name not in there:
            raise InputError(
                f"{document}: there is no file {name!r} beside it, among the files given, or in {INBOX_PREFIX}/"
            )
    return plan


def upload(plan: FilesToSubmit, inbox: Inbox) -> list[str]:
    """Put everything into the inbox, media before documents; returns the media that were not there already."""
    sent = [name for name, path in plan.media.items() if inbox.put(name, path)]
    for name, path in plan.documents.items():
        inbox.put(name, path)
    return sent


def _plan_document(path: Path, plan: FilesToSubmit, by_name: Set[str]) -> dict[str, str]:
    """Add a document and its media to the plan; returns the media that are not on this machine -> the document.

    Media ``by_name`` are among the files given: they are meant, whatever lies beside the document.
    """
    submission = parse_submission(path.read_bytes(), source=str(path))
    name = f"{submission.name or path.stem}{path.suffix.lower()}"
    _take(plan.documents, name, path)
    plan.submissions[name] = submission
    elsewhere = {}
    for media in sorted({media for request in submission.requests for media in (request.reference, request.driver)}):
        beside = path.parent / media
        if media in by_name:
            continue
        if beside.is_file():
            _take(plan.media, media, beside)
        elif media not in plan.media:
            elsewhere[media] = str(path)
    return elsewhere


def _take(files: dict[str, Path], name: str, path: Path) -> None:
    """Plan to upload ``path`` as ``inbox/<name>``.

    Raises:
        InputError: a file with another content is to have that name.
    """
    other = files.setdefault(name, path)
    if not filecmp.cmp(other, path, shallow=False):
        raise InputError(f"{path} and {other} are both {name!r} in the inbox; rename one of them")

"""Looks at the media of a request while they are still files of this machine, before anything is uploaded.

See ``libs.stages.request.request_media`` for the whole measurement of a driver, which decodes each frame.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from libs.errors import InputError, MediaError
from libs.requests.documents.batch import Submission
from libs.requests.documents.driver_part import frames_of_part


def check_local_media(submissions: Mapping[str, Submission], media: Mapping[str, Path]) -> list[str]:
    """Refuse pictures and videos that no clip can be made of, by document, field and file.

    ``media``: name in the document -> file of this machine; names that are not among them lie in the inbox, and are
    looked at when the request runs. Each file is looked at once for each use. A text file with the name of a video, a
    video cut off, exchanged files, and sound that no clip can have are found; damage in the middle of a video is not.

    Returns:
        What a person may want to know of how the files are read, each once, with document, field and name.

    Raises:
        MediaError: names document, field and file, and says what to do.
        InputError: a driver has no such part.
    """
    from libs.media.usable import check_driver, check_reference  # noqa: PLC0415 - loads the media libraries

    composed = {unicodedata.normalize("NFC", name): path for name, path in media.items()}
    seen: set[_Use] = set()
    notes: list[str] = []
    for document, use in _uses(submissions):
        path = composed.get(unicodedata.normalize("NFC", use.name))
        if path is None or use in seen:
            continue
        seen.add(use)
        try:
            if use.field == "reference":
                found = check_reference(path).notes()
            else:
                part_of = partial(frames_of_part, use.start, use.duration)
                conversion = check_driver(path, keep_audio=use.keep_audio, part_of=part_of)
                found = (f"{conversion}; converted to AAC",) if conversion else ()
        except MediaError as error:
            raise MediaError(f"{document}: {use.field}: {str(error).removeprefix(f'{path}: ')} ({path})") from error
        except InputError as error:
            raise InputError(f"{document}: {error} ({path})") from error
        notes += [f"{document}: {use.field}: {use.name}: {note}" for note in found]
    return list(dict.fromkeys(notes))


@dataclass(frozen=True)
class _Use:
    """A file in one role; of a driver, also the part that is used and whether its sound is."""

    field: str
    name: str
    keep_audio: bool = False
    start: float | str | None = None
    duration: float | str | None = None


def _uses(submissions: Mapping[str, Submission]) -> Iterable[tuple[str, _Use]]:
    for document, submission in submissions.items():
        for request in submission.requests:
            yield document, _Use("reference", request.reference)
            yield document, _Use("driver", request.driver, request.keep_audio, request.start, request.duration)

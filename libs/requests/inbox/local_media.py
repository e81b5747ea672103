"""Looks at the media of a request while they are still files of this machine, before anything is uploaded.

See ``libs.stages.request.request_media`` for the whole measurement of a driver, which decodes each frame.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from libs.errors import MediaError
from libs.requests.documents.batch import Submission


def check_local_media(submissions: Mapping[str, Submission], media: Mapping[str, Path]) -> list[str]:
    """Refuse pictures and videos that no clip can be made of, by document, field and file.

    ``media``: name in the document -> file of this machine; names that are not among them lie in the inbox, and are
    looked at when the request runs. Each file is looked at once for each use. A text file with the name of a video, a
    video cut off, exchanged files, and sound that no clip can have are found; damage in the middle of a video is not.

    Returns:
        What a person may want to know of how the files are read, each once, with document, field and name.

    Raises:
        MediaError: names document, field and file, and says what to do.
    """
    from libs.media.usable import check_driver, check_reference  # noqa: PLC0415 - loads the media libraries

    composed = {unicodedata.normalize("NFC", name): path for name, path in media.items()}
    seen: set[tuple[str, str, bool]] = set()
    notes: list[str] = []
    for document, field, name, keep_audio in _uses(submissions):
        path = composed.get(unicodedata.normalize("NFC", name))
        if path is None or (field, name, keep_audio) in seen:
            continue
        seen.add((field, name, keep_audio))
        try:
            if field == "reference":
                found = check_reference(path).notes()
            else:
                conversion = check_driver(path, keep_audio=keep_audio)
                found = (f"{conversion}; converted to AAC",) if conversion else ()
        except MediaError as error:
            raise MediaError(f"{document}: {field}: {str(error).removeprefix(f'{path}: ')} ({path})") from error
        notes += [f"{document}: {field}: {name}: {note}" for note in found]
    return list(dict.fromkeys(notes))


def _uses(submissions: Mapping[str, Submission]) -> Iterable[tuple[str, str, str, bool]]:
    for document, submission in submissions.items():
        for request in submission.requests:
            yield document, "reference", request.reference, False
            yield document, "driver", request.driver, request.keep_audio

"""Key-points in a file: found on one machine, handed in with the request on another, so that they are not found again.

The file holds the two tracks and everything that determines them (``shared_pose_tracks.TrackSource``). Handing it in
puts the tracks among those that all requests share; a run takes them over where its own media, networks and software
are those of the file, and looks for itself where they are not. So nothing made of them can be out of date unnoticed.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from libs.errors import InputError, PoseError
from libs.files.atomic_write import atomic_write
from libs.pose.track import PoseTrack
from libs.stages.animation_files import DRIVER_TRACK, REFERENCE_TRACK
from libs.stages.poses.shared_pose_tracks import SharedPoseTracks, TrackSource

_FORMAT = "poses-1"
_SOURCES = "sources.json"
_TRACKS = (REFERENCE_TRACK, DRIVER_TRACK)
_LARGEST_TRACK = 2**30
_LARGEST_SOURCES = 2**16
_TIME = (1980, 1, 1, 0, 0, 0)


def write_poses(path: Path, tracks: Mapping[str, tuple[TrackSource, PoseTrack]]) -> None:
    """Write ``path``; the same tracks of the same sources always give the same bytes.

    Args:
        path: of the file, ``.poses``.
        tracks: ``REFERENCE_TRACK`` and ``DRIVER_TRACK``, each with what determines it.
    """
    described = {"format": _FORMAT, "tracks": {name: asdict(tracks[name][0]) for name in _TRACKS}}
    with (
        TemporaryDirectory(prefix="poses-") as folder,
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        archive.writestr(zipfile.ZipInfo(_SOURCES, _TIME), json.dumps(described, indent=2))
        for name in _TRACKS:
            file = Path(folder) / name
            tracks[name][1].save(file)
            archive.writestr(zipfile.ZipInfo(name, _TIME), file.read_bytes())


def take_in_poses(path: Path, shared: SharedPoseTracks, media: Mapping[str, str]) -> list[str]:
    """Put the tracks of ``path`` among the shared ones, unless they are there.

    Args:
        path: what :func:`write_poses` wrote.
        shared: where tracks are shared.
        media: name of a picture or video that is handed in -> its SHA-256.

    Returns:
        The names of those media whose tracks the file holds.

    Raises:
        InputError: it is no such file, is damaged, or belongs to other media.
        StorageError: the tracks cannot be stored.
    """
    tracks = _read(path)
    names = {digest: name for name, digest in media.items()}
    if strangers := [name for name, (source, _) in tracks.items() if source.content not in names]:
        raise InputError(
            f"{path}: its {Path(strangers[0]).stem} is none of the media handed in with it: picture or video were "
            "changed since, or are not on this machine; make the file again with `one-to-all poses`"
        )
    for source, track in tracks.values():
        if shared.find(source) is None:
            shared.keep(source, track)
    return [names[source.content] for source, _ in tracks.values()]


def _read(path: Path) -> dict[str, tuple[TrackSource, PoseTrack]]:
    wrong = f"{path}: is no file of poses that can be read"
    try:
        with zipfile.ZipFile(path) as archive, TemporaryDirectory(prefix="poses-") as folder:
            described = json.loads(_member(archive, _SOURCES, _LARGEST_SOURCES))
            if described["format"] != _FORMAT:
                raise InputError(f"{path}: has the format {described['format']!r}, expected {_FORMAT!r}")
            tracks = {}
            for name in _TRACKS:
                file = Path(folder) / name
                file.write_bytes(_member(archive, name, _LARGEST_TRACK))
                source, track = TrackSource(**described["tracks"][name]), PoseTrack.load(file)
                if (track.width, track.height) != (source.width, source.height):
                    raise InputError(f"{wrong}: {name} has another size than its source")
                tracks[name] = source, track
            return tracks
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, PoseError) as error:
        raise InputError(f"{wrong} ({error}); make it again with `one-to-all poses`") from None


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of one file of the archive, bounded whatever the archive says of its size."""
    with archive.open(name) as source:
        data = source.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} is larger than {most} bytes")
    return data

"""Pose tracks that all requests share: what one found, another with the same media and networks does not look for.

A track is an artifact of its own, named by the digest of everything that determines it; so it is stored like any other,
verified when it is read, and made again when it is damaged.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from libs.errors import ArtifactCorruptError, ArtifactMissingError, PoseError
from libs.pose.track import PoseTrack
from libs.storage.artifacts import ArtifactFiles, ArtifactStore

SHARED_TRACKS = "shared_pose_tracks"
"""Their name in the store, where assets have theirs; the partition is the key of the track's source."""

_TRACK_FILE = "track.npz"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackSource:
    """Everything that determines a track.

    Args:
        content: SHA-256 of the picture's or video's file.
        width, height: size in pixels of the frames as the networks saw them: a driver is cropped to the reference's.
        frame_interval: every n-th frame of the video was looked at; 1 for a picture.
        networks: version of the pose networks, over all their bytes.
        code: version of the code that finds key-points.
        first_frame: of the video that was looked at; less than ``frame_interval``, since tracks are of whole videos.
    """

    content: str
    width: int
    height: int
    frame_interval: int
    networks: str
    code: str
    first_frame: int = 0

    @property
    def key(self) -> str:
        """One SHA-256 over all of it; the first frame only where it is not 0, as in keys from before there was one."""
        fields = {name: value for name, value in asdict(self).items() if name != "first_frame" or value}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class SharedPoseTracks:
    """The tracks in ``store``; any number of processes may look and keep at once."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def find(self, source: TrackSource) -> PoseTrack | None:
        """The track of ``source``; None if it is not stored yet, or damaged.

        Raises:
            StorageUnavailableError: the store did not answer.
        """
        try:
            return PoseTrack.load(self._store.fetch(SHARED_TRACKS, source.key).path(_TRACK_FILE))
        except ArtifactMissingError:
            return None
        except (ArtifactCorruptError, PoseError) as error:
            _log.warning("a shared pose track is damaged and will be made again: %s", error)
            return None

    def keep(self, source: TrackSource, track: PoseTrack) -> None:
        """Share ``track``, which was found in ``source``.

        Raises:
            StorageError: it cannot be stored.
        """
        with TemporaryDirectory(prefix="pose-track-") as folder:
            track.save(Path(folder) / _TRACK_FILE)
            self._store.publish(SHARED_TRACKS, source.key, ArtifactFiles(Path(folder)), asdict(source))

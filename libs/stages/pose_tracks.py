"""Stage: key-points of the reference picture and of every driver frame that is used, as two files.

Frames are cropped and scaled to the reference's size before the networks see them, as the reference implementation does
(golden pose specification, section 1), streamed, never all held at once. What does not belong here: how key-points are
found (``libs.pose.estimator``) and what is made of them (``libs.stages.pose_conditioning``).
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from libs.errors import ModelFilesError
from libs.media.image import read_image
from libs.media.reader import read_frames
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.device import resolve_device
from libs.pose.estimator import PoseEstimator
from libs.pose.framing import resize_crop_frames
from libs.pose.person_check import require_person
from libs.pose.track import PoseTrack
from libs.stages.request_media import RequestMedia

REFERENCE_TRACK = "reference.npz"
DRIVER_TRACK = "driver.npz"

FrameCallback = Callable[[int, int], None]


def track_poses(
    media: RequestMedia, estimator: PoseEstimator, folder: Path, on_frame: FrameCallback
) -> tuple[PoseTrack, PoseTrack]:
    """Find the key-points of both and write ``reference.npz`` and ``driver.npz`` into ``folder``.

    Args:
        media: the picture and the video.
        estimator: the networks.
        folder: an existing folder.
        on_frame: called with (frames done, frames in all).

    Returns:
        The tracks of the reference (one frame) and of the driver (``media.used_frame_count`` frames).

    Raises:
        PoseError: no person in the reference or in the driver.
    """
    picture = read_image(media.reference)
    reference = estimator.estimate([picture], "the reference picture")
    require_person(reference, "the reference picture")
    height, width = picture.shape[:2]
    frames = resize_crop_frames(read_frames(media.driver, media.frame_interval), height, width)
    driver = estimator.estimate(frames, "the driving video", lambda done: on_frame(done, media.used_frame_count))
    require_person(driver, "the driving video")
    reference.save(folder / REFERENCE_TRACK)
    driver.save(folder / DRIVER_TRACK)
    return reference, driver


def load_estimator(layout: RepositoryLayout, device: str) -> PoseEstimator:
    """The pose networks of a repository on ``device`` (a value of ONE_TO_ALL_DEVICE), loaded once per process and file.

    Raises:
        ModelFilesError: a network is missing or is not what it should be.
        DeviceError: the device is not there.
    """
    detector, pose_network = layout.detector, layout.pose_estimator
    for path in (detector, pose_network):
        if not path.is_file():
            raise ModelFilesError(f"{path}: the pose network is missing; verify the model files")
    identity = tuple((path, path.stat().st_mtime_ns) for path in (detector, pose_network))
    return _loaded_estimator(identity, str(resolve_device(device)))


@lru_cache(maxsize=1)
def _loaded_estimator(networks: tuple[tuple[Path, int], tuple[Path, int]], device: str) -> PoseEstimator:
    (detector, _), (pose_network, _) = networks
    return PoseEstimator(detector, pose_network, device)

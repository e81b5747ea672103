"""The small pictures that show poses and clip beside the driver as the networks saw it.

What does not belong here: pictures of the media alone (``pictures``), and the videos of the same
(``pose_conditioning``, ``review``).
"""

from pathlib import Path

from libs.media.video.reader import read_frames
from libs.pose.conditioning import PoseConditioning
from libs.stages.animation_files import CLIP_FILE, CLIP_PICTURE_FILE, POSE_PICTURE_FILE
from libs.stages.pictures import draw_columns
from libs.stages.pose_conditioning import drawn_poses, framed_driver, reference_caption
from libs.stages.request_media import RequestMedia


def draw_pose_preview(media: RequestMedia, conditioning: PoseConditioning, folder: Path) -> None:
    """The picture the clip starts from, the poses asked for, and the driver, into ``folder``."""
    columns = {
        reference_caption(media): conditioning.image,
        "pose": drawn_poses(conditioning),
        "driver": framed_driver(media, conditioning),
    }
    draw_columns(columns, media.output_frame_rate, folder / POSE_PICTURE_FILE)


def draw_clip_beside_driver(media: RequestMedia, conditioning: PoseConditioning, folder: Path) -> None:
    """The driver and the clip in ``folder``, beside each other."""
    columns = {"driver": framed_driver(media, conditioning), "clip": read_frames(folder / CLIP_FILE)}
    draw_columns(columns, media.output_frame_rate, folder / CLIP_PICTURE_FILE)

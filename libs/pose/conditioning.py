"""``PoseConditioning``: the pictures the network is conditioned on; the driver's poses as data, drawn on demand.

See ``libs.pose.networks.estimator`` for how tracks are made, ``libs.pose.fitting`` for how poses are moved, ``draw``
for how they are drawn. Source: docs/specification.md#pose-flow.
"""

import math
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from libs.errors import InputError, PoseError
from libs.files.atomic_write import atomic_write
from libs.pose.array_files import read_arrays, write_arrays
from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.align_pose import align_to_pose
from libs.pose.fitting.align_reference import align_to_reference
from libs.pose.fitting.anchor import resolve_anchor
from libs.pose.fitting.framing import resize_crop, resize_crop_drawing
from libs.pose.fitting.warp import warp_reference
from libs.pose.keypoints import DRAWN_BODY_COUNT
from libs.pose.networks.prefetch import ordered_map, worker_count
from libs.pose.options import PoseOptions, checked_style
from libs.pose.person_check import require_person
from libs.pose.record import PoseRecord, record_of
from libs.pose.track import PoseTrack

_FORMAT = "pose-conditioning-1"
_RECORD_FILE = "driver_poses.npz"
_PICTURES = ("image", "reference_pose", "mask")


@dataclass(frozen=True, eq=False)
class PoseConditioning:
    """What the network sees of reference and driver, at the clip's size h x w.

    Attributes:
        image: [h, w, 3] uint8 RGB; the reference, moved in mode ``pose``.
        reference_pose: [h, w, 3] uint8 RGB; the drawing of the reference's pose, without face.
        mask: [h, w] uint8; 255 where ``image`` shows nothing of the reference (soft at the edge), 0 elsewhere.
        driver: the driver's poses, fitted to the reference; T frames.
        drawing_size: height, width in pixels the poses are drawn at before they are brought to h x w: the reference
            picture's.
        style: how face and head are drawn.
    """

    image: np.ndarray
    reference_pose: np.ndarray
    mask: np.ndarray
    driver: PoseRecord
    drawing_size: tuple[int, int]
    style: DrawingStyle

    def __len__(self) -> int:
        return len(self.driver)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the clip in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def draw(self, start: int, stop: int) -> np.ndarray:
        """The drawings of frames start..stop-1: [stop - start, h, w, 3] uint8 RGB, drawn now, by several threads.

        Raises:
            IndexError: the clip has no such frames.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"frames {start} to {stop} are not all within the {len(self)} frames of this clip")
        drawings = np.empty((stop - start, *self.size, 3), dtype=np.uint8)
        workers = worker_count(3 * math.prod(self.drawing_size))
        for index, drawing in enumerate(ordered_map(self._draw_frame, range(start, stop), workers)):
            drawings[index] = drawing
        return drawings

    def _draw_frame(self, frame: int) -> np.ndarray:
        return resize_crop_drawing(draw_pose(self.driver, frame, *self.drawing_size, self.style), *self.size)

    def save(self, folder: Path) -> None:
        """Write the pictures (PNG) and the poses (``.npz``) into ``folder``; equal content gives equal bytes."""
        for name in _PICTURES:
            with atomic_write(folder / f"{name}.png") as temporary:
                Image.fromarray(getattr(self, name)).save(temporary, format="PNG")
        poses = {field.name: getattr(self.driver, field.name) for field in fields(PoseRecord)}
        drawing = {
            "drawing_size": np.array(self.drawing_size),
            "face_style": np.array(self.style.face),
            "head_style": np.array(self.style.head),
        }
        write_arrays(folder / _RECORD_FILE, _FORMAT, {**poses, **drawing})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            PoseError: a file is missing or damaged.
        """
        arrays = read_arrays(folder / _RECORD_FILE, _FORMAT)
        try:
            driver = PoseRecord(**{field.name: arrays[field.name] for field in fields(PoseRecord)})
            height, width = (int(side) for side in arrays["drawing_size"])
            face, head = (checked_style(part, str(arrays[f"{part}_style"])) for part in ("face", "head"))
            style = DrawingStyle(face, head)
        except (KeyError, ValueError, InputError) as error:
            raise PoseError(f"{folder / _RECORD_FILE}: is incomplete ({error}); make the conditioning again") from None
        image, reference_pose, mask = (_read_picture(folder / f"{name}.png") for name in _PICTURES)
        return cls(image, reference_pose, mask, driver, (height, width), style)


def prepare_conditioning(
    reference_image: np.ndarray, reference: PoseTrack, driver: PoseTrack, options: PoseOptions, size: tuple[int, int]
) -> PoseConditioning:
    """Fit the driver's poses and the reference to each other.

    Args:
        reference_image: [H, W, 3] uint8 RGB.
        reference: its track, one frame.
        driver: the motion, estimated on frames brought to H x W first (``framing.resize_crop_frames``).
        options: mode, alignment and style.
        size: height and width of the clip (``framing.target_size``).

    Raises:
        PoseError: no person in the reference or the driver, tracks that do not belong to these pictures, no such anchor
            frame, or a fit that puts the figure outside the picture in all frames.
        MediaError: a size that cannot be reached.
    """
    height, width = reference_image.shape[:2]
    _require_size(reference, "reference", width, height)
    _require_size(driver, "driver", width, height)
    require_person(reference, "reference")
    require_person(driver, "driver")

    reference_record, driver_record = record_of(reference[0]), record_of(driver)
    if options.mode == "pose":
        anchor = resolve_anchor(options.anchor, reference_record.body[0], driver_record.body)
        warped = warp_reference(reference_image, reference_record, driver_record[anchor : anchor + 1])
        image, pose, mask = warped.image, warped.pose, warped.mask
        fitted = align_to_pose(reference_record, driver_record, anchor) if options.align else driver_record
    else:
        image = reference_image
        pose = draw_pose(reference_record, 0, height, width, DrawingStyle(face="none"))
        mask = np.zeros((height, width), dtype=np.uint8)
        fitted = driver_record
        if options.align:
            fitted = align_to_reference(reference, driver, options.anchor, first_frame_apart=False)
    _require_inside(fitted, options)

    to_size = partial(resize_crop, height=size[0], width=size[1])
    return PoseConditioning(
        image=to_size(image),
        reference_pose=to_size(pose),
        mask=to_size(mask),
        driver=fitted,
        drawing_size=(height, width),
        style=DrawingStyle(face=options.face, head=options.head),
    )


def _require_size(track: PoseTrack, subject: str, width: int, height: int) -> None:
    if (track.width, track.height) != (width, height):
        raise PoseError(
            f"{subject}: its poses belong to frames of {track.width} x {track.height} pixels, but the reference "
            f"picture has {width} x {height}; resize all frames to the reference's size before poses are estimated"
        )


def _require_inside(record: PoseRecord, options: PoseOptions) -> None:
    body = record.body[:, :DRAWN_BODY_COUNT]
    inside = ((body >= 0) & (body <= 1)).all(axis=-1) & record.body_present[:, :DRAWN_BODY_COUNT]
    if not inside.any():
        raise PoseError(
            f"driver: with mode {options.mode}, align {'yes' if options.align else 'no'} and anchor frame "
            f"{options.anchor} no body joint lies inside the picture in any frame; choose another anchor frame or mode"
        )


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise PoseError(f"{path}: cannot be read ({error}); make the conditioning again") from None

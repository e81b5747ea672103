"""The media of one request as a folder: the reference picture, the driving video, and what was measured of them.

See ``libs.requests.inbox.inbox`` for where media come from.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

from libs.errors import MediaError
from libs.media.sound.audio_track import sound_lies_between, try_sound
from libs.media.usable import check_reference, try_frame_rate
from libs.media.video.probe import VideoInfo, probe_video
from libs.media.video.video_file import scan_video
from libs.requests.documents.animation_request import ResolvedRequest
from libs.requests.documents.driver_part import frames_of_part

MEDIA_FILE = "media.json"

_LEFT_OUT_IF_EMPTY = (
    *("driver_interlaced", "driver_high_dynamic_range", "reference_transparent", "pose_networks"),
    *("first_frame", "part_frame_count"),
)


@dataclass(frozen=True)
class RequestMedia:
    """Pictures and video of a request. Sizes are upright pixels; rates are exact, in frames per second.

    ``frame_count`` and ``frame_rate`` are the driver's own; ``used_frame_count`` and ``output_frame_rate`` those of the
    clip, which takes every ``frame_interval``-th of the ``part_frame_count`` frames from ``first_frame`` on (None: of
    all that follow). ``driver_interlaced`` and ``driver_high_dynamic_range`` are those of
    ``libs.media.video.probe.VideoInfo``; ``reference_transparent`` that of ``libs.media.pictures.image.Picture``.
    ``notes`` and ``reference_notes`` say what was chosen or changed in driver and reference, for people: they are no
    part of the description.
    """

    folder: Path
    reference_file: str
    reference_width: int
    reference_height: int
    driver_file: str
    driver_width: int
    driver_height: int
    frame_rate: Fraction
    frame_count: int
    frame_interval: int
    has_audio: bool
    driver_interlaced: bool = False
    driver_high_dynamic_range: str | None = None
    notes: tuple[str, ...] = ()
    reference_transparent: bool = False
    reference_notes: tuple[str, ...] = ()
    pose_networks: str | None = None
    """What looks for people in them; None for the model's own networks."""
    first_frame: int = 0
    part_frame_count: int | None = None

    @property
    def reference(self) -> Path:
        """The reference picture."""
        return self.folder / self.reference_file

    @property
    def driver(self) -> Path:
        """The driving video."""
        return self.folder / self.driver_file

    @property
    def driver_conversion(self) -> str:
        """What is done to the driver's pixels beyond decoding, e.g. ``deinterlaced, HLG to BT.709``; mostly empty."""
        deinterlaced = ["deinterlaced"] if self.driver_interlaced else []
        transfer = self.driver_high_dynamic_range
        return ", ".join([*deinterlaced, *([f"{transfer} to BT.709"] if transfer else [])])

    @property
    def used_frames(self) -> range:
        """Numbers of the driver's frames that the clip uses: s, s + k, s + 2k, ..."""
        end = self.frame_count if self.part_frame_count is None else self.first_frame + self.part_frame_count
        return range(self.first_frame, end, self.frame_interval)

    @property
    def used_frame_count(self) -> int:
        """Frames of the clip."""
        return len(self.used_frames)

    @property
    def start_seconds(self) -> Fraction:
        """When the used part of the driver begins, after its first frame, exact."""
        return self.first_frame / self.frame_rate

    @property
    def output_frame_rate(self) -> Fraction:
        """Source rate / frame interval, exact."""
        return self.frame_rate / self.frame_interval

    @property
    def output_duration(self) -> Fraction:
        """Seconds the clip lasts, exact."""
        return self.used_frame_count / self.output_frame_rate

    def describe(self) -> dict[str, Any]:
        """All fields but folder and notes, as JSON; what was added later only where it is not empty.

        So the description of any other video is the same, byte for byte, as before there was such a thing.
        """
        fields = {
            name: value for name, value in asdict(self).items() if name not in {"folder", "notes", "reference_notes"}
        }
        for name in _LEFT_OUT_IF_EMPTY:
            if not fields[name]:
                del fields[name]
        return {**fields, "frame_rate": str(self.frame_rate)}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :func:`fetch_request_media` wrote.

        Raises:
            MediaError: the description is missing or damaged.
        """
        path = folder / MEDIA_FILE
        try:
            fields = json.loads(path.read_text())
            return cls(**{**fields, "folder": folder, "frame_rate": Fraction(fields["frame_rate"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MediaError(f"{path}: is no description of a request's media ({error}); make it again") from None


class MediaSource(Protocol):
    """The source of a request's files: the inbox, or the copies made when it was accepted."""

    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        """Copy the file ``path`` that a request's ``field`` names to ``destination``."""


def fetch_request_media(
    source: MediaSource, request: ResolvedRequest, folder: Path, pose_networks: str | None = None
) -> RequestMedia:
    """Copy the request's picture and video into ``folder``, check that they can be used, describe them.

    Args:
        source: where they are.
        request: names them.
        folder: an existing folder.
        pose_networks: what looks for people in them where the request does not say.

    Raises:
        InputError: a file the request names is not in the inbox, or the driver has no such part.
        MediaError: a picture or video cannot be read, is cut off, empty, or of an absurd size, length or rate, or its
            sound cannot be put into a clip.
    """
    reference = source.fetch_media("reference", request.reference, folder / "reference")
    driver = source.fetch_media("driver", request.driver, folder / "driver")
    with _as_the_request_names_it("reference", request.reference, reference):
        picture = check_reference(reference)
        height, width = picture.frame.shape[:2]
    with _as_the_request_names_it("driver", request.driver, driver):
        video = probe_video(driver)
        part = frames_of_part(request.start, request.duration, video.frame_rate, video.frame_count)
        has_audio = video.has_audio and _has_sound(driver, part, video)
        begin, seconds = part.start / video.frame_rate, len(part) / video.frame_rate
        conversion = try_sound(driver, seconds, begin) if request.keep_audio and has_audio else None
        try_frame_rate(video.frame_rate / request.frame_interval)
    media = RequestMedia(
        folder=folder,
        reference_file=reference.name,
        reference_width=width,
        reference_height=height,
        driver_file=driver.name,
        driver_width=video.width,
        driver_height=video.height,
        frame_rate=video.frame_rate,
        frame_count=video.frame_count,
        frame_interval=request.frame_interval,
        has_audio=has_audio,
        driver_interlaced=video.interlaced,
        driver_high_dynamic_range=video.high_dynamic_range,
        notes=(
            *video.notes,
            *([f"{conversion}; converted to AAC"] if conversion else []),
            *(["there is no sound in the part that is used"] if video.has_audio and not has_audio else []),
        ),
        reference_transparent=picture.transparent,
        reference_notes=picture.notes(),
        pose_networks=request.pose_networks or pose_networks,
        first_frame=part.start,
        part_frame_count=len(part) if part.stop < video.frame_count else None,
    )
    (folder / MEDIA_FILE).write_text(json.dumps(media.describe(), indent=2))
    return media


def _has_sound(driver: Path, part: range, video: VideoInfo) -> bool:
    """Whether a packet of the driver's sound lies in the part that is used."""
    if len(part) == video.frame_count:
        return True
    start = scan_video(driver).start
    return sound_lies_between(driver, start + part.start / video.frame_rate, start + part.stop / video.frame_rate)


@contextmanager
def _as_the_request_names_it(field: str, name: str, copy: Path) -> Iterator[None]:
    """Errors name the request's field and file: ``copy`` is a scratch file, gone by the time anybody reads of it."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{field}: {name!r}: {str(error).removeprefix(f'{copy}: ')}") from error

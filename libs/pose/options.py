"""How poses are fitted and drawn: the values that a request may ask for, and ``PoseOptions``, which follow. Light.

See ``libs.pose.fitting.mode_choice`` for choosing in the place of a person who did not.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from libs.errors import InputError

Mode = Literal["ref", "pose"]
FaceStyle = Literal["full", "faded", "none"]
HeadStyle = Literal["full", "faded", "none"]

RequestedMode = Literal["auto", Mode]
RequestedAlign = Literal["auto", "yes", "no"]
RequestedAnchor = Literal["first", "auto"] | int
"""A frame of the driver, counted from 0; the first one that shows the figure well enough, or the best."""


@dataclass(frozen=True)
class PoseOptions:
    """The options of one clip.

    Attributes:
        mode: ``ref`` leaves the reference picture as it is and brings the motion to it; ``pose`` moves the reference
            into the driver's framing.
        align: scale the driver's limbs to the reference's proportions.
        face: ``full`` draws face points, ``faded`` darkens them, ``none`` leaves them out.
        head: ``faded`` darkens the head's limbs and blackens its joints; ``none`` leaves both out (upstream has no such
            option; its drawings leave out joints that were not found in the same way).
        anchor: the driver's frame that is compared with the reference, counted from 0 after the frame interval; None
            lets the program choose the most suitable.

    Raises:
        InputError: another value.
    """

    mode: Mode = "ref"
    align: bool = True
    face: FaceStyle = "faded"
    head: HeadStyle = "faded"
    anchor: int | None = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"mode: must be one of {', '.join(get_args(Mode))} (found {self.mode!r})")
        checked_style("face", self.face)
        checked_style("head", self.head)
        if self.anchor is not None and self.anchor < 0:
            raise InputError(f"anchor: must be a frame counted from 0, or left out (found {self.anchor})")


def checked_style(field: str, value: str) -> FaceStyle:
    """``value`` as the style that it names, for ``face`` or ``head``.

    Raises:
        InputError: it names none.
    """
    for style in get_args(FaceStyle):
        if style == value:
            return cast(FaceStyle, style)
    raise InputError(f"{field}: must be one of {', '.join(get_args(FaceStyle))} (found {value!r})")

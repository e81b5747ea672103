"""``PoseOptions``: how the driver's poses are fitted to the reference and drawn. Light: imports nothing heavy.

What does not belong here: choosing options for a person who did not (``mode_choice``).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from libs.errors import InputError

Mode = Literal["ref", "pose"]
FaceStyle = Literal["full", "faded", "none"]
HeadStyle = Literal["full", "faded", "none"]


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
        InputError: a value that is none of these.
    """

    mode: Mode = "ref"
    align: bool = True
    face: FaceStyle = "faded"
    head: HeadStyle = "faded"
    anchor: int | None = 0

    def __post_init__(self) -> None:
        for field, choices in (("mode", Mode), ("face", FaceStyle), ("head", HeadStyle)):
            value = getattr(self, field)
            if value not in get_args(choices):
                raise InputError(f"{field}: must be one of {', '.join(get_args(choices))} (found {value!r})")
        if self.anchor is not None and self.anchor < 0:
            raise InputError(f"anchor: must be a frame counted from 0, or left out (found {self.anchor})")

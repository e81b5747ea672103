"""Contact sheets: a whole clip on one picture, rows of evenly spaced frames (driver, pose, clip) one below another.

See ``preview`` for moving previews.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from libs.errors import InputError
from libs.media.previews.frame_selection import evenly_spaced_indices, take_indices
from libs.media.previews.tiles import below, beside, caption_bar, scaled_to_height

Frame = npt.NDArray[np.uint8]


def contact_sheet(
    rows: Mapping[str, Iterable[Frame]],
    frame_count: int,
    frame_rate: Fraction | None = None,
    columns: int = 6,
    cell_height: int = 192,
) -> Frame:
    """One picture, uint8 RGB, of ``columns`` evenly spaced frames per row; the same moments in every row.

    ``rows`` maps a caption to the frames of one video, ``frame_count`` of them each (streamed: only the chosen ones
    are kept). Above each row stands its caption; below the last one the frame numbers, and seconds where
    ``frame_rate`` is given.

    Raises:
        InputError: no rows, no frames, or a row ends before ``frame_count`` frames.
    """
    indices = evenly_spaced_indices(frame_count, columns)
    if not rows or not indices:
        raise InputError("a contact sheet needs at least one row and one frame")
    lines: list[Frame] = []
    widths: list[int] = []
    for caption, frames in rows.items():
        cells = [scaled_to_height(frame, cell_height) for frame in take_indices(frames, indices)]
        if len(cells) < len(indices):
            raise InputError(f"contact sheet: row {caption!r} ends before frame {indices[len(cells)]}")
        line = beside(cells)
        lines += [caption_bar(caption, line.shape[1]), line]
        widths = [cell.shape[1] for cell in cells]
    numbers = [
        f"{index}" if frame_rate is None else f"{index} · {float(index / frame_rate):.2f} s" for index in indices
    ]
    lines.append(beside([caption_bar(text, width, 11) for text, width in zip(numbers, widths, strict=True)]))
    return below(lines)

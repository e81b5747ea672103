"""Between the Y'CbCr of video files and RGB.

Which matrix a file was written with decides whether red is red: BT.601 and BT.709 differ by up to 30 levels. High
dynamic range video (PQ, HLG) is brought to BT.709 by FFmpeg's swscale: 203 cd/m2 (the white of paper, ITU-R BT.2408) is
white, brighter lights are cut off, and colours near the edge of the gamut come out a little paler. See
``colour_profile`` for colours of still pictures.
"""

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

Frame = npt.NDArray[np.uint8]

_CONVERSION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Not FULL_CHR_H_INT: with it swscale 9.5 gives wrong colours for the 16-bit RGB it goes through.
_TONE_MAPPING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
_SUBSAMPLING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP

# AVColorSpace (what a frame is tagged with, ITU-T H.273) -> the matrix in swscale's terms.
_RGB, _UNSPECIFIED, _RESERVED = 0, 2, 3
_TAGGED_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}

_HIGH_DYNAMIC_RANGE = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
_KNOWN_PRIMARIES = frozenset(ColorPrimaries) - {ColorPrimaries.UNSPECIFIED}


def high_dynamic_range(frame: av.VideoFrame) -> str | None:
    """``PQ`` or ``HLG`` (ITU-R BT.2100) for a frame tagged as one of them, else None."""
    return _HIGH_DYNAMIC_RANGE.get(frame.color_trc)


def matrix_of(frame: av.VideoFrame) -> Colorspace:
    """The Y'CbCr matrix of a frame: its tag, or a guess by size where it has none.

    Untagged video is taken for BT.709 when it is high definition (long side from 1280, or short side above 576
    pixels), for BT.601 otherwise, as players do. Untagged high dynamic range video is BT.2020.
    """
    if frame.colorspace not in (_UNSPECIFIED, _RESERVED):
        return _TAGGED_MATRIX.get(frame.colorspace, Colorspace.ITU709)
    if high_dynamic_range(frame):
        return Colorspace.BT2020
    high_definition = max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) > 576
    return Colorspace.ITU709 if high_definition else Colorspace.ITU601


class RgbConverter:
    """Decoded frames -> RGB arrays; keeps the conversion tables between frames of the same kind."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, width: int, height: int) -> Frame:
        """``frame`` scaled to ``width`` x ``height`` as uint8 RGB [H, W, 3], full range, not yet turned upright.

        The first frame of high dynamic range takes two seconds: a table of colours is computed.
        """
        matrix = matrix_of(frame)
        tone_mapped = high_dynamic_range(frame) is not None
        if tone_mapped and frame.color_primaries not in _KNOWN_PRIMARIES:  # numbers without a meaning crash swscale
            frame.color_primaries = int(ColorPrimaries.BT2020)
        source_range = frame.color_range or (ColorRange.JPEG if "yuvj" in frame.format.name else ColorRange.MPEG)
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            format="rgb24",
            # RGB codecs carry no matrix; swscale must not be told one.
            src_colorspace=None if frame.colorspace == _RGB else matrix,
            dst_colorspace=None if frame.colorspace == _RGB else matrix,
            src_color_range=ColorRange.JPEG if frame.format.is_rgb else source_range,
            dst_color_range=ColorRange.JPEG,
            # Left out, the tags of the transfer curve and the primaries count for nothing.
            dst_color_trc=ColorTrc.BT709 if tone_mapped else None,
            dst_color_primaries=ColorPrimaries.BT709 if tone_mapped else None,
            interpolation=_TONE_MAPPING if tone_mapped else _CONVERSION,
            threads=1,
        )
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)


class Bt709Converter:
    """RGB arrays -> yuv420p frames in BT.709, limited range, tagged so."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> av.VideoFrame:
        """uint8 RGB [H, W, 3] with even sides -> a frame for the encoder."""
        source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        converted = self._reformatter.reformat(
            source,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SUBSAMPLING,
            threads=1,
        )
        tag_bt709(converted)
        return converted


def tag_bt709(target: av.VideoFrame | av.VideoCodecContext) -> None:
    """Write down, on a frame or an encoder, that the colours are BT.709 in limited range."""
    target.colorspace = int(Colorspace.ITU709)
    target.color_primaries = int(ColorPrimaries.BT709)
    target.color_trc = int(ColorTrc.BT709)
    target.color_range = int(ColorRange.MPEG)

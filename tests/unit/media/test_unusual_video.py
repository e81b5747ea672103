"""Interlaced video, video of high dynamic range, and animated pictures; all made here by PyAV and Pillow."""

from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest
from PIL import Image

from libs.errors import MediaError
from libs.media.video.colour import RgbConverter
from libs.media.video.deinterlace import deinterlaced
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames

WIDTH, HEIGHT, STEP = 192, 64, 3


def bar_at(frame: np.ndarray, rows: slice) -> int:
    """The column at which the bright bar begins in some rows, all of which must agree."""
    beginnings = {int(np.argmax(row > 130)) for row in frame[rows, :, 0]}
    assert len(beginnings) == 1, beginnings
    return beginnings.pop()


def write_moving_bar(path: Path, count: int, order: str, codec: str, pts=None, rotation: int | None = None) -> Path:
    """A bar that moves by ``STEP`` pixels from field to field; ``order`` names the earlier one: tff, bff or prog."""
    graph = av.filter.Graph()
    time_base = Fraction(1, 25)
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format=av.VideoFormat("yuv420p"), time_base=time_base)
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    options = {
        "libx264": {"crf": "5", **({} if order == "prog" else {"x264-params": "interlaced=1"})},
        "mpeg2video": {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2"},
    }[codec]
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(count):
            pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            for field in (0, 1):
                later = field == (0 if order == "bff" else 1)
                left = (2 * index + later) * STEP
                pixels[field::2, left : left + 24] = 220
            frame = av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")
            frame.pts, frame.time_base = index if pts is None else pts[index], time_base
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize(
    ("name", "codec"), [("tape.mp4", "libx264"), ("tape.ts", "libx264"), ("tape.mpg", "mpeg2video")]
)
def test_interlaced_video_shows_the_earlier_field_of_each_frame(tmp_path, name, codec, order):
    path = write_moving_bar(tmp_path / name, 12, order, codec)
    info = probe_video(path)
    assert info.interlaced
    assert (info.frame_rate, info.frame_count) == (25, 12)
    frames = list(read_frames(path))
    assert len(frames) == 12
    for index, frame in enumerate(frames[1:], 1):  # nothing is known of what was before the first
        assert abs(bar_at(frame, slice(2, -2)) - 2 * index * STEP) <= 1


def test_progressive_video_keeps_every_pixel(tmp_path):
    path = write_moving_bar(tmp_path / "combs.mp4", 4, "prog", "libx264")
    assert not probe_video(path).interlaced
    third = list(read_frames(path))[2]
    assert bar_at(third, slice(0, None, 2)) == 4 * STEP
    assert bar_at(third, slice(1, None, 2)) == 5 * STEP


def test_interlaced_video_of_variable_rate_keeps_its_timing_and_its_rotation(tmp_path):
    times = [0, 1, 2, 3, 9, 10, 11, 12]
    path = write_moving_bar(tmp_path / "tape.mp4", 8, "tff", "libx264", pts=times, rotation=90)
    info = probe_video(path)
    assert info.variable_frame_rate
    frames = [np.rot90(frame, -1) for frame in read_frames(path)]
    assert len(frames) == info.frame_count
    shown = [max(index for index, time in enumerate(times) if time <= slot) for slot in range(12)]
    for slot, index in enumerate(shown[1:], 1):
        assert abs(bar_at(frames[slot], slice(2, -2)) - 2 * index * STEP) <= 1


def test_frames_before_the_first_interlaced_one_are_handed_through_and_sizes_may_change():
    graphs = {}
    frames = []
    for number, (side, order) in enumerate([(32, "prog"), (32, "prog"), (32, "tff"), (32, "bff"), (48, "tff")]):
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([20 * number]) * plane.buffer_size)
        frame.pts, frame.time_base = (None, 70, 60, None, 2**62)[number], Fraction(1, 1000)
        if (side, order) not in graphs:
            graphs[side, order] = graph = av.filter.Graph()
            source = graph.add_buffer(width=side, height=side, format=frame.format, time_base=Fraction(1, 1000))
            graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
        graphs[side, order].vpush(frame)
        frames.append(graphs[side, order].vpull())
    expected = [(frame.width, frame.pts) for frame in frames]
    shown = list(deinterlaced(iter(frames)))
    assert [(frame.width, frame.pts) for frame in shown] == expected
    assert shown[0] is frames[0]
    assert shown[1] is frames[1]
    assert not any(frame.interlaced_frame for frame in shown)


PQ, HLG = 16, 18
# Linear BT.709 light, where 1 is the white of paper: grey, light and dark skin, white, a lamp twice as bright as paper,
# and, last, a green near the edge of what BT.709 can show.
PATCHES = np.array([(0.18,) * 3, (0.6, 0.3, 0.2), (0.3, 0.12, 0.07), (1,) * 3, (2,) * 3, (0.05, 0.5, 0.1)])
BT709_TO_BT2020 = np.array([(0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)])
LUMA = np.array([0.2627, 0.6780, 0.0593])


def signal(light: np.ndarray, transfer: int) -> np.ndarray:
    """ITU-R BT.2100, tables 4 and 5: the code values (0 to 1) of BT.2020 light [N, 3] in cd/m2."""
    if transfer == PQ:
        power = (light / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    scene = light / 1000
    scene = scene * (scene @ LUMA)[:, None] ** (-0.2 / 1.2)  # a screen of 1000 cd/m2 has a gamma of 1.2
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def write_patches(path: Path, transfer: int, primaries: int = 9, matrix: int = 9) -> Path:
    """Columns of 32 pixels in the colours of ``PATCHES``, 10 bits, without loss."""
    red, green, blue = signal(203 * PATCHES @ BT709_TO_BT2020.T, transfer).T
    luma = LUMA @ (red, green, blue)
    planes = (219 * luma + 16, 224 * (blue - luma) / 1.8814 + 128, 224 * (red - luma) / 1.4746 + 128)
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32 * len(PATCHES), 64, "yuv420p10le"
        tagged = [stream.codec_context]
        for index in range(2):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p10le")
            for plane, values in zip(frame.planes, planes, strict=True):
                row = np.repeat(np.round(4 * values), 32 * plane.width // frame.width).astype("<u2")
                row = np.pad(row, (0, plane.line_size // 2 - len(row)))
                plane.update(np.tile(row, plane.height).tobytes())
            tagged.append(frame)
            for target in tagged:
                target.colorspace, target.color_primaries, target.color_trc = matrix, primaries, transfer
                target.color_range = 1
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("transfer", "name", "primaries", "matrix"),
    [pytest.param(PQ, "PQ", 9, 9, marks=pytest.mark.slow), (HLG, "HLG", 2, 2)],
    ids=["PQ", "HLG, half tagged"],
)
def test_high_dynamic_range_comes_in_with_the_colours_of_bt709(tmp_path, transfer, name, primaries, matrix):
    path = write_patches(tmp_path / "phone.mkv", transfer, primaries, matrix)
    assert probe_video(path).high_dynamic_range == name
    frame = next(read_frames(path))
    expected = 255 * PATCHES.clip(0, 1) ** (1 / 2.4)  # ITU-R BT.1886, what a screen does with BT.709
    difference = np.abs(frame[32, 16::32] - expected)
    assert difference[:-1].max() <= 4, difference
    assert difference[-1].max() <= 16  # swscale pales what is near the edge of the gamut, so that shades stay apart


@pytest.mark.slow
@pytest.mark.parametrize("primaries", [0, 13, 50])
def test_primaries_without_a_meaning_are_taken_for_those_of_high_dynamic_range(primaries):
    shown = []
    for number in (9, primaries):
        frame = av.VideoFrame(32, 32, "yuv420p10le")
        for plane, level in zip(frame.planes, (600, 480, 560), strict=True):
            plane.update(np.full(plane.buffer_size // 2, level, "<u2").tobytes())
        frame.colorspace, frame.color_trc, frame.color_range, frame.color_primaries = 9, HLG, 1, number
        shown.append(RgbConverter()(frame, 32, 32))
    assert np.array_equal(*shown)


def test_ordinary_video_is_neither(make_video):
    info = probe_video(make_video(count=3, matrix="709"))
    assert not info.interlaced
    assert info.high_dynamic_range is None


def _animation(path: Path) -> Path:
    pictures = [Image.fromarray(np.full((64, 96, 3), 25 * index, np.uint8)) for index in range(10)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100] * 5 + [200] * 5)
    return path


@pytest.mark.parametrize("name", ["dance.gif", "dance.png"])
def test_an_animated_picture_is_a_video_with_its_timing(tmp_path, name):
    shown = [round(float(frame.mean()) / 25) for frame in read_frames(_animation(tmp_path / name))]
    assert probe_video(tmp_path / name).frame_rate == 10
    assert shown == [0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]


def test_an_animated_webp_is_refused_with_the_way_out(tmp_path):
    path = _animation(tmp_path / "dance.webp")
    with pytest.raises(MediaError, match=r"dance\.webp: a WebP picture, .*convert it to mp4 or GIF first"):
        probe_video(path)
    with pytest.raises(MediaError, match="a WebP picture"):
        next(read_frames(path.rename(tmp_path / "renamed.mp4")))

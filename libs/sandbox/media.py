"""Writes the sandbox's picture and driving clip, and says where every joint was drawn.

The clip has a sound track (a synthesised beat at the dance's tempo), so that everything that happens to a real clip
happens to this one. What does not belong here: drawing (``puppet``), motion (``dance``), general video writing
(``libs.media``; its writer copies sound from another clip, this one makes the first).
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from libs.files.atomic_write import atomic_write
from libs.media.video.colour import Bt709Converter, tag_bt709
from libs.media.video.x264 import x264_options
from libs.sandbox.dance import BEATS_PER_SECOND, Dance
from libs.sandbox.puppet import DRIVER, REFERENCE, Framing, Puppet, draw_puppet, full_figure, puppet_keypoints
from libs.sandbox.skeleton import Pose

WIDTH, HEIGHT = 288, 384
"""Default size of picture and clip in pixels."""

FRAME_RATE = Fraction(24)
SAMPLE_RATE = 48_000

_CONSTANT_RATE_FACTOR = 14  # high quality: the markers are the point of this clip
_ENCODER_THREADS = 2


def write_puppet_picture(
    path: Path, *, puppet: Puppet = REFERENCE, width: int = WIDTH, height: int = HEIGHT
) -> np.ndarray:
    """Write a PNG of one puppet that stands at ease, the whole figure.

    Returns:
        Where its key-points are: float64 [133, 2], pixels, pixel centres are whole numbers.
    """
    pose, framing = Pose(), full_figure(puppet, width, height)
    with atomic_write(path) as temporary:
        Image.fromarray(draw_puppet(puppet, pose, width, height, framing)).save(temporary, format="PNG")
    return puppet_keypoints(puppet, pose, framing)


def write_puppet_clip(
    path: Path,
    *,
    puppet: Puppet = DRIVER,
    seed: int = 0,
    frame_count: int = 49,
    frame_rate: Fraction = FRAME_RATE,
    width: int = WIDTH,
    height: int = HEIGHT,
    framing: Framing | None = None,
    audio: bool = True,
) -> np.ndarray:
    """Write an mp4 (H.264, BT.709, AAC) of one puppet dancing.

    Args:
        path: the file to write; replaced in one step.
        puppet: who dances.
        seed: of the dance.
        frame_count: length in frames.
        frame_rate: exact, frames per second.
        width: in pixels, even.
        height: in pixels, even.
        framing: where the puppet stands; the whole figure, centred, when left out.
        audio: False leaves the sound track out.

    Returns:
        Where the key-points are in each frame: float64 [frame_count, 133, 2], pixels.
    """
    framing = framing or full_figure(puppet, width, height)
    poses = [Dance(seed).pose(index / float(frame_rate)) for index in range(frame_count)]
    pictures = (draw_puppet(puppet, pose, width, height, framing) for pose in poses)
    write_clip(path, pictures, width, height, frame_rate, float(frame_count / frame_rate) if audio else None, seed)
    return np.array([puppet_keypoints(puppet, pose, framing) for pose in poses])


def write_clip(
    path: Path,
    pictures: Iterable[np.ndarray],
    width: int,
    height: int,
    frame_rate: Fraction,
    seconds_of_sound: float | None = None,
    seed: int = 0,
) -> None:
    """Encode drawn pictures as an mp4, with a beat if ``seconds_of_sound`` says how long.

    Args:
        path: the file to write; replaced in one step.
        pictures: uint8 RGB [height, width, 3]; one is held at a time.
        width: in pixels, even.
        height: in pixels, even.
        frame_rate: exact, frames per second.
        seconds_of_sound: None leaves the sound track out.
        seed: of the sound.
    """
    with (
        atomic_write(path) as temporary,
        av.open(temporary, mode="w", format="mp4", container_options={"movflags": "+faststart"}) as container,
    ):
        video = container.add_stream(
            "libx264",
            rate=frame_rate,
            options=x264_options(_CONSTANT_RATE_FACTOR, "fast"),
            width=width,
            height=height,
            pix_fmt="yuv420p",
        )
        video.codec_context.time_base = 1 / frame_rate
        video.codec_context.thread_count = _ENCODER_THREADS
        tag_bt709(video.codec_context)
        audio = seconds_of_sound is not None
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo") if audio else None
        convert = Bt709Converter()
        for index, drawn in enumerate(pictures):
            picture = convert(drawn)
            picture.pts, picture.time_base = index, 1 / frame_rate
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound is not None and seconds_of_sound is not None:
            _write_sound(container, sound, seconds_of_sound, seed)


def _write_sound(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float, seed: int) -> None:
    samples = beat(seconds, seed)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def beat(seconds: float, seed: int = 0) -> np.ndarray:
    """A drum beat under a plucked melody: float32 [2, samples] in [-1, 1] at ``SAMPLE_RATE``."""
    generator = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    mix = np.zeros((2, count + SAMPLE_RATE), dtype=np.float64)
    scale = 220.0 * 2.0 ** (np.array([0, 3, 5, 7, 10, 12]) / 12)  # minor pentatonic on A
    for step in range(int(np.ceil(seconds * BEATS_PER_SECOND * 2))):
        start = round(step / (2 * BEATS_PER_SECOND) * SAMPLE_RATE)
        if start >= count:
            break
        if step % 2 == 0:
            _add(mix, start, _kick(), 0.55, 0.5)
        else:
            _add(mix, start, _hat(generator), 0.12, 0.6)
        _add(mix, start, _pluck(float(generator.choice(scale))), 0.2, generator.uniform(0.3, 0.7))
    return np.tanh(mix[:, :count]).astype(np.float32)


def _add(mix: np.ndarray, start: int, sound: np.ndarray, level: float, pan: float) -> None:
    stop = min(mix.shape[1], start + len(sound))
    mix[:, start:stop] += level * np.array([[1 - pan], [pan]]) * 2 * sound[None, : stop - start]


def _kick() -> np.ndarray:
    time = np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 45 + 110 * np.exp(-time * 30)
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE) * np.exp(-time * 14)


def _hat(generator: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.06 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = generator.standard_normal(len(time))
    return np.diff(noise, prepend=0.0) * np.exp(-time * 90)


def _pluck(frequency: float) -> np.ndarray:
    time = np.arange(int(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * frequency * time) + 0.4 * np.sin(4 * np.pi * frequency * time)
    return tone * np.exp(-time * 9) * np.minimum(1.0, time * 400)

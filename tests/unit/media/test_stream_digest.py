"""The digest of a video's streams: tags do not count, everything seen or heard does."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from libs.errors import MediaError
from libs.media.video.probe import read_tags
from libs.media.video.stream_digest import stream_digest
from libs.media.video.video_file import packets_of
from libs.media.video.writer import VideoWriter
from libs.sandbox.media import write_puppet_clip

RATE = Fraction(24)


def write(path: Path, *, level: int = 90, rate: Fraction = RATE, audio_from: Path | None = None, **tags: str) -> Path:
    frames = np.full((6, 32, 48, 3), level, np.uint8)
    frames[:, 8:20, 8:20] = np.arange(6, dtype=np.uint8)[:, None, None, None] * 20
    with VideoWriter(path, 48, 32, rate, audio_from=audio_from, metadata=tags) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_tags_do_not_count_and_are_kept(tmp_path: Path) -> None:
    text = '{"prompt":"\\u00e9 = ;#\\\\ \\n"}' * 200
    plain, tagged = write(tmp_path / "plain.mp4"), write(tmp_path / "tagged.mp4", comment=text)
    assert plain.read_bytes() != tagged.read_bytes()
    assert stream_digest(plain) == stream_digest(tagged)
    assert read_tags(tagged)["comment"] == text
    assert "comment" not in read_tags(plain)


def test_pictures_rate_and_sound_count(tmp_path: Path) -> None:
    write_puppet_clip(tmp_path / "sound.mp4", frame_count=8)
    digests = {
        stream_digest(write(tmp_path / "a.mp4")),
        stream_digest(write(tmp_path / "b.mp4", level=91)),
        stream_digest(write(tmp_path / "c.mp4", rate=Fraction(25))),
        stream_digest(write(tmp_path / "d.mp4", audio_from=tmp_path / "sound.mp4")),
    }
    assert len(digests) == 4


def test_what_is_no_video_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError):
        stream_digest(tmp_path / "text.mp4")


def test_a_stream_that_begins_in_the_middle_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    class LikePyAv:
        """What PyAV does when FFmpeg meets a stream that was not there when the file was opened."""

        def demux(self) -> Iterator[av.Packet]:
            yield av.Packet()
            raise IndexError("list index out of range")

    packets = packets_of(tmp_path / "tv.ts", LikePyAv())  # type: ignore[arg-type]
    next(packets)
    with pytest.raises(MediaError, match=r"tv\.ts: a further stream begins .* convert it to mp4"):
        next(packets)

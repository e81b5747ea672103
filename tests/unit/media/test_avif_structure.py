"""What an AVIF describes is known before it is decoded, whatever its container claims."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from libs.errors import MediaError
from libs.media.limits import maximum_pixels_of
from libs.media.pictures import image as image_module
from libs.media.pictures.avif_structure import check_avif
from libs.media.pictures.image import read_image
from tests.fuzz_bounds import call_within

SIZE = (123, 77)
PIXELS = SIZE[0] * SIZE[1]


def _written(path: Path, kind: str) -> Path:
    mode, frames = ("RGBA" if kind == "transparent" else "RGB"), (3 if kind == "animated" else 1)
    pictures = [Image.new(mode, SIZE, (90 * number, 10, 10)[: len(mode)]) for number in range(frames)]
    pictures[0].save(path, save_all=frames > 1, append_images=pictures[1:], speed=10)
    return path


@pytest.mark.parametrize("kind", ["plain", "transparent", "animated"])
def test_the_size_in_the_data_is_found(tmp_path: Path, kind: str) -> None:
    path = _written(tmp_path / "p.avif", kind)
    check_avif(path, PIXELS)
    with pytest.raises(MediaError, match=r"p\.avif: the picture's data describe 123 x 77 pixels"):
        check_avif(path, PIXELS - 1)


@pytest.mark.parametrize("kind", ["plain", "animated"])
def test_a_container_that_claims_less_is_not_believed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path / "p.avif", kind)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack(">II", *SIZE), struct.pack(">II", 32, 32)))
    monkeypatch.setattr(image_module, "maximum_pixels_of", lambda _: 64 * 64)
    with pytest.raises(MediaError, match="the picture's data describe 123 x 77 pixels"):
        read_image(path)


def test_avif_has_a_separate_limit(tmp_path: Path) -> None:
    assert maximum_pixels_of("AVIF") < maximum_pixels_of("PNG")
    path = _written(tmp_path / "p.avif", "plain")
    claimed = path.read_bytes().replace(struct.pack(">II", *SIZE), struct.pack(">II", 7000, 5000))
    path.write_bytes(claimed)
    with pytest.raises(MediaError, match=r"is 7000 x 5000 pixels: at most .* 34 megapixels are accepted"):
        read_image(path)


def test_damaged_files_are_refused_quickly(tmp_path: Path) -> None:
    data = _written(tmp_path / "whole.avif", "animated").read_bytes()

    def read_all() -> int:
        damaged = tmp_path / "damaged.avif"
        for position in range(0, len(data), 3):
            for content in (data[:position], data[:position] + b"\xff\xff\xff\xff" + data[position + 4 :]):
                damaged.write_bytes(content)
                with suppress(MediaError):
                    check_avif(damaged, 10_000)
        return len(data)

    assert call_within(120, 100, read_all) == len(data)

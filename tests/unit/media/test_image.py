import numpy as np
import pytest
from PIL import Image

from libs.errors import MediaError
from libs.media.image import read_image, write_jpeg, write_png


@pytest.fixture
def picture():
    return np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_png_is_lossless(tmp_path, picture):
    write_png(tmp_path / "new" / "p.png", picture)
    assert np.array_equal(read_image(tmp_path / "new" / "p.png"), picture)
    grey = picture[..., 0]
    write_png(tmp_path / "g.png", grey)
    assert np.array_equal(read_image(tmp_path / "g.png"), np.repeat(grey[..., None], 3, axis=2))


def test_jpeg_is_close(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    write_jpeg(tmp_path / "p.jpg", smooth)
    assert np.abs(read_image(tmp_path / "p.jpg").astype(int) - smooth).max() <= 6


def test_same_picture_gives_same_bytes(tmp_path, picture):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", picture)
        write_jpeg(tmp_path / f"{name}.jpg", picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_transparency_is_dropped_without_compositing(tmp_path, picture):
    alpha = np.zeros((32, 48, 1), np.uint8)
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), picture)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    deep = (np.arange(1024, dtype=np.uint16).reshape(32, 32)) * 64
    Image.fromarray(deep).save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png")[..., 1], (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["P", "L", "CMYK", "1"])
def test_other_kinds_of_pictures_become_rgb(tmp_path, picture, mode):
    image = Image.fromarray(picture).convert(mode)
    name = "p.tiff" if mode == "CMYK" else "p.png"
    image.save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), np.asarray(image.convert("RGB")))


def test_a_phones_picture_comes_out_upright_unless_asked_otherwise(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    Image.fromarray(picture).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "p.png"), np.rot90(picture, -1))
    assert np.array_equal(read_image(tmp_path / "p.png", apply_orientation=False), picture)


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp"])
def test_truncated_pictures_are_refused(tmp_path, picture, name):
    Image.fromarray(np.kron(picture, np.ones((4, 4, 1), np.uint8))).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for part in (0.3, 0.7, 0.95):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(MediaError, match=r"truncated|damaged|not a picture"):
            read_image(tmp_path / name)


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        read_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MediaError, match=r"text\.png: not a picture"):
        read_image(tmp_path / "text.png")
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    with pytest.raises(MediaError, match="not a picture"):
        read_image(tmp_path / "script.png")


@pytest.mark.parametrize("side", [9_200, 17_000])
def test_absurd_sizes_are_refused_before_decoding(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(MediaError, match="megapixels"):
        read_image(tmp_path / "bomb.png")


def test_tiny_pictures_are_refused(tmp_path):
    Image.new("RGB", (15, 200)).save(tmp_path / "p.png")
    with pytest.raises(MediaError, match="15 x 200 pixels: both sides must be at least 16"):
        read_image(tmp_path / "p.png")


def test_a_failed_write_leaves_what_was_there(tmp_path, picture):
    write_png(tmp_path / "p.png", picture)
    with pytest.raises(TypeError):
        write_png(tmp_path / "p.png", picture.astype(np.complex64))
    assert np.array_equal(read_image(tmp_path / "p.png"), picture)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.png"]


def test_real_pictures(real_media):
    assert read_image(real_media / "img_768.png").shape == (768, 432, 3)
    assert read_image(real_media / "maodie_768.jpg").shape == (768, 563, 3)

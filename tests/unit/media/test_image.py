import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from libs.errors import MediaError
from libs.media.pictures.image import read_image, read_picture, write_png


@pytest.fixture
def picture():
    return np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_png_is_lossless(tmp_path, picture):
    write_png(tmp_path / "new" / "p.png", picture)
    assert np.array_equal(read_image(tmp_path / "new" / "p.png"), picture)
    grey = picture[..., 0]
    write_png(tmp_path / "g.png", grey)
    assert np.array_equal(read_image(tmp_path / "g.png"), np.repeat(grey[..., None], 3, axis=2))


def test_same_picture_gives_same_bytes(tmp_path, picture):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def composited(picture, alpha):
    weight = alpha.astype(np.uint32)[..., None]
    return ((picture * weight + 128 * (255 - weight) + 127) // 255).astype(np.uint8)


def test_transparent_parts_are_laid_over_neutral_grey(tmp_path, picture):
    """Whatever colour hides there; half-transparent edges are mixed with grey, which has no colour to fringe them."""
    alpha = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "p.png")
    read = read_picture(tmp_path / "p.png")
    assert np.array_equal(read.frame, composited(picture, alpha))
    assert read.transparent
    assert "neutral grey" in read.notes()[0]
    assert np.array_equal(read_image(tmp_path / "p.png", as_people_see_it=False), picture)


def test_an_alpha_channel_that_hides_nothing_changes_nothing(tmp_path, picture):
    Image.fromarray(np.dstack([picture, np.full((32, 48), 255, np.uint8)])).save(tmp_path / "p.png")
    read = read_picture(tmp_path / "p.png")
    assert np.array_equal(read.frame, picture)
    assert (read.transparent, read.notes()) == (False, ())


@pytest.mark.parametrize(
    "kind", ["LA", "palette", "palette-alphas", "grey key", "colour key", "16-bit grey key", "webp"]
)
def test_every_kind_of_transparency_is_seen(tmp_path, kind):
    """The left half is transparent, the right half is not."""
    grey = np.full((32, 48), 200, np.uint8)
    grey[:, :24] = 10
    alpha = np.where(grey == 10, 0, 255).astype(np.uint8)
    path, options = tmp_path / "p.png", {}
    match kind:
        case "LA":
            image = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
        case "palette":
            image, options = Image.fromarray(grey).convert("P"), {"transparency": 10}
        case "palette-alphas":
            image = Image.fromarray(grey).convert("P")
            options = {"transparency": bytes(0 if index == 10 else 255 for index in range(256))}
        case "grey key":
            image, options = Image.fromarray(grey), {"transparency": 10}
        case "colour key":
            image, options = Image.fromarray(grey).convert("RGB"), {"transparency": (10, 10, 10)}
        case "16-bit grey key":
            image, options = Image.fromarray(grey.astype(np.uint16) * 257), {"transparency": 2570}
        case "webp":
            path, options = tmp_path / "p.webp", {"lossless": True}
            image = Image.fromarray(np.dstack([grey, grey, grey, alpha]))
    image.save(path, **options)
    seen = read_picture(path)
    assert seen.transparent
    assert (seen.frame[:, :24] == 128).all()
    assert (seen.frame[:, 24:] == 200).all()


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
    assert np.array_equal(read_image(tmp_path / "p.png", as_people_see_it=False), picture)


def s15(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc_profile(space, tags):
    """The bytes of an ICC profile, version 4 (ICC.1:2010): header, table, tags."""
    name = "Test".encode("utf-16-be")
    text = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(name), 28) + name
    tags = {b"desc": text, b"cprt": text, b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249), **tags}
    body, table = b"", struct.pack(">I", len(tags))
    for signature, data in tags.items():
        table += signature + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4xI", 128 + len(table) + len(body), 0x04000000) + b"prtr" + space
    head = (head.ljust(36, b"\0") + b"acsp").ljust(68, b"\0") + s15(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


def wide_gamut_profile():
    """Adobe RGB (1998): its primaries adapted to D50, and its gamma."""
    columns = {b"r": (0.60974, 0.31111, 0.01947), b"g": (0.20528, 0.62567, 0.06087), b"b": (0.14919, 0.06322, 0.74457)}
    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.19921875 * 256))
    primaries = {name + b"XYZ": b"XYZ \0\0\0\0" + s15(*column) for name, column in columns.items()}
    return icc_profile(b"RGB XYZ ", {**primaries, **{name + b"TRC": gamma for name in columns}})


def print_profile():
    """A press whose full cyan is CIELAB (50, -30, -40), whose black is (10, 0, 0), and so on, inks multiplied."""
    inks = np.array([(50, -30, -40), (50, 70, 0), (90, 0, 90), (10, 0, 0)])
    grid = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, -1).T
    lab = [
        (100 * np.prod(inks[on == 1, 0] / 100), *np.clip(inks[on == 1, 1:].sum(axis=0), -100, 100) * (on[3] == 0))
        for on in grid
    ]
    table = np.rint(np.array(lab) * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    ramp = bytes(range(256))
    data = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return icc_profile(b"CMYKLab ", {b"A2B0": data + ramp * 4 + table.tobytes() + ramp * 3})


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp", "p.tiff", "p.avif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_a_wide_gamut_profile_become_srgb(tmp_path, name, mode):
    meant = np.array([(200, 60, 70), (90, 160, 90), (60, 90, 180), (128, 128, 128)], np.uint8)
    linear = np.where(meant <= 10, meant / 255 / 12.92, ((meant / 255 + 0.055) / 1.055) ** 2.4)
    srgb = np.array([(0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410)])
    wide = np.array([(0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457)])
    stored = np.rint(255 * (linear @ srgb.T @ np.linalg.inv(wide).T) ** (1 / 2.19921875)).astype(np.uint8)
    assert np.abs(stored.astype(int) - meant).max() > 10
    image = Image.fromarray(np.kron(stored[:, None], np.ones((16, 64, 1), np.uint8)))
    if mode == "RGBA" and name != "p.jpg":
        image.putalpha(255)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / name, icc_profile=wide_gamut_profile(), exif=exif, quality=95)
    seen = read_image(tmp_path / name)[::-1][8::16, 32]
    assert np.abs(seen.astype(int) - meant).max() <= 4
    if name != "p.tiff":  # Pillow itself turns those
        raw = read_image(tmp_path / name, as_people_see_it=False)[8::16, 32]
        assert np.abs(raw.astype(int) - stored).max() <= 4


def test_inks_become_the_colours_their_profile_says(tmp_path):
    inks = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    inks.save(tmp_path / "p.tiff", icc_profile=print_profile())
    laboratory = np.float32([[[50, -30, -40]]])
    expected = np.rint(cv2.cvtColor(laboratory, cv2.COLOR_LAB2RGB) * 255).reshape(3)
    seen = read_image(tmp_path / "p.tiff")[16, 16]
    # black point compensation and D50 against D65 move it a little; without the profile it would be (0, 255, 255)
    assert np.abs(seen - expected).max() < 25


def test_srgb_damaged_and_foreign_profiles_leave_a_picture_as_it_is(tmp_path, picture):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    damaged = wide_gamut_profile()[:150]
    noted = []
    for profile in (srgb, damaged, b"nothing", print_profile(), bytearray(wide_gamut_profile())[:-40]):
        Image.fromarray(picture).save(tmp_path / "p.png", icc_profile=bytes(profile))
        seen = read_picture(tmp_path / "p.png")
        assert np.array_equal(seen.frame, picture)
        noted.append(seen.notes())
    damage = ("its colour profile is damaged and left aside: colours are taken for sRGB",)
    assert noted == [(), damage, damage, (), damage]


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_pixels_of_an_unusual_kind_are_refused_by_name(tmp_path, mode):
    Image.new(mode, (32, 32)).save(tmp_path / "p.tiff")
    with pytest.raises(MediaError, match=r"p\.tiff: .*(floating-point|CIELAB).*8-bit RGB"):
        read_image(tmp_path / "p.tiff")


def test_a_damaged_avif_is_refused(tmp_path, picture):
    Image.fromarray(np.kron(picture, np.ones((4, 4, 1), np.uint8))).save(tmp_path / "p.avif")
    whole = bytearray((tmp_path / "p.avif").read_bytes())
    start = whole.index(b"mdat") + 12
    whole[start : start + 60] = b"\xff" * 60
    (tmp_path / "p.avif").write_bytes(whole)
    with pytest.raises(MediaError, match=r"p\.avif: .*damaged"):
        read_image(tmp_path / "p.avif")


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

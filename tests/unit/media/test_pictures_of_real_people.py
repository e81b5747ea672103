"""Pictures as phones, cameras and web pages give them: HEIC, large metadata, several in one file, other files."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from libs.errors import MediaError
from libs.media.pictures.image import read_image, read_picture
from tests.fuzz_bounds import call_within


@pytest.fixture
def smooth():
    """[64, 96, 3]: bright, with a gradient; what lossy formats keep."""
    x, y = np.meshgrid(np.linspace(60, 220, 96), np.linspace(40, 200, 64))
    return np.dstack([x, y, np.full_like(x, 90)]).astype(np.uint8)


def close(seen, expected, levels=8):
    return seen.shape == expected.shape and np.abs(seen.astype(int) - expected).mean() < levels


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(path, picture, *chunks):
    """Write ``picture`` as PNG with ``chunks`` behind its header."""
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "PNG")
    header, rest = written.getvalue()[:33], written.getvalue()[33:]
    path.write_bytes(header + b"".join(chunks) + rest)
    return path


TEXT = b"x" * 1_600_000


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(TEXT))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TEXT)],
        [chunk(b"tEXt", b"Comment\0" + TEXT)],
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"y" * 900_000))] * 90,
        [chunk(b"zTXt", b"Comment\0\0" + b"no zlib data")],
        [chunk(b"caBX", bytes(3_000_000))],
        [chunk(b"iCCP", b"huge\0\0" + zlib.compress(bytes(40_000_000)))],
        [chunk(b"eXIf", b"II*\0" + bytes(200))],
    ],
    ids=["zTXt", "iTXt-z", "iTXt", "tEXt", "many", "damaged text", "private", "bomb in the profile", "empty EXIF"],
)
def test_metadata_are_no_reason_to_refuse_a_picture(tmp_path, smooth, chunks):
    assert np.array_equal(read_image(with_chunks(tmp_path / "p.png", smooth, *chunks)), smooth)


def test_small_texts_are_still_read_by_pillow(tmp_path, smooth):
    """Where programs write the orientation as text, beside one that is too long."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x xmlns:tiff="t" tiff:Orientation="3"/>')
    Image.fromarray(smooth).save(tmp_path / "p.png", pnginfo=info)
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[:33] + chunk(b"zTXt", b"C\0\0" + zlib.compress(TEXT)) + data[33:])
    assert np.array_equal(read_image(tmp_path / "p.png"), smooth[::-1, ::-1])


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tiff", "p.webp"])
def test_a_large_profile_and_large_exif_are_no_damage(tmp_path, smooth, name):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = struct.pack(">I", len(srgb) + 1_500_000) + srgb[4:] + bytes(1_500_000)
    exif = Image.Exif()
    exif[0x010E] = "d" * 50_000
    Image.fromarray(smooth).save(tmp_path / name, icc_profile=profile, exif=exif)
    assert close(read_image(tmp_path / name), smooth)


def test_a_profile_that_was_left_out_of_a_png_still_counts(tmp_path, smooth):
    """1.5 MB is more than Pillow reads, and no reason to show other colours."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(smooth).save(tmp_path / "p.png", icc_profile=lab + bytes(1_500_000))
    assert np.array_equal(read_image(tmp_path / "p.png"), smooth)


def write_heic(path, *pictures, primary=0, **options):
    file = pillow_heif.HeifFile()
    for picture in pictures:
        file.add_from_pillow(Image.fromarray(picture))
    file.save(path, quality=90, primary_index=primary, **options)
    return path


def test_heic_is_read_as_its_main_picture(tmp_path, smooth):
    assert close(read_image(write_heic(tmp_path / "a.heic", smooth)), smooth)
    several = read_picture(write_heic(tmp_path / "b.heic", 255 - smooth, smooth, primary=1))
    assert close(several.frame, smooth)
    assert "several pictures" in several.notes()[0]


def test_heic_comes_out_upright_and_in_its_colours(tmp_path, smooth):
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / "p.heic", quality=90, exif=exif.tobytes())
    assert close(read_image(tmp_path / "p.heic"), np.rot90(smooth, -1))


def test_transparent_heic_and_avif(tmp_path, smooth):
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    pillow_heif.from_pillow(Image.fromarray(np.dstack([smooth, alpha]))).save(tmp_path / "p.heic", quality=95)
    Image.fromarray(np.dstack([smooth, alpha])).save(tmp_path / "p.avif", quality=95)
    for name in ("p.heic", "p.avif"):
        seen = read_picture(tmp_path / name)
        assert seen.transparent
        assert np.abs(seen.frame[:, :40].astype(int) - 128).max() < 16
        assert close(seen.frame[:, 56:], smooth[:, 56:])


@pytest.mark.parametrize("name", ["p.gif", "p.webp", "p.png", "p.tiff", "p.jpg"])
def test_the_first_of_several_pictures_is_used_and_reported(tmp_path, smooth, name):
    first, second = Image.fromarray(smooth), Image.fromarray(255 - smooth)
    first.save(tmp_path / name, "MPO" if name == "p.jpg" else None, save_all=True, append_images=[second])
    seen = read_picture(tmp_path / name)
    assert close(seen.frame, smooth)
    assert "several pictures" in seen.notes()[0]


def test_damaged_exif_is_left_aside(tmp_path, smooth):
    Image.fromarray(smooth).save(tmp_path / "p.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert close(read_image(tmp_path / "p.jpg"), smooth)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"hello, I am a text", "a text file"),
        (b"<!DOCTYPE html><html>log in</html>", "a web page"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", r"a video .*are reference and driver exchanged\?"),
        (b"\x1a\x45\xdf\xa3matroska", r"a video .*exchanged\?"),
        (b"RIFF\0\0\0\0AVI LIST", r"a video .*exchanged\?"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (bytes(range(256)), "unknown format"),
        (b"\x89PNG\r\n\x1a\n", "a picture .PNG. that is truncated, damaged"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a picture .HEIC or AVIF. that is truncated"),
    ],
)
def test_another_file_is_named_for_what_it_is(tmp_path, content, words):
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(MediaError, match=words) as raised:
        read_image(tmp_path / "p.png")
    assert "not a picture" in str(raised.value)


def jpeg(smooth, side=(512, 512), **options):
    written = io.BytesIO()
    Image.fromarray(smooth).resize(side).save(written, "JPEG", **options)
    return written.getvalue()


def of_many_scans(smooth, count, side):
    """A progressive JPEG whose last, small scan comes again and again."""
    whole = jpeg(smooth, side, progressive=True, quality=5)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once(tmp_path, smooth):
    (tmp_path / "p.jpg").write_bytes(of_many_scans(smooth, 3000, (2048, 2048)))
    with pytest.raises(MediaError, match=r"3010 scans.*save it as an ordinary JPEG"):
        call_within(30, 200, read_image, tmp_path / "p.jpg")


def test_a_jpeg_of_some_more_scans_is_read(tmp_path, smooth):
    (tmp_path / "p.jpg").write_bytes(of_many_scans(smooth, 20, (512, 512)))
    assert read_image(tmp_path / "p.jpg").shape == (512, 512, 3)


def with_size(data, width, height):
    """The same JPEG, with another size in its header."""
    start = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_small_jpeg_that_claims_to_be_large_is_damaged(tmp_path, smooth, options):
    (tmp_path / "p.jpg").write_bytes(with_size(jpeg(smooth, (64, 64), **options), 8000, 8000))
    with pytest.raises(MediaError, match=r"truncated or damaged: it claims 8000 x 8000"):
        call_within(30, 100, read_image, tmp_path / "p.jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 1}, {"quality": 1, "progressive": True}])
def test_a_plain_jpeg_is_accepted(tmp_path, options):
    Image.new("RGB", (4000, 3000), (200, 10, 10)).save(tmp_path / "p.jpg", **options)
    assert read_image(tmp_path / "p.jpg").shape == (3000, 4000, 3)
    Image.new("L", (4000, 3000), 7).save(tmp_path / "g.jpg", optimize=True, **options)
    assert read_image(tmp_path / "g.jpg").shape == (3000, 4000, 3)


# In a new interpreter: gaps between what this one allocated before would count, by up to a third.
_READ_WITHIN = """
import sys
from libs.media.pictures.image import read_image
from tests.fuzz_bounds import call_within
read_image(sys.argv[1])  # libraries are loaded before memory counts
print(*call_within(120, float(sys.argv[2]), lambda: read_image(sys.argv[1]).shape))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p.png", {"compress_level": 1}),
        ("p.jpg", {"progressive": True, "subsampling": 0}),
        ("p.webp", {"lossless": True, "method": 0, "quality": 0}),
        ("p.heic", {"quality": 50, "enc_params": {"preset": "ultrafast"}}),
        ("p.tiff", {}),
        ("p.avif", {"speed": 10, "quality": 30, "subsampling": "4:4:4"}),
    ],
)
def test_reading_keeps_to_its_memory(tmp_path, smooth, name, options):
    """Measured on a tenth of the largest picture: memory grows with the pixels."""
    from libs.media.limits import MAXIMUM_PICTURE_BYTES, maximum_pixels_of

    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth).resize((3200, 2500)).save(tmp_path / name, exif=exif, **options)
    share = 3200 * 2500 / maximum_pixels_of({"heic": "HEIF"}.get(name[2:], name[2:].upper()))
    measured = subprocess.run(
        [sys.executable, "-c", _READ_WITHIN, tmp_path / name, str(share * MAXIMUM_PICTURE_BYTES / 1e6)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert measured.returncode == 0, measured.stderr
    assert sorted(measured.stdout.split()) == ["2500", "3", "3200"]

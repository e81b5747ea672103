"""Pictures with mutated bytes: a ``MediaError`` or a picture, within bounds of time and memory; never anything else."""

import io
import random

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from libs.errors import MediaError
from libs.media.pictures.image import read_image
from tests.fuzz_bounds import call_within

MUTANTS = 40
"""Read in one process; a header of them is changed at one to eight places, or the file is cut or doubled in part."""

_X, _Y = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
_SEEN = Image.fromarray(np.dstack([_X, _Y, _X[::-1]]).astype(np.uint8))


def written(picture_format, **options):
    pillow_heif.register_heif_opener()
    target = io.BytesIO()
    options.pop("image", _SEEN).save(target, picture_format, **options)
    return target.getvalue()


SEEDS = {
    "png": written("PNG", image=_SEEN.convert("RGBA")),
    "png16": written("PNG", image=Image.fromarray((_X * 257).astype(np.uint16))),
    "palette": written("PNG", image=_SEEN.convert("P"), transparency=3),
    "jpeg": written("JPEG"),
    "progressive": written("JPEG", progressive=True),
    "webp": written("WEBP", lossless=True),
    "heic": written("HEIF"),
    "avif": written("AVIF"),
    "tiff": written("TIFF", compression="tiff_lzw"),
    "gif": written("GIF", save_all=True, append_images=[_SEEN.rotate(90)]),
    "bmp": written("BMP"),
}


def mutant(data, chance):
    """``data`` changed by the random numbers of ``chance``, most of it in the header."""
    changed = bytearray(data)
    kind = chance.random()
    if kind < 0.15:
        return bytes(changed[: chance.randrange(len(changed))])
    if kind < 0.25:
        start = chance.randrange(len(changed))
        return bytes(changed[:start] + changed[start : start + 64] * chance.randrange(1, 200) + changed[start:])
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(min(len(changed), 400 if chance.random() < 0.8 else len(changed)))
        changed[place] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(changed)


def read_mutants(name, seed, folder):
    """Read some mutants of a seed file; returns what was raised beside ``MediaError``."""
    chance, wrong = random.Random(seed), []
    for _ in range(MUTANTS):
        path = folder / f"{name}.bin"
        path.write_bytes(mutant(SEEDS[name], chance))
        try:
            assert read_image(path).dtype == np.uint8
        except MediaError:
            pass
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
    return wrong


@pytest.mark.parametrize("name", list(SEEDS))
def test_mutated_pictures_are_read_or_refused(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("fuzz")
    read_image_once = folder / "whole"
    read_image_once.write_bytes(SEEDS[name])
    read_image(read_image_once)

    @settings(max_examples=max(2, settings.default.max_examples // 100))
    @given(seed=st.integers(0, 2**32))
    def explore(seed):
        assert call_within(200, 1100, read_mutants, name, seed, folder) == []

    explore()

import hashlib
import json

import numpy as np
import pytest

from libs.storage.chunks import StoredChunks

PREFIX = "chunks/dance-1/0123abcd"


def frames(seed, count=5):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)


def test_chunks_come_back_bit_for_bit(objects):
    chunks = StoredChunks(objects, PREFIX)
    assert chunks.load(0) is None
    chunks.save(0, frames(0))
    chunks.save(1, frames(1, 1))
    for index, count in ((0, 5), (1, 1)):
        loaded = StoredChunks(objects, PREFIX).load(index)
        assert loaded.dtype == np.uint8
        assert np.array_equal(loaded, frames(index, count))
        loaded[:] = 0  # the caller's own
    assert chunks.load(2) is None


def test_a_chunk_can_be_replaced(objects):
    chunks = StoredChunks(objects, PREFIX)
    chunks.save(0, frames(0))
    chunks.save(0, frames(9, 3))
    assert np.array_equal(chunks.load(0), frames(9, 3))


@pytest.mark.parametrize("what", ["data", "description", "format", "half"])
def test_a_damaged_chunk_is_made_again(objects, what, caplog):
    chunks = StoredChunks(objects, PREFIX)
    chunks.save(0, frames(0))
    if what == "data":
        data = bytearray(objects.get_bytes(f"{PREFIX}/00000.frames"))
        data[len(data) // 2] ^= 1
        objects.put_bytes(f"{PREFIX}/00000.frames", bytes(data))
    elif what == "description":
        objects.put_bytes(f"{PREFIX}/00000.json", b"{not json")
    elif what == "format":
        description = objects.get_bytes(f"{PREFIX}/00000.json")
        objects.put_bytes(f"{PREFIX}/00000.json", description.replace(b"zlib", b"zstd"))
    else:  # killed between the two writes of a replacement
        objects.put_bytes(f"{PREFIX}/00000.frames", b"newer data")
    assert chunks.load(0) is None
    assert "damaged" in caplog.text
    chunks.save(0, frames(0))
    assert np.array_equal(chunks.load(0), frames(0))


@pytest.mark.parametrize(
    "change",
    [
        *(b"[]", b"null", b"3", b'"text"', b"true", b"[[1, 2]]", b"[" * 100_000, b"{}", b"\xff", b"9" * 5000),
        *({"shape": 3}, {"shape": None}, {"shape": [1, 2]}, {"shape": "text"}, {"shape": [-1, 16, 16, 3]}),
        *({"shape": [10**30, 16, 16, 3]}, {"shape": [1.5, 16, 16, 3]}, {"shape": [7, 16, 16, 3]}, {"shape": {}}),
        *({"sha256": 3}, {"sha256": None}, {"format": ["x"]}),
    ],
    ids=str,
)
def test_a_description_that_is_json_and_says_nonsense_counts_as_damaged(objects, change, caplog):
    chunks = StoredChunks(objects, PREFIX)
    chunks.save(0, frames(0))
    if isinstance(change, dict):
        description = json.loads(objects.get_bytes(f"{PREFIX}/00000.json"))
        change = json.dumps(description | change).encode()
    objects.put_bytes(f"{PREFIX}/00000.json", change)
    assert chunks.load(0) is None
    assert "damaged" in caplog.text


def test_data_that_cannot_be_unpacked_counts_as_damaged(objects, caplog):
    chunks = StoredChunks(objects, PREFIX)
    chunks.save(0, frames(0))
    description = json.loads(objects.get_bytes(f"{PREFIX}/00000.json"))
    description["sha256"] = hashlib.sha256(b"no zlib").hexdigest()
    objects.put_bytes(f"{PREFIX}/00000.frames", b"no zlib")
    objects.put_bytes(f"{PREFIX}/00000.json", json.dumps(description).encode())
    assert chunks.load(0) is None
    assert "damaged" in caplog.text


def test_clearing_removes_these_chunks_only(objects):
    chunks, others = StoredChunks(objects, PREFIX), StoredChunks(objects, f"{PREFIX}-other")
    chunks.save(0, frames(0))
    others.save(0, frames(1))
    chunks.clear()
    chunks.clear()
    assert chunks.load(0) is None
    assert others.load(0) is not None
    assert not list(objects.list(f"{PREFIX}/"))


def test_a_smooth_chunk_takes_little_room(objects):
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    smooth = np.stack([np.roll(ramp, 2 * shift, axis=1) for shift in range(16)])
    StoredChunks(objects, PREFIX).save(0, smooth)
    assert objects.head(f"{PREFIX}/00000.frames").size < smooth.nbytes / 50


def test_wrong_arrays_are_refused(objects):
    with pytest.raises(TypeError, match="float64"):
        StoredChunks(objects, PREFIX).save(0, frames(0).astype(float))
    with pytest.raises(TypeError, match=r"uint8 \(32, 48, 3\)"):
        StoredChunks(objects, PREFIX).save(0, frames(0)[0])
    assert not list(objects.list())

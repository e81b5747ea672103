import hashlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import StorageError
from libs.storage.artifacts import materialize_command
from libs.storage.backends.keys import (
    artifact_prefix,
    check_file_name,
    check_key,
    file_key,
    manifest_history_key,
    manifest_key,
    suspect_key,
)
from libs.storage.manifest import Manifest, StoredFile, content_digest, parse_manifest

DIGEST = hashlib.sha256(b"").hexdigest()
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")


@given(st.text(max_size=60))
def test_an_accepted_key_stays_below_its_folder(key):
    try:
        check_key(key)
    except StorageError:
        return
    root = Path("/root/of/store")
    assert (root / key).as_posix() == f"/root/of/store/{key}"
    assert ".." not in PurePosixPath(key).parts
    assert "\0" not in key


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "./a", "a/../b", "a\\b", "a\nb", "a\x7f", "x" * 901, "é" * 451]
)
def test_what_cannot_be_a_key_never_can(key):
    with pytest.raises(StorageError, match=r"cannot be a key|too long") as raised:
        check_key(key)
    assert not raised.value.retryable


def test_the_longest_key():
    assert check_key("é" * 450) == "é" * 450


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "./a", "a/../b", "a b", ".hidden", "ä", "a\n", "x" * 129])
def test_what_cannot_be_a_file_or_an_asset_never_can(name):
    for refused in (check_file_name, lambda asset: artifact_prefix(asset, None)):
        with pytest.raises(StorageError, match="cannot be a file of an artifact") as raised:
            refused(name)
        assert not raised.value.retryable
    with pytest.raises(StorageError, match="cannot be part of a key") as raised:
        artifact_prefix("a", name)
    assert not raised.value.retryable


@given(st.text(max_size=40))
def test_an_accepted_file_name_is_plain(name):
    try:
        check_file_name(name)
    except StorageError:
        return
    assert check_key(name) == name
    assert all(part[0].isalnum() for part in name.split("/"))
    assert name.isascii()


@given(names, st.none() | names, names)
def test_keys_of_different_things_differ(asset, partition, name):
    key = file_key(asset, partition, DIGEST, name)
    assert key == check_key(key)
    assert key.startswith(artifact_prefix(asset, partition) + "/" + DIGEST[:16])
    assert artifact_prefix(asset, None) != artifact_prefix(asset, partition) or partition is None


def test_keys_are_the_documented_ones():
    """Whoever changes one of these loses what is stored under the old keys."""
    assert file_key("animation", "dance-1", DIGEST, "clip.mp4") == "animation/dance-1/e3b0c44298fc1c14/clip.mp4"
    assert manifest_key("animation", "dance-1") == "animation/dance-1/manifest.json"
    history = manifest_history_key("pose_models", None, DIGEST)
    assert history == "pose_models/_unpartitioned/manifests/e3b0c44298fc1c14.json"
    assert suspect_key(history) == f"suspect/{history}"


def test_content_digest_is_that_of_sha256sum_output():
    entries = [("b", "1" * 64), ("a", "2" * 64)]
    text = f"{'2' * 64}  a\n{'1' * 64}  b\n"
    assert content_digest(entries) == hashlib.sha256(text.encode()).hexdigest() == content_digest(reversed(entries))


def test_manifest_round_trip():
    file = StoredFile(name="d/f.bin", size=3, sha256=DIGEST, content_type="x/y", key=f"a/p/{DIGEST[:16]}/d/f.bin")
    manifest = Manifest(
        asset="a",
        partition=None,
        files=(file,),
        digest=DIGEST,
        attributes={"inputs": {"x": [1, 2.5, None]}},
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert parse_manifest(manifest.to_json(), "here") == manifest
    # Fields added by later versions of the same schema are passed over.
    assert parse_manifest(manifest.to_json().replace(b"{", b'{"later": 1,', 1), "here") == manifest


def test_a_manifest_of_a_newer_schema_asks_for_newer_software():
    with pytest.raises(StorageError, match=r"here: .*schema_version.*newer version of this software"):
        parse_manifest(b'{"schema_version": 2, "asset": "a"}', "here")


def test_commands_are_safe_to_paste():
    assert materialize_command("animation", "dance-1").endswith("--select animation --partition dance-1")
    assert "'x; rm'" in materialize_command("animation", "x; rm")

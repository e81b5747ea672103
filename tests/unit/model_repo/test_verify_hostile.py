"""Verification of files that somebody made to hurt: each is a mismatch with a reason, and nothing else is hidden."""

import json
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from libs.errors import ModelFilesError
from libs.model_repo.files.onnx_graph import read_onnx_graph
from libs.model_repo.files.safetensors_header import read_header, read_index
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache
from libs.model_repo.verification.lock import lock_path, lock_repository, read_lock
from libs.model_repo.verification.report import VerificationReport
from libs.model_repo.verification.verify import verify_repository
from tests.fuzz_bounds import call_within

SHARD = "model-00001-of-00002.safetensors"
DEEP = "[" * 200_000
NAN_SHAPE = '{"x": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 4]}}'
MEGABYTES = 600


@pytest.fixture
def locked(repository: RepositoryLayout) -> RepositoryLayout:
    lock_repository(repository, source="made by a test")
    return repository


def _verify(layout: RepositoryLayout, level: str = "fast") -> VerificationReport:
    report = verify_repository(layout, level)
    report.to_json().encode()
    return report


def _header(text: str) -> Callable[[RepositoryLayout], None]:
    def write(layout: RepositoryLayout) -> None:
        header = text.encode("utf-8", "surrogatepass")
        (layout.root / SHARD).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))

    return write


def _index(text: str) -> Callable[[RepositoryLayout], None]:
    return lambda layout: layout.index.write_bytes(text.encode("utf-8", "surrogatepass")) and None


def _shard_called(name: str) -> Callable[[RepositoryLayout], None]:
    def write(layout: RepositoryLayout) -> None:
        content = json.loads(layout.index.read_text())
        first = next(iter(content["weight_map"]))
        content["weight_map"][first] = name
        layout.index.write_text(json.dumps(content))

    return write


def _lock(text: str) -> Callable[[RepositoryLayout], None]:
    return lambda layout: lock_path(layout).write_text(text) and None


def _lock_with(name: str, **changes: Any) -> Callable[[RepositoryLayout], None]:
    def write(layout: RepositoryLayout) -> None:
        content = json.loads(lock_path(layout).read_text())
        content["files"][name] = {**next(iter(content["files"].values())), **changes}
        lock_path(layout).write_text(json.dumps(content))

    return write


def _instead(kind: str, place: Callable[[RepositoryLayout], Path]) -> Callable[[RepositoryLayout], None]:
    def write(layout: RepositoryLayout) -> None:
        path = place(layout)
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "loop":
            path.symlink_to(path)
        else:
            here = Path.cwd()
            os.chdir(path.parent)  # the whole path may be too long for a socket
            try:
                with socket.socket(socket.AF_UNIX) as one:
                    one.bind(path.name)
            finally:
                os.chdir(here)

    return write


def _detector(content: bytes, size: int = 0) -> Callable[[RepositoryLayout], None]:
    def write(layout: RepositoryLayout) -> None:
        with layout.detector.open("wb") as file:
            file.write(content)
            file.truncate(max(size, len(content)))

    return write


def _external(**entries: str) -> bytes:
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL, dims=[1])
    for key, value in {"location": "weights.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 640, 640]) for name in ("input", "output")]
    node = helper.make_node("Identity", ["input"], ["output"])
    graph = helper.make_graph([node], "test", values[:1], values[1:], [tensor])
    return helper.make_model(graph).SerializeToString()


def _shard(layout: RepositoryLayout) -> Path:
    return layout.root / SHARD


CASES: dict[str, tuple[Callable[[RepositoryLayout], None], str, str]] = {
    # what is wrong: who makes it, the part it belongs to, what is said
    "deep header": (_header(DEEP), "checkpoint", "header is nested too deeply"),
    "header of texts": (_header('{"x": "' + "y" * 1000 + '"}'), "checkpoint", "entry of 'x' cannot be read"),
    "infinite shape": (_header(NAN_SHAPE % "1e400"), "checkpoint", "entry of 'x' cannot be read"),
    "shape of NaN": (_header(NAN_SHAPE % "NaN"), "checkpoint", "entry of 'x' cannot be read"),
    "shape of fractions": (_header(NAN_SHAPE % "1.0"), "checkpoint", "entry of 'x' cannot be read"),
    "shape of thousands of long numbers": (
        _header(NAN_SHAPE % ", ".join(["9" * 4200] * 1000)),
        "checkpoint",
        "entry of 'x' cannot be read",
    ),
    "shape of too long a number": (_header(NAN_SHAPE % ("9" * 5000)), "checkpoint", "header is not JSON"),
    "infinite offsets": (
        _header('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e400]}}'),
        "checkpoint",
        "entry of 'x' cannot be read",
    ),
    "offsets of true": (
        _header('{"x": {"dtype": "F32", "shape": [true], "data_offsets": [false, 4]}}'),
        "checkpoint",
        "entry of 'x' cannot be read",
    ),
    "dtype that is a list": (
        _header('{"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}'),
        "checkpoint",
        r"the dtype \['F32'\], which is not known",
    ),
    "half a character": (
        _header('{"\\ud800\\n[/b]": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
        "checkpoint",
        "lacks blocks",
    ),
    "metadata of numbers": (_header('{"__metadata__": {"a": 1}}'), "checkpoint", "__metadata__ is not a mapping"),
    "deep index": (_index(DEEP), "checkpoint", "index is nested too deeply"),
    "index of numbers": (_index('{"weight_map": {"x": 1e400}}'), "checkpoint", "is not a safetensors index"),
    "shard name with NUL": (_shard_called("a\0b.safetensors"), "checkpoint", "not a plain file name"),
    "long shard name": (_shard_called("x" * 300), "checkpoint", "not a plain file name"),
    "shard name of half a character": (_shard_called("\ud800.safetensors"), "checkpoint", "not a plain file name"),
    "deep configuration": (
        lambda layout: (layout.root / "configuration.json").write_text(DEEP) and None,
        "checkpoint",
        "configuration is nested too deeply",
    ),
    "deep lock": (_lock(DEEP), "checkpoint", "is not a lock file .*nested too deeply"),
    "lock of a list": (_lock("[1]"), "checkpoint", "is not a lock file"),
    "lock of another format": (_lock('{"format": 1e400}'), "checkpoint", r"format inf, expected 1"),
    "lock with an infinite size": (_lock_with("a", size=float("inf")), "checkpoint", "no size that can be used"),
    "lock with a size of thousands of digits": (_lock_with("a", size=10**4200), "checkpoint", "no size that can be"),
    "lock with a digest that is a number": (_lock_with("a", sha256=1), "checkpoint", "no sha256 that can be used"),
    "lock with a field nobody knows": (_lock_with("a", **{"[/b]": 1}), "checkpoint", r"field '\[/b\]' that is not"),
    "lock with NUL": (_lock_with("a\0b"), "checkpoint", "no file can have it"),
    "lock with a long name": (_lock_with("x" * 300), "checkpoint", "no file can have it"),
    "lock with half a character": (_lock_with("\ud800"), "checkpoint", r"\\ud800.*no file can have it"),
    "pipe for a lock": (_instead("pipe", lock_path), "checkpoint", "is a named pipe, not a file"),
    "pipe for a shard": (_instead("pipe", _shard), "checkpoint", "is a named pipe, not a file"),
    "folder for a shard": (_instead("folder", _shard), "checkpoint", "is a folder, not a file"),
    "socket for a shard": (_instead("socket", _shard), "checkpoint", "is a socket, not a file"),
    "device for a shard": (_instead("device", _shard), "checkpoint", "is a device, not a file"),
    "link to itself for a shard": (_instead("loop", _shard), "checkpoint", "cannot be opened"),
    "pipe for the index": (_instead("pipe", lambda layout: layout.index), "checkpoint", "is a named pipe"),
    "pipe for a configuration": (
        _instead("pipe", lambda layout: layout.wan_part("vae") / "config.json"),
        "wan_resources",
        "is a named pipe",
    ),
    "deep configuration of the VAE": (
        lambda layout: (layout.wan_part("vae") / "config.json").write_text(DEEP) and None,
        "wan_resources",
        "nested too deeply",
    ),
    "VAE of a billion layers": (
        lambda layout: (
            (layout.wan_part("vae") / "config.json").write_text('{"z_dim": 16, "num_res_blocks": 1000000000}') and None
        ),
        "wan_resources",
        "num_res_blocks: 1000000000, at most 200",
    ),
    "pipe for a network": (_instead("pipe", lambda layout: layout.detector), "pose_models", "is a named pipe"),
    "network of zeros": (_detector(b"", 10**9), "pose_models", "protobuf has no field 0"),
    "network of a million parts": (_detector(b"\x08\x01" * 1_000_000), "pose_models", "more than 200,000 parts"),
    "network of one large input": (
        _detector(b"\x3a\x86\x80\x80\x80\x01\x5a\x80\x80\x80\x80\x01", 2**28 + 12),
        "pose_models",
        "an input or output of 268,435,456 bytes",
    ),
    "external weights at abc": (_detector(_external(offset="abc")), "pose_models", "offset 'abc', no number"),
    "external weights at -1": (_detector(_external(offset="-1")), "pose_models", "offset '-1', no number"),
    "external weights at a long number": (_detector(_external(length="9" * 4200)), "pose_models", "length '9+…', no"),
    "external weights with NUL": (_detector(_external(location="a\0b")), "pose_models", "outside its folder"),
    "external weights of a long name": (_detector(_external(location="x" * 300)), "pose_models", "outside its folder"),
    "external weights elsewhere": (_detector(_external(location="../w")), "pose_models", "outside its folder"),
    "external weights in a folder": (_detector(_external(location=".")), "pose_models", "outside its folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mismatch_with_a_reason_and_the_rest_of_the_report(locked: RepositoryLayout, case: str) -> None:
    make, part, expected = CASES[case]
    make(locked)
    report = call_within(60, MEGABYTES, _verify, locked)
    assert report.part(part).state == "mismatch", report.parts
    messages = [file.problem or "" for file in report.files] + [report.part(part).message]
    assert any(re.search(expected, message) for message in messages), messages
    assert all(len(message) < 6000 and message.isprintable() for message in messages)
    others = {one.part: one.state for one in report.parts if one.part != part}
    assert set(others.values()) == {"complete"}, others
    assert {file.file for file in report.files if file.state == "complete"}, "the rest of the report is shown"


def test_full_reads_no_pipe_and_no_file_that_has_another_size(locked: RepositoryLayout) -> None:
    """As a terabyte of zeros takes an hour to hash, what its size tells is enough."""
    os.truncate(locked.root / SHARD, 10**12)
    (locked.detector.parent / "another.onnx").symlink_to("/dev/zero")
    locked.pose_estimator.unlink()
    os.mkfifo(locked.pose_estimator)
    report = call_within(60, MEGABYTES, _verify, locked, "full")
    assert report.part("checkpoint").state == report.part("pose_models").state == "mismatch"
    assert report.part("wan_resources").state == "complete"
    assert "has 1,000,000,000,000 bytes" in report.part("checkpoint").message


def test_a_check_that_fails_for_no_foreseen_reason_hides_no_other(
    locked: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(layout: RepositoryLayout) -> None:
        raise KeyError("nobody thought of this")

    monkeypatch.setitem(verify_repository.__globals__["_CHECKS"], "checkpoint", fail)
    report = _verify(locked)
    assert [one.state for one in report.parts] == ["mismatch", "complete", "complete"]
    assert "cannot be looked at (unexpected: KeyError 'nobody thought of this')" in report.part("checkpoint").message


def test_a_file_that_changes_or_cannot_be_read_is_one_row(
    locked: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def fail(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if path.name == SHARD and keywords.get("buffering") == 0:
            raise OSError(5, "Input/output error", str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", fail)
    report = verify_repository(locked, "full", trust_cache=False)
    assert {file.file for file in report.files if file.state != "complete"} == {SHARD}
    assert "Input/output error" in report.part("checkpoint").message


def test_a_hostile_digest_cache_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    for text in (DEEP, '{"format": 1, "files": {"a": [[1e400, 1, 1], "x"]}}', '{"format": 1, "files": [1]}'):
        path.write_text(text)
        assert DigestCache(path).known(path) is None
    path.unlink()
    os.mkfifo(path)
    assert DigestCache(path).known(tmp_path) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**4200),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I8"]) | VALUES,
        "shape": st.lists(st.integers(0, 4), max_size=3) | VALUES,
        "data_offsets": st.tuples(st.integers(0, 16), st.integers(0, 64)) | VALUES,
    },
)
ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@ON_DISK
@given(st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), ENTRY | VALUES, max_size=3) | VALUES)
def test_any_json_is_a_header_or_a_clear_error(tmp_path: Path, content: Any) -> None:
    header = json.dumps(content).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    try:
        read_header(path)
    except ModelFilesError as error:
        assert str(path) in str(error)


@ON_DISK
@given(
    st.fixed_dictionaries({}, optional={"weight_map": st.dictionaries(st.text(), st.text() | VALUES) | VALUES}) | VALUES
)
def test_any_json_is_an_index_or_a_clear_error(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(content))
    try:
        shards = read_index(path).values()
    except ModelFilesError as error:
        assert str(path) in str(error)
    else:
        assert not any((tmp_path / shard).is_file() for shard in shards)


LOCKED = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(0, 9) | VALUES,
        "sha256": st.just("a" * 64) | VALUES,
        "source": st.text(max_size=3) | VALUES,
        "revision": VALUES,
        "hub": VALUES,
        "sizes": st.dictionaries(st.text(max_size=3), VALUES, max_size=2),
    },
)


@ON_DISK
@given(
    st.fixed_dictionaries(
        {"format": st.just(1) | VALUES, "variant": st.just("sandbox") | VALUES},
        optional={
            "files": st.dictionaries(st.text(max_size=5), LOCKED | VALUES, max_size=3) | VALUES,
            "listings": st.dictionaries(st.text(max_size=5), LOCKED | VALUES, max_size=2) | VALUES,
        },
    )
    | VALUES
)
def test_any_json_is_a_lock_or_a_clear_error(pristine: RepositoryLayout, tmp_path: Path, content: Any) -> None:
    layout = RepositoryLayout(pristine.variant, tmp_path, tmp_path, tmp_path)
    lock_path(layout).write_text(json.dumps(content))
    try:
        read_lock(layout)
    except ModelFilesError as error:
        assert str(lock_path(layout)) in str(error)


@ON_DISK
@given(st.data())
def test_any_damage_of_a_graph_is_a_graph_or_a_clear_error(
    pristine: RepositoryLayout, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(_external(offset="0") if data.draw(st.booleans()) else pristine.detector.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(content)))
        content[first : first + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    try:
        read_onnx_graph(path)
    except ModelFilesError as error:
        assert str(tmp_path) in str(error)

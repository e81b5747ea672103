"""Compiling where it cannot be done: found out when the engine is loaded, said once, and the blocks stay eager."""

from pathlib import Path
from typing import Any

import pytest
import torch

from libs.one_to_all import compilation
from libs.one_to_all.compilation import apply_speed, why_not_compiled
from libs.one_to_all.speed_options import SpeedOptions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _no_named_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)


def _compilers(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A PATH with these programs and no others."""
    folder.mkdir()
    for name in names:
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("device", "compilers", "reason"),
    [
        (CUDA, ("gcc",), None),
        (CUDA, ("clang",), None),
        (CUDA, ("g++",), "none of the compilers gcc, clang, cc is there; `apt-get install gcc libc6-dev`"),
        (CPU, ("g++",), None),
        (CPU, ("gcc",), "none of the compilers g++, clang++, c++ is there; `apt-get install g++`"),
    ],
)
def test_a_compiler_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device, compilers: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda _: object())  # triton
    _compilers(tmp_path / "bin", monkeypatch, *compilers)
    assert why_not_compiled(device) == reason


def test_a_compiler_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda _: object())
    _compilers(tmp_path / "bin", monkeypatch, "gcc", "gcc-12")
    monkeypatch.setenv("CC", "gcc-12")
    assert why_not_compiled(CUDA) is None
    monkeypatch.setenv("CC", "gcc-13")
    assert why_not_compiled(CUDA) == "CC=gcc-13 is not there; install it, or unset CC"


def test_cuda_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda _: None)
    assert "triton is not installed" in str(why_not_compiled(CUDA))


def test_blocks_stay_as_they_are_where_they_cannot_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_transformer: Any
) -> None:
    _compilers(tmp_path / "bin", monkeypatch)
    transformer = small_transformer()
    *_, last = apply_speed(transformer, SpeedOptions(compile_blocks=True), CPU, torch.float32)
    assert last.startswith("repeated blocks are NOT compiled, as ONE_TO_ALL_COMPILE asks: none of the compilers")
    assert all(block._compiled_call_impl is None for block in transformer.blocks)

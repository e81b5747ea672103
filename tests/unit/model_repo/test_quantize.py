"""Quantizing: the format, its error, restarting, memory of one weight, and what is refused."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from libs.errors import DiskFullError, InputError, ModelFilesError
from libs.model_repo.files.parameters import expected_parameters, is_quantized, scale_name
from libs.model_repo.files.repository import CONFIGURATION_NAME
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations import quantize
from libs.model_repo.operations.quantize import quantize_checkpoint, quantize_weight
from libs.model_repo.verification.lock import lock_repository, read_lock, write_lock
from libs.model_repo.verification.verify import verify_repository
from libs.settings import Settings

_SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def source(repository: RepositoryLayout) -> RepositoryLayout:
    lock_repository(repository)
    return repository


@pytest.fixture
def target(repository: RepositoryLayout) -> RepositoryLayout:
    models = repository.root.parent
    return layout_of("sandbox-fp8", Settings(models_dir=models, data_dir=models, _env_file=None))


def _tensors(layout: RepositoryLayout) -> dict[str, torch.Tensor]:
    found = {}
    for path in layout.root.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            found |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
    return found


def test_the_fp8_repository_is_complete_and_close(source: RepositoryLayout, target: RepositoryLayout) -> None:
    report = quantize_checkpoint(source, target)
    assert verify_repository(target, "full").state == "complete"
    assert report.size_after < 0.7 * report.size_before
    before, after = _tensors(source), _tensors(target)
    shapes = expected_parameters(source.variant.network)
    for name, tensor in before.items():
        if is_quantized(name, shapes[name]):
            stored, scale = after.pop(name), after.pop(scale_name(name))
            assert (stored.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float16)
            assert scale.shape == (tensor.shape[0], 1)
            restored = stored.float() * scale.float()
            # e4m3 has 3 bits behind the point: half a unit in the last place is 1/16 of the value
            assert (restored - tensor.float()).abs().max() <= tensor.abs().max() / 16
            relative = (restored - tensor.float()).norm() / tensor.float().norm()
            assert relative < 0.03
        else:
            assert torch.equal(after.pop(name), tensor)
    assert after == {}


def test_pretrained_files_are_hard_links_and_locked_as_they_were(
    source: RepositoryLayout, target: RepositoryLayout
) -> None:
    quantize_checkpoint(source, target)
    assert target.detector.samefile(source.detector)
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (target.wan / weights).samefile(source.wan / weights)
    old, new = read_lock(source), read_lock(target)
    assert old is not None and new is not None
    name = f"pretrained_models/{source.wan.name}/{weights}"
    assert new.files[name] == old.files[name]
    assert new.files[_SHARD].source == "quantized from sandbox"


def test_a_second_run_writes_nothing(source: RepositoryLayout, target: RepositoryLayout) -> None:
    first = quantize_checkpoint(source, target)
    before = (target.root / _SHARD).stat()
    second = quantize_checkpoint(source, target)
    assert len(first.written) == 2
    assert second.written == ()
    assert (target.root / _SHARD).stat() == before


def test_a_killed_run_carries_on_behind_the_last_shard(
    source: RepositoryLayout, target: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    original = quantize.write_tensor

    def dying(*arguments: object) -> None:
        nonlocal written
        written += 1
        if written == 200:
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(quantize, "write_tensor", dying)
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(source, target)
    assert [path.name for path in target.root.glob("*.safetensors")] == [_SHARD]
    report = quantize_checkpoint(source, target)
    assert report.kept == (_SHARD,)
    assert verify_repository(target, "full").state == "complete"


def test_another_source_is_quantized_again(source: RepositoryLayout, target: RepositoryLayout) -> None:
    quantize_checkpoint(source, target)
    shards = sorted(source.root.glob("*.safetensors"))
    content = bytearray(shards[0].read_bytes())
    content[-2:] = b"\x00\x3c"  # 1.0 in float16
    shards[0].write_bytes(content)
    lock_repository(source, replace_entries=True)
    assert quantize_checkpoint(source, target).written == (_SHARD,)


def test_a_damaged_shard_is_made_again_and_not_declared_right(
    source: RepositoryLayout, target: RepositoryLayout
) -> None:
    quantize_checkpoint(source, target)
    whole = (target.root / _SHARD).read_bytes()
    (target.root / _SHARD).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = verify_repository(target, "full").part("checkpoint")
    assert (found.state, found.command) == ("mismatch", "one-to-all models quantize sandbox")
    assert quantize_checkpoint(source, target).written == (_SHARD,)
    assert (target.root / _SHARD).read_bytes() == whole
    assert verify_repository(target, "full").state == "complete"


def test_a_finished_shard_that_the_lock_does_not_know_yet_is_kept(
    source: RepositoryLayout, target: RepositoryLayout
) -> None:
    """As where a run was killed after the source had been split in another way."""
    quantize_checkpoint(source, target)
    lock = read_lock(target)
    assert lock is not None
    write_lock(target, lock.without({_SHARD}))
    assert quantize_checkpoint(source, target).written == ()
    assert read_lock(target) == lock


def test_a_damaged_pretrained_file_is_not_declared_right(source: RepositoryLayout, target: RepositoryLayout) -> None:
    content = source.detector.read_bytes()
    source.detector.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    quantize_checkpoint(source, target)
    assert verify_repository(target, "full").part("pose_models").state == "mismatch"


def test_a_repository_on_another_disk_gets_copies(
    source: RepositoryLayout, target: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "hard_link", lambda *_: False)
    quantize_checkpoint(source, target)
    assert (target.root / CONFIGURATION_NAME).read_bytes() == (source.root / CONFIGURATION_NAME).read_bytes()
    assert verify_repository(target, "full").state == "complete"


def test_an_unverified_source_is_refused(source: RepositoryLayout, target: RepositoryLayout) -> None:
    content = bytearray((source.root / _SHARD).read_bytes())
    content[-1] ^= 1
    (source.root / _SHARD).write_bytes(content)
    with pytest.raises(ModelFilesError, match="mismatch"):
        quantize_checkpoint(source, target)
    assert not list(target.root.glob("*")) or not list(target.root.glob("*.safetensors"))


def test_only_the_fp8_variant_of_the_source_is_made(source: RepositoryLayout) -> None:
    models = source.root.parent
    other = layout_of("14b-fp8", Settings(models_dir=models, data_dir=models, _env_file=None))
    with pytest.raises(InputError, match="is not the FP8 variant of sandbox"):
        quantize_checkpoint(source, other)


def test_room_is_checked_first(
    source: RepositoryLayout, target: RepositoryLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("libs.model_repo.operations.quantize.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFullError):
        quantize_checkpoint(source, target)
    assert not list(target.root.glob("*.safetensors"))


def test_nan_is_refused() -> None:
    with pytest.raises(ModelFilesError, match=r"to_q.*not finite"):
        quantize_weight(torch.tensor([[1.0, float("nan")]]), "to_q")


@settings(deadline=None)
@given(st.integers(-9, 4), st.integers(0, 2**32 - 1))
def test_any_magnitude_keeps_its_precision(exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 64, generator=generator) * 10.0**exponent
    weight[1] = 0
    stored, scale = quantize_weight(weight)
    restored = stored.float() * scale.float()
    assert torch.isfinite(stored.float()).all()
    assert torch.equal(restored[1], torch.zeros(64))
    for row in (0, 2, 3):
        # near the smallest float16 the scale is coarse, and values use less of the FP8 range
        bound = 0.04 if exponent > -4 else 0.3
        assert (restored[row] - weight[row]).norm() <= bound * weight[row].norm()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_near_one_tensor(tmp_path: Path) -> None:
    """A 400 MB weight in a process of its own: the peak is the weight, its FP8 copy and small blocks."""
    import subprocess
    import sys

    code = (
        "import torch\n"
        "from tests.memory_peak import peak_bytes\n"
        "from libs.model_repo.operations.quantize import quantize_weight\n"
        "weight = torch.ones(20480, 10240, dtype=torch.bfloat16)\n"
        "before = peak_bytes()\n"
        "quantize_weight(weight)\n"
        "print(peak_bytes() - before)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) < 400_000_000

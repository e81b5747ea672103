"""A checkpoint in one file, with the names of ComfyUI's wrapper, becomes a repository."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from libs.errors import InputError, ModelFilesError
from libs.model_repo.files.parameters import TensorInfo, expected_parameters, is_quantized
from libs.model_repo.files.safetensors_header import read_stored_tensors
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.import_file import (
    SHARD,
    choose_variant,
    complete_import,
    import_checkpoint,
    is_imported,
    variants_of,
    wan_name,
)
from libs.model_repo.variants import get_variant
from libs.model_repo.verification.verify import verify_repository
from libs.settings import Settings

_WIDTH = {"F8_E4M3": 1, "F16": 2, "F32": 4, "U8": 1}


def published(variant: str, scale: str = ".scale_weight") -> dict[str, TensorInfo]:
    """Names, dtypes and shapes as such a file has them: FP8 weights with one float32 factor each."""
    tensors = {"scaled_fp8": TensorInfo("F8_E4M3", (2,))}
    for name, shape in expected_parameters(get_variant(variant).network).items():
        theirs = wan_name(name)
        if is_quantized(name, shape):
            tensors[theirs] = TensorInfo("F8_E4M3", shape)
            tensors[theirs.removesuffix(".weight") + scale] = TensorInfo("F32", (1,))
        else:
            tensors[theirs] = TensorInfo("F32" if "modulation" in theirs else "F16", shape)
    return tensors


def write(path: Path, tensors: Mapping[str, TensorInfo]) -> Path:
    header: dict[str, object] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = _WIDTH[dtype] * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    data = np.random.default_rng(0).integers(0, 60, offset, np.uint8).tobytes()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    return layout_of("sandbox-fp8", Settings(models_dir=tmp_path / "models", data_dir=tmp_path, _env_file=None))


def bytes_of(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    return {name: content[one.first : one.last] for name, one in read_stored_tensors(path).items()}


def test_the_names_of_the_wrapper() -> None:
    assert wan_name("blocks.3.attn1.to_out.0.weight") == "blocks.3.self_attn.o.weight"
    assert wan_name("blocks.3.attn1.add_k_proj.bias") == "blocks.3.ref_attn_k_img.bias"
    assert wan_name("blocks.3.attn1.norm_added_k.weight") == "blocks.3.ref_attn_norm_k_img.weight"
    assert wan_name("controlnet.blocks.0.scale_shift_table") == "controlnet.blocks.0.modulation"
    assert wan_name("refextractor.condition_embedder.time_proj.bias") == "refextractor.time_projection.1.bias"
    assert wan_name("refextractor.ref_blocks.1.weight") == "refextractor.ref_blocks.1.weight"
    assert wan_name("scale_shift_table") == "head.modulation"
    names = list(expected_parameters(get_variant("14b").network))
    assert len({wan_name(name) for name in names}) == len(names), "no two parameters share a name"


@pytest.mark.parametrize("scale", [".scale_weight", ".weight_scale"])
def test_a_file_is_imported_byte_for_byte_under_our_names(tmp_path: Path, layout: RepositoryLayout, scale: str) -> None:
    tensors = {f"model.diffusion_model.{name}": info for name, info in published("sandbox", scale).items()}
    tensors["model.diffusion_model.proj_out.comfy_quant"] = TensorInfo("U8", (10,))
    file = write(tmp_path / "one.safetensors", tensors)
    assert choose_variant(file, None).name == "sandbox-fp8"
    report = import_checkpoint(file, layout)
    assert report.lacking == ("pose_models", "wan_resources")
    theirs, ours = bytes_of(file), bytes_of(layout.root / SHARD)
    expected = expected_parameters(layout.variant.network)
    for name in expected:
        assert ours.pop(name) == theirs[f"model.diffusion_model.{wan_name(name)}"], name
    assert ours.keys() == {
        name.removesuffix(".weight") + ".scale_weight" for name, shape in expected.items() if is_quantized(name, shape)
    }
    assert verify_repository(layout, "full").part("checkpoint").state == "complete"
    assert is_imported(layout)


def test_a_second_import_and_a_changed_checkpoint_are_refused(tmp_path: Path, layout: RepositoryLayout) -> None:
    file = write(tmp_path / "one.safetensors", published("sandbox"))
    import_checkpoint(file, layout)
    with pytest.raises(ModelFilesError, match="has a checkpoint already"):
        import_checkpoint(file, layout)
    shard = layout.root / SHARD
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelFilesError, match="the lock says"):
        complete_import(layout, None)


def test_pretrained_files_of_the_base_are_linked(
    tmp_path: Path, repository: RepositoryLayout, layout: RepositoryLayout
) -> None:
    report = import_checkpoint(write(tmp_path / "one.safetensors", published("sandbox")), layout, repository)
    assert report.lacking == ()
    assert layout.detector.samefile(repository.detector)
    assert verify_repository(layout, "full").state == "complete"


def test_the_variant_is_found_out_by_names_and_shapes(tmp_path: Path) -> None:
    assert variants_of(published("14b")) == ["14b-fp8"]
    assert variants_of(published("1.3b_1")) == ["1.3b_1-fp8", "1.3b_2-fp8"]
    plain = {wan_name(name): TensorInfo("BF16", shape) for name, shape in _shapes("14b").items()}
    assert variants_of(plain) == ["14b"]


def _shapes(variant: str) -> dict[str, tuple[int, ...]]:
    return expected_parameters(get_variant(variant).network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.self_attn.q.weight": TensorInfo("F8_E4M3", (1, 1))}, r"attn1\.to_q\.weight has shape \[1, 1\]"),
        ({"blocks.0.motion_attn.k.weight": TensorInfo("F16", (1,))}, "motion_attn.k.weight is not a parameter of"),
        ({"head.modulation": None}, "scale_shift_table is missing"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, layout: RepositoryLayout, change: dict[str, TensorInfo | None], message: str
) -> None:
    tensors = {name: info for name, info in (published("sandbox") | change).items() if info is not None}
    file = write(tmp_path / "one.safetensors", tensors)
    with pytest.raises(ModelFilesError, match=message):
        choose_variant(file, "sandbox-fp8")
    with pytest.raises(ModelFilesError, match=message):
        import_checkpoint(file, layout)
    assert not layout.root.exists()


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="GGUF"):
        choose_variant(tmp_path / "model.gguf", None)
    with pytest.raises(ModelFilesError, match="there is no such file"):
        choose_variant(tmp_path / "absent.safetensors", None)
    other = write(tmp_path / "other.safetensors", {"double_blocks.0.weight": TensorInfo("F16", (4, 4))})
    with pytest.raises(ModelFilesError, match=r"is not the checkpoint of 14b: .*is missing"):
        choose_variant(other, None)


def test_an_ambiguous_file_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.model_repo.operations.import_file.variants_of", lambda _: ["1.3b_1-fp8", "1.3b_2-fp8"])
    file = write(tmp_path / "one.safetensors", {"a": TensorInfo("F16", (1,))})
    with pytest.raises(InputError, match=r"could be 1\.3b_1-fp8 or 1\.3b_2-fp8: name one of them with --as"):
        choose_variant(file, None)

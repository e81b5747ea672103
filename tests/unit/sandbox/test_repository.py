import hashlib
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from safetensors.torch import load_file
from transformers import AutoTokenizer, T5TokenizerFast, UMT5EncoderModel

from libs.errors import InputError, ModelFilesError
from libs.model_repo.files.safetensors_header import read_index
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import get_variant
from libs.model_repo.verification.lock import lock_path, lock_repository
from libs.model_repo.verification.verify import verify_repository
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.sandbox.repository import write_sandbox_repository

MAXIMUM_BYTES = 60_000_000


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".digest_cache.json"
    }


def test_every_part_is_complete_for_the_verifier(empty_layout):
    write_sandbox_repository(empty_layout)
    lock_repository(empty_layout, source="made by libs.sandbox")
    report = verify_repository(empty_layout, "full")
    assert [part.state for part in report.parts] == ["complete"] * 3
    assert report.warnings == ()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_here_and_in_another_process(sandbox_layout, empty_layout):
    root, pretrained = sandbox_layout.root, sandbox_layout.pretrained.relative_to(sandbox_layout.root)
    program = (
        "from pathlib import Path\n"
        "from libs.model_repo.layout import RepositoryLayout\n"
        "from libs.model_repo.variants import get_variant\n"
        "from libs.sandbox.repository import write_sandbox_repository\n"
        f"root = Path({str(empty_layout.root)!r})\n"
        "variant = get_variant('sandbox')\n"
        f"pretrained = root / {str(pretrained)!r}\n"
        "write_sandbox_repository(RepositoryLayout(variant, root, pretrained, pretrained / variant.wan_folder))\n"
    )
    repository = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=repository)
    assert digests(empty_layout.root) == digests(root)


def test_another_seed_gives_other_weights(sandbox_layout, empty_layout):
    write_sandbox_repository(empty_layout, seed=1)
    before, after = digests(sandbox_layout.root), digests(empty_layout.root)
    assert before.keys() == after.keys()
    assert before["model-00001-of-00002.safetensors"] != after["model-00001-of-00002.safetensors"]


def test_it_is_small(sandbox_layout):
    assert sum(path.stat().st_size for path in sandbox_layout.root.rglob("*") if path.is_file()) < MAXIMUM_BYTES


def test_the_transformer_loads_strictly_from_two_shards(sandbox_layout):
    weight_map = read_index(sandbox_layout.index)
    shards = sorted(set(weight_map.values()))
    assert shards == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    state = {name: value for shard in shards for name, value in load_file(sandbox_layout.root / shard).items()}
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    model = OneToAllTransformer3DModel(**asdict(sandbox_layout.variant.network))
    model.load_state_dict(state, strict=True)


def test_the_wan_parts_load_with_their_own_classes(sandbox_layout):
    network = sandbox_layout.variant.network
    vae = AutoencoderKLWan.from_pretrained(sandbox_layout.wan_part("vae"))
    assert vae.config.z_dim == network.in_channels
    scheduler = UniPCMultistepScheduler.from_pretrained(sandbox_layout.wan_part("scheduler"))
    assert scheduler.config.prediction_type == "flow_prediction"
    encoder = UMT5EncoderModel.from_pretrained(sandbox_layout.wan_part("text_encoder"))
    assert encoder.config.d_model == network.text_dim
    assert (sandbox_layout.wan_part("text_encoder") / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize("tokenizer_class", [AutoTokenizer, T5TokenizerFast])
def test_the_tokenizer_behaves_like_t5(sandbox_layout, tokenizer_class):
    tokenizer = tokenizer_class.from_pretrained(sandbox_layout.wan_part("tokenizer"))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    tokens = tokenizer(
        ["a person dances in a bright studio", ""], padding="max_length", max_length=32, return_tensors="pt"
    )
    first, empty = tokens.input_ids
    count = int(tokens.attention_mask[0].sum())
    assert first[count - 1] == 1 and (first[count:] == 0).all() and (first[: count - 1] > 2).all()
    assert empty[0] == 1 and int(tokens.attention_mask[1].sum()) == 1
    assert tokenizer.decode(first, skip_special_tokens=True) == "a person dances in a bright studio"


def test_prompts_of_different_words_have_different_embeddings(sandbox_layout):
    tokenizer = AutoTokenizer.from_pretrained(sandbox_layout.wan_part("tokenizer"))
    encoder = UMT5EncoderModel.from_pretrained(sandbox_layout.wan_part("text_encoder")).eval()
    with torch.no_grad():
        one, two = (
            encoder(tokenizer(prompt, return_tensors="pt").input_ids).last_hidden_state
            for prompt in ("a clown dances", "a child dances")
        )
    assert torch.isfinite(one).all()
    assert 0.5 < one.std() < 2
    assert not torch.allclose(one[:, -1], two[:, -1])


def test_a_whole_repository_is_left_alone(empty_layout):
    write_sandbox_repository(empty_layout)
    before = {path: path.stat().st_mtime_ns for path in empty_layout.root.rglob("*.safetensors")}
    write_sandbox_repository(empty_layout)
    assert before == {path: path.stat().st_mtime_ns for path in empty_layout.root.rglob("*.safetensors")}


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_repository_is_mended(empty_layout, damage):
    write_sandbox_repository(empty_layout)
    lock_repository(empty_layout, source="made by libs.sandbox")
    whole = digests(empty_layout.root)
    shard = empty_layout.root / "model-00002-of-00002.safetensors"
    if damage == "missing":
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    write_sandbox_repository(empty_layout)
    assert digests(empty_layout.root) == whole  # the lock file, too


def test_other_content_takes_the_lock_file_away(empty_layout):
    write_sandbox_repository(empty_layout)
    lock_repository(empty_layout, source="made by libs.sandbox")
    write_sandbox_repository(empty_layout, seed=1)
    assert not lock_path(empty_layout).exists()
    lock_repository(empty_layout, source="made by libs.sandbox")


def test_files_of_others_are_never_overwritten(empty_layout):
    empty_layout.detector.parent.mkdir(parents=True)
    empty_layout.detector.write_bytes(b"a real network")
    with pytest.raises(ModelFilesError, match=r"yolov10m\.onnx, which the sandbox did not write"):
        write_sandbox_repository(empty_layout)
    assert empty_layout.detector.read_bytes() == b"a real network"
    assert not list(empty_layout.root.glob("*.safetensors"))


def test_a_failure_leaves_no_part_of_a_repository(empty_layout, monkeypatch):
    def fail(*_: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr("libs.sandbox.repository._write_checkpoint", fail)
    with pytest.raises(OSError, match="no space left"):
        write_sandbox_repository(empty_layout)
    assert [path for path in empty_layout.root.rglob("*") if not path.name.startswith(".")] == []
    monkeypatch.undo()
    write_sandbox_repository(empty_layout)
    assert empty_layout.index.is_file()


def test_pretrained_files_may_lie_elsewhere(empty_layout, tmp_path):
    elsewhere = tmp_path / "shared_weights"
    layout = replace(empty_layout, pretrained=elsewhere, wan=tmp_path / "wan")
    write_sandbox_repository(layout)
    assert layout.detector.is_file()
    assert (tmp_path / "wan" / "vae" / "config.json").is_file()
    assert not (layout.root / "pretrained_models").exists()
    assert AutoencoderKLWan.from_pretrained(layout.wan_part("vae")).config.z_dim == 16


def test_only_a_variant_made_by_code_is_written(tmp_path):
    variant = get_variant("1.3b_1")
    layout = RepositoryLayout(variant, tmp_path / "root", tmp_path / "pretrained", tmp_path / "wan")
    with pytest.raises(InputError, match=r"1\.3b_1"):
        write_sandbox_repository(layout)
    assert not (tmp_path / "root").exists()

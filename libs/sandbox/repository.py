"""Writes a complete model repository of the sandbox variant: real layout, real classes, a few megabytes, in seconds.

Everything that can be done to a real repository (verify, lock, slim, load, quantize, animate) can be done to it. The
same seed, code and kept weights give the same bytes. See ``networks`` for where the networks come from.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from diffusers import __version__ as diffusers_version
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from libs.errors import InputError, ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.model_repo.files.write_access import require_write_access
from libs.model_repo.layout import DETECTOR_PATH, POSE_ESTIMATOR_PATH, RepositoryLayout
from libs.model_repo.verification.lock import hold_repository, lock_path
from libs.sandbox.networks import CONSTRUCTED, SandboxNetworks
from libs.sandbox.pose_graphs import pass_through_network
from libs.sandbox.prompt_encoder import build_text_encoder, build_tokenizer

MARKER_NAME = ".sandbox.json"
"""Says that this module wrote the repository, from which seed and code, and what its files are."""

_DWPOSE_FILES = ("dw-ll_ucoco_384.onnx", "yolox_l.onnx")
_TEXT_ENCODER_SHARD = "120KB"


@dataclass(frozen=True)
class _Marker:
    """Content of the marker file.

    ``code`` stands for the sources and kept weights, ``files`` maps paths below the repository's folders to SHA-256.
    """

    seed: int
    code: str
    complete: bool
    files: Mapping[str, str]


def write_sandbox_repository(layout: RepositoryLayout, seed: int = 0, networks: SandboxNetworks = CONSTRUCTED) -> None:
    """Make sure that a complete sandbox repository of ``seed`` and ``networks`` lies at ``layout``.

    Files are written to a folder of their own first and then moved into place, under the repository's lock. A
    repository that is there, whole and from the same seed and code, is left alone; one that differs is written anew,
    and where its content changes its lock file is removed.

    Raises:
        InputError: the layout is not that of a variant made by code.
        ModelFilesError: a folder to write to holds files that this module did not write.
    """
    if not layout.variant.made_by_code:
        raise InputError(f"{layout.variant.name}: its files are not made by code; only the sandbox's are")
    with hold_repository(layout):
        known = _read_marker(layout)
        code = _code_digest(networks)
        if known and known.complete and (known.seed, known.code) == (seed, code) and _is_whole(layout, known):
            return
        require_write_access(layout, "the sandbox that lies there is not that of this version")
        if known is None:
            _refuse_foreign_files(layout)
        staging = layout.root / ".sandbox.partial"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _write_all(staging, layout, seed, networks)
            files = {
                path.relative_to(staging).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(staging.rglob("*"))
                if path.is_file()
            }
            _write_marker(layout, _Marker(seed, code, complete=False, files=files))
            _put_in_place(staging, layout, files, known)
            _write_marker(layout, _Marker(seed, code, complete=True, files=files))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _write_all(folder: Path, layout: RepositoryLayout, seed: int, networks: SandboxNetworks) -> None:
    """Write the whole repository in its standard layout below ``folder``."""
    pretrained = folder / "pretrained_models"
    wan = pretrained / layout.variant.wan_folder
    _write_checkpoint(folder, networks.transformer(layout.variant, seed))
    for path, network in {
        DETECTOR_PATH: networks.detector(),
        POSE_ESTIMATOR_PATH: networks.pose_network(),
        **{Path("DWPose", name): pass_through_network() for name in _DWPOSE_FILES},
    }.items():
        (pretrained / path).parent.mkdir(parents=True, exist_ok=True)
        (pretrained / path).write_bytes(network)
    networks.autoencoder().save_pretrained(wan / "vae")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(wan / "tokenizer")
    generator = torch.Generator().manual_seed(seed)
    text_encoder = build_text_encoder(len(tokenizer), layout.variant.network.text_dim, generator)
    with _no_progress_bars():
        text_encoder.to(torch.bfloat16).save_pretrained(wan / "text_encoder", max_shard_size=_TEXT_ENCODER_SHARD)
    # what Wan2.1's repositories hold; the engine samples with a scheduler of its own
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.save_pretrained(wan / "scheduler")
    _write_json(
        wan / "model_index.json",
        {
            "_class_name": "WanPipeline",
            "_diffusers_version": diffusers_version,
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        },
    )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Transformers shows a bar for every model it saves; these take milliseconds."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _write_checkpoint(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """The transformer in bfloat16, as two shards with an index."""
    folder.mkdir(parents=True)
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()}
    size = sum(value.nbytes for value in state.values())
    split = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=int(0.55 * size)
    )
    assert len(split.filename_to_tensors) == 2, "a shard may hold a little more than half of the bytes"
    for name, tensors in split.filename_to_tensors.items():
        save_file({tensor: state[tensor] for tensor in tensors}, folder / name, metadata={"format": "pt"})
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size}, "weight_map": split.tensor_to_filename},
    )
    _write_json(folder / "configuration.json", {"framework": "pytorch", "task": "image-to-video"})


def _put_in_place(staging: Path, layout: RepositoryLayout, files: Mapping[str, str], known: _Marker | None) -> None:
    """Move the staged files to where the layout wants them, and remove what an earlier version wrote besides."""
    surplus = set(known.files) - set(files) if known else set()
    if known and known.files != files:
        lock_path(layout).unlink(missing_ok=True)
    for name in surplus:
        _place(layout, name).unlink(missing_ok=True)
    for name in files:
        target = _place(layout, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(staging / name, target)


def _place(layout: RepositoryLayout, name: str) -> Path:
    """Where the file ``name`` of the standard layout lies; settings may put the pretrained files elsewhere."""
    path = Path(name)
    if path.parts[0] != "pretrained_models":
        return layout.root / path
    if path.parts[1] == layout.variant.wan_folder:
        return layout.wan.joinpath(*path.parts[2:])
    return layout.pretrained.joinpath(*path.parts[1:])


def _refuse_foreign_files(layout: RepositoryLayout) -> None:
    for folder in (layout.root, layout.pretrained, layout.wan):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in name.parts)  # locks, caches, staging
            if path.is_file() and not hidden and path != lock_path(layout):
                raise ModelFilesError(
                    f"{folder}: holds {name}, which the sandbox did not write; move the folder away, or set MODELS_DIR "
                    "and ONE_TO_ALL_PRETRAINED_DIR to other folders"
                )


def _is_whole(layout: RepositoryLayout, marker: _Marker) -> bool:
    """Every file is there and unchanged; they are small enough to read each time."""
    for name, digest in marker.files.items():
        path = _place(layout, name)
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return False
    return True


def _code_digest(networks: SandboxNetworks) -> str:
    """Another version of the code or of kept weights writes other bytes: the digest of this package and of these."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(networks.digest().encode())
    return digest.hexdigest()


def _read_marker(layout: RepositoryLayout) -> _Marker | None:
    try:
        return _Marker(**json.loads((layout.root / MARKER_NAME).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ModelFilesError(f"{layout.root / MARKER_NAME}: is damaged ({error}); remove {layout.root}") from None


def _write_marker(layout: RepositoryLayout, marker: _Marker) -> None:
    with atomic_write(layout.root / MARKER_NAME) as temporary:
        _write_json(temporary, asdict(marker))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

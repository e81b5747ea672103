"""What the tensors of a LoRA file are called, and which module of the network each of them is for. Light: no torch.

Three families of names are understood, with or without a prefix; ``<part>`` is ``lora_A``/``lora_B`` or
``lora_down``/``lora_up`` (with ``.weight``), ``alpha``, ``diff`` or ``diff_b``:

- diffusers and peft: ``transformer.blocks.0.attn1.to_q.<part>``, also ``base_model.model.`` or no prefix
- Wan2.1's own: ``diffusion_model.blocks.0.self_attn.q.<part>``, also without prefix
- flattened: ``lora_unet_blocks_0_self_attn_q.<part>``

What does not belong here: reading and adding the tensors (``lora``).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Part = Literal["down", "up", "alpha", "weight difference", "bias difference", "up bias"]

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.")
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")

_PARTS: tuple[tuple[str, Part], ...] = (
    (r"\.(?:lora_A|lora_down)(?:\.default)?\.weight", "down"),
    (r"\.(?:lora_B|lora_up)(?:\.default)?\.weight", "up"),
    (r"\.(?:lora_B|lora_up)(?:\.default)?\.bias", "up bias"),
    (r"\.alpha", "alpha"),
    (r"\.diff", "weight difference"),
    (r"\.diff_b", "bias difference"),
)

_WAN_NAMES: tuple[tuple[str, str], ...] = (
    # this network (and diffusers' Wan) -> Wan2.1's own code
    (r"^(blocks\.\d+)\.attn1\.to_out\.0$", r"\1.self_attn.o"),
    (r"^(blocks\.\d+)\.attn2\.to_out\.0$", r"\1.cross_attn.o"),
    (r"^(blocks\.\d+)\.attn1\.(?:to_)?(q|k|v|norm_q|norm_k)$", r"\1.self_attn.\2"),
    (r"^(blocks\.\d+)\.attn2\.(?:to_)?(q|k|v|norm_q|norm_k)$", r"\1.cross_attn.\2"),
    (r"^(blocks\.\d+)\.ffn\.net\.0\.proj$", r"\1.ffn.0"),
    (r"^(blocks\.\d+)\.ffn\.net\.2$", r"\1.ffn.2"),
    (r"^(blocks\.\d+)\.norm2$", r"\1.norm3"),  # the norm before the attention to text
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_1$", r"\1_embedding.0"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_2$", r"\1_embedding.2"),
    (r"^condition_embedder\.time_proj$", r"time_projection.1"),
    (r"^proj_out$", r"head.head"),
    (r"^scale_shift_table$", r"head.modulation"),
)


class LoraTensor(NamedTuple):
    """One tensor of a file: what it is a part of, and which part."""

    owner: str
    """A module of the network, or a parameter that belongs to no smaller module (``scale_shift_table``)."""
    part: Part


def owners_of(parameters: Iterable[str]) -> set[str]:
    """What can be changed: modules that hold a weight or a bias, and parameters that are called otherwise."""
    return {re.sub(r"\.(weight|bias)$", "", name) for name in parameters}


def understand_names(names: Iterable[str], owners: set[str]) -> tuple[dict[str, LoraTensor], list[str]]:
    """Name in the file -> what it is, and the names that say nothing to this network, sorted.

    Args:
        names: of the tensors of a file.
        owners: see :func:`owners_of`.
    """
    aliases = _aliases(owners)
    known, unknown = {}, []
    for name in names:
        owner, part = _split(name)
        found = None if part is None else _find(owner, aliases)
        if found is None or part is None:
            unknown.append(name)
        else:
            known[name] = LoraTensor(found, part)
    return known, sorted(unknown)


def _split(name: str) -> tuple[str, Part | None]:
    for pattern, part in _PARTS:
        if match := re.search(f"{pattern}$", name):
            return name[: match.start()], part
    return name, None


def _aliases(owners: set[str]) -> dict[str, str]:
    aliases = {owner: owner for owner in owners}
    for owner in owners:
        for pattern, replacement in _WAN_NAMES:
            if re.search(pattern, owner):
                aliases[re.sub(pattern, replacement, owner)] = owner
    return aliases | {alias.replace(".", "_"): owner for alias, owner in aliases.items() if "." in alias}


def _find(name: str, aliases: Mapping[str, str]) -> str | None:
    while True:
        if name in aliases:
            return aliases[name]
        prefix = next((prefix for prefix in (*_PREFIXES, *_FLAT_PREFIXES) if name.startswith(prefix)), None)
        if prefix is None:
            return None
        name = name.removeprefix(prefix)

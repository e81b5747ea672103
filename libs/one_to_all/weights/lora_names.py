"""Names of the tensors in a LoRA file, and the module of the network that each of them is for. Light: no torch.

Three families of names are known, with or without prefixes:

- diffusers and peft: ``transformer.blocks.0.attn1.to_q.<part>``, also ``base_model.model.`` or no prefix
- Wan2.1's own: ``diffusion_model.blocks.0.self_attn.q.<part>``, also ``pipe.dit.`` or no prefix
- flattened: ``lora_unet_blocks_0_self_attn_q.<part>``, also with two underscores, or ``lora_unet_blocks_0.self_attn.q``

``<part>`` is of a LoRA (``lora_A``/``lora_B`` or ``lora_down``/``lora_up`` with ``.weight``, with or without the name
of an adapter), of a LoKr (``lokr_w1`` …) or of a LoHa (``hada_w1_a`` …); or ``alpha``; or a whole difference: ``diff``
of a weight, ``diff_b`` of a bias, ``diff_m`` of a modulation table.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

LoraPart = Literal[
    "down",
    "up",
    "alpha",
    "weight difference",
    "bias difference",
    "up bias",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
]

_PREFIXES = (
    "base_model.model.",
    "transformer.",
    "diffusion_model.",
    "model.",
    "module.",
    "pipe.",
    "dit.",
    "unet.",
    "_orig_mod.",
)
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_unet_", "lycoris_")

_LONGEST_NAME = 1000
_ADAPTER = r"(?:\.(?!lora_)[^.]+)?"  # peft's name of it, "default" where people name none
_PARTS: tuple[tuple[str, LoraPart], ...] = (
    (rf"(?:\.lora_A|\.lora_down|[._]lora\.down){_ADAPTER}\.weight", "down"),
    (rf"(?:\.lora_B|\.lora_up|[._]lora\.up){_ADAPTER}\.weight", "up"),
    (rf"(?:\.lora_B|\.lora_up|[._]lora\.up){_ADAPTER}\.bias", "up bias"),
    (r"\.alpha", "alpha"),
    (r"(?:\.weight)?\.diff", "weight difference"),
    (r"\.diff_b", "bias difference"),
    (r"\.bias\.diff", "bias difference"),
    (r"\.lokr_w1", "lokr_w1"),
    (r"\.lokr_w1_a", "lokr_w1_a"),
    (r"\.lokr_w1_b", "lokr_w1_b"),
    (r"\.lokr_w2", "lokr_w2"),
    (r"\.lokr_w2_a", "lokr_w2_a"),
    (r"\.lokr_w2_b", "lokr_w2_b"),
    (r"\.hada_w1_a", "hada_w1_a"),
    (r"\.hada_w1_b", "hada_w1_b"),
    (r"\.hada_w2_a", "hada_w2_a"),
    (r"\.hada_w2_b", "hada_w2_b"),
)
_PATTERNS = tuple((re.compile(f"{pattern}$"), part) for pattern, part in _PARTS)
_MODULATION_END = ".diff_m"
_MODULATIONS = (".modulation", "_modulation")

_OTHER_METHODS = (
    # what cannot be used, by a part of its tensors' names
    (re.compile(r"dora_scale|lora_magnitude_vector"), "is a DoRA, which also scales the weights themselves"),
    (re.compile(r"lora_mid|lokr_t2|hada_t[12]"), "is factored for convolutions by Tucker's method"),
    (re.compile(r"oft_|\.boft|oft_R"), "is an OFT, which rotates weights instead of adding to them"),
    (re.compile(r"^(lora_te\d?_|text_encoders?\.|te\d?\.|cond_stage_model\.)"), "also changes a text encoder"),
    (re.compile(r"k_img|v_img|img_emb|image_embedder|add_[kv]_proj"), "is for image-to-video"),
    (re.compile(r"vace_"), "is for VACE"),
    (re.compile(r"^transformer_2\."), "holds a second network's part (of Wan2.2)"),
    (re.compile(r"double_blocks|single_blocks|transformer_blocks|down_blocks|input_blocks"), "is for another model"),
)

_INSEPARABLE_METHODS = 3
"""The first of them: parts of a module's change, without which the rest of that change would be another."""

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
_SHORT_NAMES = ((r"^(.*\.attn[12]\.to_out)\.0$", r"\1"),)


class LoraTensor(NamedTuple):
    """One tensor of a file: its target and which part of the delta it is.

    Attributes:
        target: a module of the network, or a parameter that belongs to no smaller module (``scale_shift_table``).
        part: of the target's delta.
    """

    target: str
    part: LoraPart


def targets_of(parameters: Iterable[str]) -> set[str]:
    """Everything a LoRA can change: modules that hold a weight or a bias, and parameters with other names."""
    return {re.sub(r"\.(weight|bias)$", "", name) for name in parameters}


def match_names(names: Iterable[str], targets: set[str]) -> tuple[dict[str, LoraTensor], list[str]]:
    """Match tensor names to ``targets``; also return the names that match none, sorted.

    Args:
        names: of the tensors of a file.
        targets: see :func:`targets_of`.
    """
    aliases = _aliases(targets)
    known, unknown = {}, []
    for name in names:
        if len(name) > _LONGEST_NAME:
            unknown.append(name)
            continue
        names_of_target, part = _split(name)
        found = None if part is None else _find(names_of_target, aliases)
        if found is None or part is None:
            unknown.append(name)
        else:
            known[name] = LoraTensor(found, part)
    return known, sorted(unknown)


def describe_other_file(names: Iterable[str]) -> str | None:
    """What unmatched names say about their file, as the end of a sentence; None if they are unknown."""
    shown = list(names)
    return next((kind for pattern, kind in _OTHER_METHODS if any(pattern.search(name) for name in shown)), None)


def changes_otherwise(name: str) -> bool:
    """Whether the tensor is part of a change that is no addition: without it, the rest of that change is another."""
    return any(pattern.search(name) for pattern, _ in _OTHER_METHODS[:_INSEPARABLE_METHODS])


def _split(name: str) -> tuple[list[str], LoraPart | None]:
    """The names its target may have in the file, and the part; None for an unknown ending."""
    if name.endswith(_MODULATION_END):
        return [name.removesuffix(_MODULATION_END) + end for end in _MODULATIONS], "weight difference"
    for pattern, part in _PATTERNS:
        if match := pattern.search(name):
            return [name[: match.start()].replace(".processor.", ".").replace("._orig_mod.", ".")], part
    return [name], None


def _aliases(targets: set[str]) -> dict[str, str]:
    aliases = {target: target for target in targets}
    for target in targets:
        for pattern, replacement in (*_WAN_NAMES, *_SHORT_NAMES):
            if re.search(pattern, target):
                aliases[re.sub(pattern, replacement, target)] = target
    return aliases | {alias.replace(".", "_"): target for alias, target in aliases.items() if "." in alias}


def _find(names: Iterable[str], aliases: Mapping[str, str]) -> str | None:
    return next((target for name in names if (target := _find_one(name, aliases)) is not None), None)


def _find_one(name: str, aliases: Mapping[str, str]) -> str | None:
    while True:
        if found := aliases.get(name) or aliases.get(name.replace(".", "_")):  # some programs mix dots and underscores
            return found
        prefix = next((prefix for prefix in (*_PREFIXES, *_FLAT_PREFIXES) if name.startswith(prefix)), None)
        if prefix is None:
            return None
        name = name.removeprefix(prefix)
        if prefix in _FLAT_PREFIXES:
            name = name.lstrip("_")  # some programs write two underscores

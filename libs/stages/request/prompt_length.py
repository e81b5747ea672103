"""How much of a prompt the text encoder reads: it has room for 512 tokens, and what follows changes nothing.

Counted with the tokenizer among the variant's files, without loading anything else.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import variant_of_folder
from libs.one_to_all.sampling.prompts import MAX_SEQUENCE_LENGTH, clean_prompt
from libs.requests.documents.animation_request import AnimationRequest
from libs.settings import Settings

PROMPT_FIELDS = ("prompt", "negative_prompt")

_TOKENIZER_FILE = "tokenizer.json"
_CHARACTERS_PER_TOKEN = 4
"""About, in English; for a prompt whose tokens cannot be counted."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class PromptLength:
    """How long one prompt is.

    ``tokens`` are all it has, the end token counted; about as many where ``is_counted`` is False. ``kept`` is the part
    that is read.
    """

    field: str
    tokens: int
    kept: str
    is_counted: bool = True

    @property
    def is_cut(self) -> bool:
        """True when its end is not read."""
        return self.tokens > MAX_SEQUENCE_LENGTH

    def __str__(self) -> str:
        if not self.is_counted:
            return (
                f"{self.field}: has about {self.tokens} tokens, of which {MAX_SEQUENCE_LENGTH} are read; the model's "
                "tokenizer is not on this machine, so where it is cut is known when the run begins"
            )
        counted = f"{self.field}: {min(self.tokens, MAX_SEQUENCE_LENGTH)} of {MAX_SEQUENCE_LENGTH} tokens used"
        if not self.is_cut:
            return counted
        return (
            f"{counted}; it has {self.tokens} and is cut after “…{self.kept[-_SHOWN_CHARACTERS:]}”: what follows "
            "changes nothing, so shorten it"
        )


class PromptRuler:
    """Counts the tokens of prompts for one variant; loads its tokenizer when a prompt may be too long."""

    def __init__(self, layout: RepositoryLayout) -> None:
        self._file = layout.wan_part("tokenizer") / _TOKENIZER_FILE
        self._tokenizer: Any = None

    def measure(self, field: str, prompt: str, *, always_count: bool = False) -> PromptLength | None:
        """How long ``prompt`` is; None when it fits in any case, or ``always_count`` cannot be done.

        Raises:
            ModelFilesError: the tokenizer's file is damaged.
        """
        cleaned = clean_prompt(prompt)
        written_out = unicodedata.normalize("NFKC", cleaned).encode()  # as tokenizers do it; one letter may become many
        if not always_count and len(written_out) < MAX_SEQUENCE_LENGTH - 1:
            return None  # a token stands for a byte or more, but for one at the beginning and one at the end
        if self._file.is_file():
            return self._counted(field, cleaned)
        about = len(cleaned) // _CHARACTERS_PER_TOKEN
        return PromptLength(field, about, "", is_counted=False) if about > MAX_SEQUENCE_LENGTH else None

    def _counted(self, field: str, cleaned: str) -> PromptLength:
        self._tokenizer = self._tokenizer or _load(self._file)
        encoding = self._tokenizer.encode(cleaned)
        tokens = len(encoding.ids)
        if tokens <= MAX_SEQUENCE_LENGTH:
            return PromptLength(field, tokens, cleaned)
        end = encoding.offsets[MAX_SEQUENCE_LENGTH - 2][1]  # the last place is the end token's
        return PromptLength(field, tokens, cleaned[:end])


def prompt_warnings(requests: Iterable[AnimationRequest], settings: Settings) -> list[str]:
    """A line for each prompt of ``requests`` that is longer than what is read, each prompt once."""
    default = variant_of_folder(settings.one_to_all_model_dir).name
    rulers: dict[str, PromptRuler] = {}
    first: dict[tuple[str, str, str], str] = {}
    for request in requests:
        for field in PROMPT_FIELDS:
            first.setdefault((request.model or default, field, getattr(request, field)), request.id)
    warnings = []
    for (model, field, prompt), request_id in first.items():
        ruler = rulers.setdefault(model, PromptRuler(layout_of(model, settings)))
        try:
            length = ruler.measure(field, prompt)
        except ModelFilesError as error:
            warnings.append(f"{request_id}: {field}: cannot be measured: {error}")
            continue
        if length is not None and length.is_cut:
            warnings.append(f"{request_id}: {length}")
    return warnings


def prompt_metadata(request: AnimationRequest, layout: RepositoryLayout) -> dict[str, str]:
    """Field -> how long its prompt is, as the UI shows it; nothing of what cannot be counted."""
    ruler, shown = PromptRuler(layout), {}
    for field in PROMPT_FIELDS:
        try:
            length = ruler.measure(field, getattr(request, field), always_count=True)
        except ModelFilesError:  # the check of the model files says so
            continue
        if length is not None:
            shown[f"length of the {field}"] = str(length).removeprefix(f"{field}: ")
    return shown


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - compiled code that few callers need

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower for a file it cannot read
        raise ModelFilesError(f"{file}: is not a tokenizer ({str(error)[:200]}); verify the model's files") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

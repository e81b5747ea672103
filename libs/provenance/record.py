"""``ClipOrigin`` and ``RunRecord``: what made a clip, as it is written into the clip and beside it.

``ClipOrigin`` holds what determines the clip and nothing else, so two runs of the same work write the same mp4; it is
the tag inside the file. ``RunRecord`` holds what differs between such runs (times, cold or warm, the commit); both
together are the JSON file beside the clip. See ``origin`` and ``environment`` for collecting, ``clip_tag`` and
``run_record`` for files, ``trace`` for what is still current.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from libs.errors import InputError
from libs.messages.validation import what_was_expected
from libs.requests.documents.animation_request import ResolvedRequest
from libs.storage.backends.sha256 import SHA256_PATTERN

Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class InputFile(_Part):
    """A picture or video: its path below ``inbox/``, and the SHA-256 of its bytes."""

    path: str
    sha256: Sha256


class ModelFiles(_Part):
    """The model files: part of the repository -> SHA-256 over the names and digests its lock file has for it.

    ``locks`` is empty where the repository has no lock file. ``lora`` is of the LoRA the request names, or
    ``loras`` are of several, in its order.
    """

    variant: str
    locks: dict[str, Sha256]
    lora: Sha256 | None = Field(None, exclude_if=lambda lora: lora is None)
    loras: tuple[Sha256, ...] = Field((), exclude_if=lambda loras: not loras)

    @classmethod
    def with_loras(cls, variant: str, locks: Mapping[str, str], loras: tuple[str, ...]) -> Self:
        """Record a variant and the digests of its LoRAs."""
        several = len(loras) > 1
        return cls(
            variant=variant,
            locks=dict(locks),
            lora=loras[0] if len(loras) == 1 else None,
            loras=loras if several else (),
        )

    @property
    def lora_digests(self) -> tuple[str, ...]:
        """Of all LoRAs, in the request's order."""
        return self.loras or ((self.lora,) if self.lora else ())


class Device(_Part):
    """What computed: ``cpu`` or ``cuda``, the accelerator's name, the networks' number format."""

    kind: str
    name: str
    dtype: str


class ClipOrigin(_Part):
    """Everything that determines a clip.

    Attributes:
        request: the resolved request without what says when it runs (``ResolvedRequest.clip_fields``).
        reference, driver: the picture and the video.
        pose_conditioning: digest of the stored poses and pictures the network was conditioned on.
        model: variant and files.
        engine: all options of the sampler beside the prompts, the seed and the lengths of the chunks among them.
        code_version: version of the stage that samples.
        libraries: name -> version of the libraries that compute.
        device: what they computed on.
    """

    schema_version: Literal[1] = 1
    request: dict[str, Any]
    reference: InputFile
    driver: InputFile
    pose_conditioning: Sha256
    model: ModelFiles
    engine: dict[str, Any]
    code_version: str
    libraries: dict[str, str]
    device: Device

    def resolved_request(self) -> ResolvedRequest:
        """The request this clip was made for; what says when it runs is at its default.

        Raises:
            InputError: it is no valid request of this version of the software.
        """
        try:
            return ResolvedRequest.model_validate(self.request)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise InputError(f"the request recorded in the clip cannot be used: {field}: {problem['msg']}") from None

    def to_json(self) -> str:
        """Compact, ASCII, keys sorted: the same origin always gives the same text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


class CodeState(_Part):
    """The commit that was checked out, and whether files of the code differed from it."""

    commit: str
    dirty: bool


class RunRecord(_Part):
    """What may differ between two runs that make the same clip.

    Attributes:
        run_id: of the orchestrator.
        finished: when the clip was made, UTC.
        code: None outside of a checkout.
        device: as the setting names it, e.g. ``cuda:1``.
        memory_plan: where the networks lay; None where nothing had to be planned.
        start: ``cold`` when the networks were loaded for this clip, else ``warm``.
        chunks: in all; ``chunks_resumed`` of them were made by earlier runs.
        seconds: stage -> time it took.
        stream_digest: SHA-256 of the clip's encoded pictures and sound (``libs.media.video.stream_digest``).
    """

    run_id: str
    finished: datetime
    code: CodeState | None
    device: str
    memory_plan: str | None = None
    start: Literal["cold", "warm"]
    chunks: int
    chunks_resumed: int
    seconds: dict[str, float]
    stream_digest: Sha256


class Provenance(_Part):
    """The JSON file beside a clip."""

    clip: ClipOrigin
    run: RunRecord

    def to_json(self) -> str:
        """Indented, for people."""
        return self.model_dump_json(indent=2) + "\n"


def parse_origin(text: str, source: str) -> ClipOrigin:
    """Read the tag of a clip.

    Raises:
        InputError: the text is not a valid record; the message names ``source``.
    """
    try:
        return ClipOrigin.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{source}: {_explained(error)}") from None


def parse_provenance(text: str | bytes, source: str) -> Provenance:
    """Read the file beside a clip.

    Raises:
        InputError: the text is not a valid record; the message names ``source``.
    """
    try:
        return Provenance.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{source}: {_explained(error)}") from None


def _explained(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return (
        f"holds no provenance that this version of the software supports ({field or 'text'}: "
        f"{what_was_expected(problem)}); it was made by other software, or by a newer version"
    )

"""What a person asks for: one reference, one driver, one model variant and the options of one clip.

A request is a YAML or JSON document. Parsing is strict: unknown fields, wrong types and values out of range are errors
that name the field. What a request leaves out is filled in from its variant (``resolve``), so that a stored request
says everything that determines its clip. See ``document`` for reading the text of a document, ``batch`` for several
requests in one, ``libs.requests.inbox.inbox`` for finding documents and media.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from libs.errors import InputError
from libs.messages.printable import printable
from libs.messages.validation import field_path, shown, what_was_expected
from libs.model_repo.variants import VARIANTS, get_variant
from libs.one_to_all.sampling.approximation import Quality
from libs.one_to_all.sampling.schedule import (
    DISTILLED_SHIFT,
    DISTILLED_STEPS,
    UNWRITTEN_SHIFT,
    SamplerName,
    ScheduleName,
    check_schedule,
    problem_of_sigmas,
)
from libs.pose.options import FaceStyle, HeadStyle, RequestedAlign, RequestedAnchor, RequestedMode
from libs.requests.documents.core_yaml import UnclearNumber
from libs.requests.documents.document import load_document
from libs.requests.documents.driver_part import EXPECTED, normalised_time
from libs.requests.documents.presets import PRESETS, PresetName

DEFAULT_NEGATIVE_PROMPT = (
    "black background, Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, "
    "bad teeth, bad eyes, bad limbs, distortion"
)
"""The negative prompt of the reference inference scripts (docs/specification.md#prompts)."""

REQUEST_ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"

LORA_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

SCHEDULING_FIELDS = frozenset({"priority", "when"})
"""Fields that say when a clip is made, not what it shows: changing them makes no clip stale."""

POSE_OPTION_FIELDS = {"model", "mode", "align", "anchor", "face", "head", "size", "allow_large"}
"""Fields that determine the drawn poses."""

GRID_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}$"

_MAX_PROBLEMS = 20
_MOST_STEPS = 200
_LONGEST_MESSAGE = 10_000

_ID_RULE = "must be 1 to 64 lower-case letters, digits, '-' or '_', starting with a letter or digit"
_PATTERN_RULES = {
    REQUEST_ID_PATTERN: _ID_RULE,
    GRID_NAME_PATTERN: _ID_RULE.replace("64", "32"),
    LORA_NAME_PATTERN: "must be the name of the LoRA's file without .safetensors: 1 to 100 letters, digits, '.', '_' "
    "or '-', starting with a letter or digit; rename a file that is called otherwise",
}

_YES_AND_NO = {"yes": True, "on": True, "no": False, "off": False}
"""Words that mean true and false to people, and did to YAML before version 1.2."""

RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID_PATTERN)]


class OutputSize(BaseModel):
    """Size of the clip in pixels; each side is floored to a multiple of 16."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    height: int = Field(ge=16, le=4096)
    width: int = Field(ge=16, le=4096)


class LoraChoice(BaseModel):
    """One of several LoRAs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=LORA_NAME_PATTERN, description="a file in the folder loras/, without .safetensors")
    strength: float = Field(1.0, ge=-4, le=4, allow_inf_nan=False, description="1 adds it as it was trained")


class AnimationRequest(BaseModel):
    """One clip to make. Fields left out (None) get their variant's default in :meth:`resolve`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: RequestId = Field(description="also the partition key: lower-case letters, digits, '-' and '_', at most 64")
    reference: str = Field(min_length=1, max_length=500, description="the character's picture, a path below inbox/")
    driver: str = Field(min_length=1, max_length=500, description="the video with the motion, a path below inbox/")
    model: str | None = Field(None, description="model variant; that of ONE_TO_ALL_MODEL_DIR when left out")
    mode: RequestedMode = Field(
        "auto", description="ref: fit the motion to the character; pose: move the character into the driver's framing"
    )
    align: RequestedAlign = Field("auto", description="retarget the motion to the character's proportions")
    anchor: RequestedAnchor = Field(
        "first",
        description="the frame of the driver that is compared with the picture, counted after the frame interval",
        exclude_if=lambda anchor: anchor == "first",  # requests from before there was a choice keep their digests
    )
    pose_networks: Literal["auto", "vitpose", "mediapipe", "sandbox"] | None = Field(
        None,
        description="what finds key-points; POSE_NETWORKS, or else the model's own, when left out",
        exclude_if=lambda networks: networks is None,  # likewise
    )
    face: FaceStyle = Field("faded", description="how strongly face key-points guide the clip")
    head: HeadStyle = Field("faded", description="how strongly head joints guide the clip")
    prompt: str = Field("", max_length=5000)
    negative_prompt: str = Field(DEFAULT_NEGATIVE_PROMPT, max_length=5000)
    preset: PresetName | None = Field(
        None,
        description="fills in LoRA, steps, schedule, shift and guidance where left out, see docs/few-steps.md",
        exclude_if=lambda preset: preset is None,  # requests from before there was a choice keep their digests
    )
    steps: int | None = Field(None, ge=1, le=200, description="denoising steps")
    schedule: ScheduleName | list[float] | None = Field(
        None,
        description="noise levels of the steps: by name, or one sigma for each step; default when left out",
        exclude_if=lambda schedule: schedule is None or schedule == "default",
    )
    shift: float | None = Field(
        None,
        ge=0.1,
        le=30,
        allow_inf_nan=False,
        description="moves the noise levels towards high noise; 7, or 5 with the schedule distilled, when left out",
        exclude_if=lambda shift: shift in {None, UNWRITTEN_SHIFT},
    )
    sampler: SamplerName | None = Field(
        None,
        description="how a step is made; euler when left out, unipc corrects each step by the next",
        exclude_if=lambda sampler: sampler in {None, "euler"},
    )
    image_guidance: float | None = Field(None, ge=0, le=20, allow_inf_nan=False, description="active above 1")
    pose_guidance: float | None = Field(None, ge=0, le=20, allow_inf_nan=False, description="active above 1")
    pose_guidance_alone: bool = Field(
        False,
        description="pose guidance acts without image guidance, which is then 1 when left out; two passes a step",
        exclude_if=lambda alone: not alone,
    )
    quality: Quality = Field(
        "exact",
        description="fast and draft leave work out, see docs/engine.md",
        exclude_if=lambda quality: quality == "exact",  # requests from before there was a choice keep their digests
    )
    lora: str | None = Field(
        None,
        pattern=LORA_NAME_PATTERN,
        description="a LoRA in the folder loras/ of the model, named without .safetensors",
        exclude_if=lambda lora: lora is None,
    )
    lora_strength: float = Field(
        1.0,
        ge=-4,
        le=4,
        allow_inf_nan=False,
        description="1 adds the LoRA as it was trained, 0.5 half of it",
        exclude_if=lambda strength: strength == 1,  # likewise
    )
    loras: list[LoraChoice] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="several LoRAs, each with a strength, instead of lora and lora_strength",
        exclude_if=lambda loras: loras is None,
    )
    lora_strict: bool = Field(
        True,
        description="false skips tensors of a LoRA that fit no module of the network, and lists them",
        exclude_if=lambda strict: strict,
    )
    seed: int = Field(42, ge=0, lt=2**63)
    frame_interval: int = Field(1, ge=1, le=30, description="use every n-th frame of the driver")
    start: float | str | None = Field(
        None,
        description="where the used part of the driver begins: seconds, or frames such as 75f",
        exclude_if=lambda start: start is None,  # requests from before there was a choice keep their digests
    )
    duration: float | str | None = Field(
        None,
        description="how long the used part is: seconds, or frames such as 75f; to the driver's end when left out",
        exclude_if=lambda duration: duration is None,  # likewise
    )
    size: OutputSize | None = Field(None, description="the reference's size when left out")
    allow_large: bool = Field(
        False,
        description="raises the limit of the short side by a quarter (14b: 720), beyond what the model was trained for",
        exclude_if=lambda allowed: not allowed,
    )
    match_colours: bool = Field(
        False,
        description="brings the colours of later chunks to those of the first, where a long clip drifts",
        exclude_if=lambda matched: not matched,
    )
    keep_audio: bool = Field(True, description="copy the driver's sound into the clip")
    accept_poor_poses: bool = Field(
        False,
        description="make the clip although too little of a person was found",
        exclude_if=lambda accepted: not accepted,  # likewise
    )
    priority: int = Field(0, ge=-100, le=100, description="more urgent requests run first")
    when: Literal["now", "nightly"] = Field("now", description="as soon as possible, or with the next nightly batch")

    @field_validator("align", mode="before")
    @classmethod
    def _says_yes_or_no(cls, value: Any) -> Any:
        """``true`` and ``Yes`` are meant as ``yes``."""
        meant = _yes_or_no(value)
        return ("yes" if meant else "no") if isinstance(meant, bool) else value

    @field_validator("schedule", mode="before")
    @classmethod
    def _is_a_schedule(cls, value: Any) -> Any:
        """A name, or sigmas without the 0 at their end."""
        if value is None or value in get_args(ScheduleName):
            return value
        if not isinstance(value, list) or any(
            isinstance(one, bool) or not isinstance(one, int | float) for one in value
        ):
            names = ", ".join(get_args(ScheduleName))
            raise ValueError(f"must be {names}, or a list of sigmas, as in [1, 0.9375, 0.8333, 0.625]")
        sigmas = [float(one) for one in value]
        sigmas = sigmas[:-1] if sigmas[-1:] == [0.0] else sigmas
        if problem := problem_of_sigmas(sigmas):
            raise ValueError(problem)
        if len(sigmas) > _MOST_STEPS:
            raise ValueError(f"may have at most {_MOST_STEPS} sigmas")
        return sigmas

    @field_validator("pose_guidance_alone", "lora_strict", "allow_large", "match_colours", mode="before")
    @classmethod
    def _is_yes_or_no(cls, value: Any) -> Any:
        return _yes_or_no(value)

    @field_validator("keep_audio", mode="before")
    @classmethod
    def _is_true_or_false(cls, value: Any) -> Any:
        return _yes_or_no(value)

    @field_validator("start", "duration", mode="before")
    @classmethod
    def _is_a_time(cls, value: Any) -> Any:
        time = normalised_time(value)
        if time is not None and (isinstance(time, bool) or not isinstance(time, float | str)):
            raise ValueError(getattr(value, "why", EXPECTED))
        return time

    @field_validator("duration")
    @classmethod
    def _is_longer_than_nothing(cls, value: float | str | None) -> float | str | None:
        if value in (0.0, "0f"):
            raise ValueError("must be longer than nothing")
        return value

    @field_validator("anchor", mode="before")
    @classmethod
    def _is_a_frame(cls, value: Any) -> Any:
        if value not in ("first", "auto") and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError("must be first, auto, or a frame of the driver, counted from 0")
        return value

    @field_validator("lora_strength")
    @classmethod
    def _is_the_strength_of_something(cls, value: float, info: ValidationInfo) -> float:
        if value != 1 and "lora" in info.data and info.data["lora"] is None and info.data.get("preset") is None:
            raise ValueError("needs the field lora, which names what is added at this strength")
        return value

    @field_validator("loras")
    @classmethod
    def _are_several_loras(cls, value: list[LoraChoice] | None, info: ValidationInfo) -> list[LoraChoice] | None:
        if value is not None:
            names = [one.name for one in value]
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"names {repeated} more than once")
            if info.data.get("lora") is not None or info.data.get("lora_strength", 1) != 1:
                raise ValueError("stands in the place of lora and lora_strength: list all of them here")
        return value

    @field_validator("reference", "driver")
    @classmethod
    def _lies_below_the_inbox(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\\x00-\x1f\x7f]", value):
            raise ValueError("must be a relative path of a file below inbox/, without '..' or backslashes")
        return str(path)

    @field_validator("model")
    @classmethod
    def _is_a_variant(cls, value: str | None) -> str | None:
        if value is not None and value not in VARIANTS:
            raise ValueError(f"must be one of {', '.join(VARIANTS)}")
        return value

    @model_validator(mode="after")
    def _sampling_fields_agree(self) -> Self:
        sampling = self._sampling()
        schedule, steps = sampling["schedule"], sampling["steps"]
        if isinstance(schedule, list) and self.shift not in {None, UNWRITTEN_SHIFT}:
            raise ValueError("shift: a schedule that lists its sigmas has none; leave it out")
        try:
            if steps is not None:
                check_schedule(tuple(schedule) if isinstance(schedule, list) else schedule, steps, sampling["shift"])
        except InputError as error:
            raise ValueError(str(error)) from None
        if sampling["pose_guidance_alone"]:
            if sampling["image_guidance"] > 1:
                raise ValueError("pose_guidance_alone: needs an image_guidance of at most 1, or none")
            if sampling["pose_guidance"] is not None and sampling["pose_guidance"] <= 1:
                raise ValueError("pose_guidance_alone: needs a pose_guidance above 1")
        return self

    def _sampling(self) -> dict[str, Any]:
        """The fields of ``Preset`` as this request means them; None for what its variant decides."""
        given = {name: getattr(self, name) for name in PRESETS["fast-8"].fields()}
        given = {name: value for name, value in given.items() if value is not None and value is not False}
        preset = {} if self.preset is None else PRESETS[self.preset].fields()
        if "schedule" in given:  # it decides on steps and shift before the preset does
            preset.pop("shift", None)
            if given["schedule"] == "distilled" or isinstance(given["schedule"], list):
                preset.pop("steps", None)
        sampling: dict[str, Any] = dict.fromkeys(("steps", "image_guidance", "pose_guidance", "lora"))
        sampling |= {"schedule": "default", "sampler": "euler", "pose_guidance_alone": False, **preset, **given}
        schedule = sampling["schedule"]
        if sampling["steps"] is None and schedule == "distilled":
            sampling["steps"] = DISTILLED_STEPS
        if sampling["steps"] is None and isinstance(schedule, list):
            sampling["steps"] = len(schedule)
        sampling.setdefault("shift", DISTILLED_SHIFT if schedule == "distilled" else UNWRITTEN_SHIFT)
        if sampling["pose_guidance_alone"] and sampling["image_guidance"] is None:
            sampling["image_guidance"] = 1.0
        return sampling

    def resolve(self, default_model: str) -> "ResolvedRequest":
        """Return the request with every default written out.

        Args:
            default_model: the variant a request means when it names none.
        """
        variant = get_variant(self.model or default_model)
        sampling, defaults = self._sampling(), variant.sampling
        if self.lora is None and (self.loras or get_variant(variant.base or variant.name).made_by_code):
            sampling["lora"] = None  # others are listed; none is distilled from the sandbox
        if self.loras is not None and len(self.loras) == 1:  # the same clip, however it is written
            sampling |= {"lora": self.loras[0].name, "lora_strength": self.loras[0].strength, "loras": None}
        variant_decides = {
            "steps": defaults.num_inference_steps,
            "image_guidance": defaults.image_guidance_scale,
            "pose_guidance": defaults.pose_guidance_scale,
        }
        sampling |= {name: value for name, value in variant_decides.items() if sampling[name] is None}
        written_out = {"model": variant.name, "preset": None, **sampling}
        return ResolvedRequest.model_validate({**self.model_dump(), **written_out})


class ResolvedRequest(AnimationRequest):
    """A request in which nothing is left to a default: what is stored, and what determines the clip."""

    model: str
    steps: int = Field(ge=1, le=200)
    schedule: ScheduleName | list[float] = Field("default", exclude_if=lambda schedule: schedule == "default")
    shift: float = Field(
        UNWRITTEN_SHIFT, ge=0.1, le=30, allow_inf_nan=False, exclude_if=lambda shift: shift == UNWRITTEN_SHIFT
    )
    sampler: SamplerName = Field("euler", exclude_if=lambda sampler: sampler == "euler")
    image_guidance: float = Field(ge=0, le=20, allow_inf_nan=False)
    pose_guidance: float = Field(ge=0, le=20, allow_inf_nan=False)

    @property
    def chosen_loras(self) -> tuple[LoraChoice, ...]:
        """All LoRAs, in the order in which they are added."""
        if self.loras is not None:
            return tuple(self.loras)
        return () if self.lora is None else (LoraChoice(name=self.lora, strength=self.lora_strength),)

    def clip_fields(self) -> dict[str, Any]:
        """The fields that determine the clip, as JSON can hold them."""
        return self.model_dump(mode="json", exclude=set(SCHEDULING_FIELDS))


def _yes_or_no(value: Any) -> Any:
    """``value``; true or false where it is a word for that."""
    return _YES_AND_NO.get(value.lower(), value) if isinstance(value, str) else value


def parse_request(document: bytes | str, *, source: str) -> AnimationRequest:
    """Read one request from YAML or JSON text.

    Args:
        document: the text, UTF-8.
        source: where it came from, for messages.

    Raises:
        InputError: names ``source`` and each wrong field, and says what was expected.
    """
    return validate_request_fields(load_document(document, source=source), source=source)


def validate_request_fields(content: Any, *, source: str) -> AnimationRequest:
    """A request from plain data.

    Raises:
        InputError: names ``source`` and each wrong field, and says what was expected.
    """
    if not isinstance(content, dict):
        raise InputError(
            f"{source}: expected a mapping of request fields, such as `id: clip-1`, one in each line; "
            f"found {_named(content)}"
        )
    try:
        return AnimationRequest.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {describe_validation_error(error)}") from None


def describe_validation_error(error: ValidationError, known_fields: Iterable[str] | None = None) -> str:
    """One line: the wrong fields with what was expected and what was found.

    ``known_fields`` are those an unknown field may be a misspelling of; a request's when left out.
    """
    known = list(known_fields or AnimationRequest.model_fields)
    problems = error.errors(include_url=False)
    described = [_describe(problem, known) for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        described.append(f"and {len(problems) - _MAX_PROBLEMS} more problems")
    return printable("; ".join(described), _LONGEST_MESSAGE)


def field_problems(error: ValidationError) -> list[tuple[str, str]]:
    """Each wrong field with what was expected and what was found, for a form that says so beside the field."""
    known = list(AnimationRequest.model_fields)
    found = []
    for problem in error.errors(include_url=False)[:_MAX_PROBLEMS]:
        field = field_path(problem["loc"])[:80]
        text = _describe(problem, known).removeprefix(f"{field or 'request'}: ")
        found.append((printable(field), printable(text, _LONGEST_MESSAGE)))
    return found


def _describe(problem: Any, known_fields: Sequence[str]) -> str:
    kind, found = problem["type"], problem.get("input")
    if not problem["loc"] and kind == "value_error":
        return what_was_expected(problem)  # of several fields together; it names them
    field = field_path(problem["loc"])[:80] or "request"
    if kind == "extra_forbidden":
        return f"{field}: unknown field; {_known(problem['loc'], known_fields)}"
    if kind == "missing":
        return f"{field}: is required"
    if isinstance(found, UnclearNumber) and kind in {"int_type", "float_type"}:
        return f"{field}: {found.why}"
    if found is None and kind.endswith("_type"):
        return f"{field}: has no value; write one, or leave the field out"
    message = what_was_expected(problem)
    if field == "id" and kind != "string_type":
        message = _ID_RULE
    elif kind == "string_pattern_mismatch":
        message = _PATTERN_RULES.get(problem["ctx"]["pattern"], message)
    elif field.startswith("loras") and kind == "model_type":
        message = "must have a name and may have a strength, as in {name: look, strength: 0.8}"
    elif field == "size" and kind == "model_type":
        message = "must be height and width in pixels, as in {height: 768, width: 576}"
    return f"{field}: {message} (found {shown(found)})"


def _known(location: Sequence[int | str], known_fields: Sequence[str]) -> str:
    """Which fields there are at the place of an unknown one, and which was meant."""
    of_parts: dict[Any, type[BaseModel]] = {"size": OutputSize, "loras": LoraChoice}
    part = of_parts.get(location[0])
    known = known_fields if part is None else list(part.model_fields)
    meant = get_close_matches(str(location[-1])[:80], known, n=1, cutoff=0.7)
    return f"known fields: {', '.join(known)}" + "".join(f"; did you mean {name}?" for name in meant)


def _named(content: Any) -> str:
    """What stands in the place of a request's fields."""
    if content is None:
        return "nothing: it is empty"
    return "a list" if isinstance(content, list) else printable(shown(content))
